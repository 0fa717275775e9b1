"""Credentials of `/live`: headers, the cookie of this origin's pages, and tickets."""

import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from urllib.parse import urlencode

import httpx2
import pytest
from jose import jwt
from sqlalchemy import Connection, text

from app.config import get_settings
from app.security import access_tokens
from tests.contract.test_cookies import FROM_ELSEWHERE
from tests.fixtures import Person, Server
from tests.hostile.corpus import NUMBERS, TEXTS
from tests.live.listening import Listener
from tests.live.sockets import refusal_of, socket_at
from tests.live.test_streams import send

Headers = dict[str, str]


def ticket_of(url: str, person: Person) -> str:
    answer = send("POST", f"{url}/live/tickets", person)
    assert answer.status_code == 201
    assert answer.json()["expires_in"] == 30
    assert answer.headers["Cache-Control"] == "no-store"
    return str(answer.json()["ticket"])


def cookie_of(person: Person) -> Headers:
    value = access_tokens.issue(person.id, person.session_id, timedelta(minutes=30), "cookie")
    return {"Cookie": f"session={value}"}


def status_of(url: str, query: str = "", **headers: str) -> int:
    """Return the status of `GET /live`, which is not read further."""
    deadline = time.monotonic() + 10
    while True:
        with httpx2.stream("GET", f"{url}/live?{query}", headers=headers, timeout=20) as response:
            if response.status_code != 429 or time.monotonic() > deadline:
                return response.status_code
        time.sleep(0.1)  # The server has yet to notice the end of earlier ones.


def test_a_ticket_opens_one_stream_on_any_server(url: str, other_url: str, person: Person) -> None:
    ticket = ticket_of(url, person)
    listener = Listener(other_url, f"topics=me&ticket={ticket}", {})
    try:
        assert listener.wait_for_type("state")["unread"]["unread"] == 0
    finally:
        listener.close()
    for address in (url, other_url):
        assert status_of(address, f"ticket={ticket}") == 401
        assert refusal_of(address, {}, f"ticket={ticket}") == (401, "not_authenticated")


def test_of_many_that_use_a_ticket_at_once_one_is_let_in(url: str, other_url: str, person: Person) -> None:
    ticket = ticket_of(url, person)
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda address=address: statuses.append(status_of(address, f"ticket={ticket}")))
        for address in (url, other_url) * 8
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] + [401] * 15


def test_a_ticket_opens_a_socket_for_pages_of_any_origin(url: str, person: Person) -> None:
    query = f"topics=me&ticket={ticket_of(url, person)}"
    with socket_at(url, {"Origin": "https://client.example"}, query) as live:
        live.next("state")


def test_a_ticket_is_no_other_credential_and_no_other_token_a_ticket(url: str, person: Person) -> None:
    ticket = ticket_of(url, person)
    for headers in ({"Authorization": f"Bearer {ticket}"}, {"Cookie": f"session={ticket}"}):
        assert httpx2.get(f"{url}/users/me", headers=headers).status_code == 401
        assert status_of(url, **headers) == 401
    for token in (person.token, cookie_of(person)["Cookie"].removeprefix("session="), "nonsense", ""):
        assert status_of(url, f"ticket={token}") == 401
    assert httpx2.get(f"{url}/users/me?ticket={ticket}").status_code == 401


def test_an_old_ticket_and_that_of_an_ended_session_are_refused(url: str, other_url: str, person: Person) -> None:
    old = access_tokens.issue(person.id, person.session_id, timedelta(seconds=-1), "ticket")
    assert status_of(url, f"ticket={old}") == 401
    ticket = ticket_of(url, person)
    send("POST", f"{other_url}/logout", person)
    assert status_of(url, f"ticket={ticket}") == 401


def test_a_read_only_key_gets_no_ticket(url: str, person: Person) -> None:
    key = send("POST", f"{url}/api-keys", person, json={"name": "n", "scopes": ["read"]}).json()["key"]
    assert httpx2.post(f"{url}/live/tickets", headers={"X-API-Key": key}).status_code == 403
    feed_key = send("POST", f"{url}/api-keys", person, json={"name": "n", "scopes": ["feed"]}).json()["key"]
    assert status_of(url, **{"X-API-Key": feed_key}) == 401
    assert status_of(url, **{"X-API-Key": key}) == 200


def test_a_ticket_in_an_address_is_in_no_log(
    servers: Sequence[Server], url: str, person: Person, connection: Connection
) -> None:
    ticket = ticket_of(url, person)
    assert status_of(url, f"ticket={ticket}") == 200
    with socket_at(url, {}, f"ticket={ticket_of(url, person)}") as live:
        live.next("state")
    assert "ticket=" not in servers[0].log.read_text()
    assert (
        connection.scalar(
            text("SELECT count(*) FROM allowances WHERE allowances::text LIKE '%' || :ticket || '%'"),
            {"ticket": ticket},
        )
        == 0
    )


@pytest.mark.parametrize("elsewhere", [headers for name, headers in FROM_ELSEWHERE.items() if headers], ids=str)
def test_pages_of_other_origins_cannot_use_the_cookie(url: str, person: Person, elsewhere: Headers) -> None:
    headers = cookie_of(person) | {
        name: value.replace("testserver", url.removeprefix("http://")) for name, value in elsewhere.items()
    }
    answer = httpx2.get(f"{url}/live", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "cross_site_request")
    assert refusal_of(url, headers) == (403, "cross_site_request")


def test_pages_of_this_origin_can_use_the_cookie(url: str, person: Person) -> None:
    assert status_of(url, **cookie_of(person)) == 200  # Old browsers send no origin with a GET of the same one.
    for headers in ({"Sec-Fetch-Site": "same-origin"}, {"Origin": url}):
        assert status_of(url, **cookie_of(person), **headers) == 200
        with socket_at(url, cookie_of(person) | headers) as live:
            live.next("state")
    # A page whose browser says nothing of its origin may be of another one. Browsers send it with each handshake.
    assert refusal_of(url, cookie_of(person)) == (403, "cross_site_request")


def test_hostile_values_are_refused_or_understood(url: str, make_person: Callable[..., Person]) -> None:
    with httpx2.Client(base_url=url, timeout=20) as client:
        for value in [*NUMBERS, *TEXTS]:
            headers = make_person().headers  # Each has a limit of streams, and of requests a minute.
            for name in ("posts", "topics", "ticket", "last_event_id"):
                with client.stream("GET", f"/live?{urlencode({name: value})}", headers=headers) as response:
                    assert response.status_code in {200, 401, 414, 422}, (name, value)
            if value.isascii() and value.isprintable():
                with client.stream("GET", "/live", headers={**headers, "Last-Event-ID": value.strip()}) as response:
                    assert response.status_code == 200, value


def test_a_token_that_expires_ends_its_stream(url: str, person: Person) -> None:
    token = access_tokens.issue(person.id, person.session_id, timedelta(seconds=3))
    listener = Listener(url, "", {"Authorization": f"Bearer {token}"})
    try:
        listener.wait_for_end(seconds=10)
        assert listener.messages[-1] == {"type": "end", "reason": "expired"}
    finally:
        listener.close()


def test_a_token_of_the_tutorial_opens_a_stream_and_gets_no_ticket(
    start_server: Callable[..., Server], person: Person
) -> None:
    server = start_server(TUTORIAL_DEFAULTS="true")
    claims = {"user_id": person.id, "exp": int(time.time()) + 600}
    headers = {"Authorization": f"Bearer {jwt.encode(claims, get_settings().signing_secret)}"}
    assert httpx2.get(f"{server.url}/users/me", headers=headers).status_code == 200
    assert status_of(server.url, **headers) == 200
    assert httpx2.post(f"{server.url}/live/tickets", headers=headers).status_code == 401


def test_head_opens_no_stream(url: str, person: Person) -> None:
    for _ in range(8):
        answer = httpx2.head(f"{url}/live", headers=person.headers)
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert httpx2.head(f"{url}/live").status_code == 401


def test_without_accounts_there_are_no_streams(start_server: Callable[..., Server], person: Person) -> None:
    server = start_server(PUBLIC_READS="true")
    assert status_of(server.url) == 401
    assert status_of(server.url, **person.headers) == 200

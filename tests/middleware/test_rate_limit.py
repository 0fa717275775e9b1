"""Rate limits per caller: requests per minute, headers, and what counts as one caller."""

import asyncio
import json
import math
import re
import time
from collections.abc import Callable
from datetime import timedelta

import httpx2
import pytest
from sqlalchemy import Connection, text
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import authentication
from app.config import get_settings
from app.main import Application, create_app
from app.middleware import rate_limit
from app.middleware.rate_limit import RateLimit
from app.middleware.request_context import RequestContext
from app.security import access_tokens
from tests.contract.answers import assert_refused
from tests.contract.test_public_routes import claims_of, signed
from tests.fixtures import Person, Server


@pytest.fixture
def three_a_minute(monkeypatch: pytest.MonkeyPatch, database: object) -> Callable[..., TestClient]:  # noqa: ARG001
    """Make clients at different addresses of one application that allows three requests a minute."""
    monkeypatch.setattr(get_settings(), "rate_limit_per_minute", 3)
    app = create_app()
    return lambda address: TestClient(app, client=(address, 50_000))


Clients = Callable[..., TestClient]


def test_responses_have_the_remaining_requests_and_seconds(three_a_minute: Clients) -> None:
    client = three_a_minute("192.0.2.1")
    asked_at = time.time()

    answers = [client.get("/") for _ in range(3)]
    seconds = math.ceil(time.time() - asked_at)  # On a slow machine, the window goes on between the requests.

    states = [re.fullmatch(r'"default";r=(\d+);t=(\d+)', answer.headers["RateLimit"]) for answer in answers]
    assert [state and state[1] for state in states] == ["2", "1", "0"]
    assert all(state and 60 - seconds <= int(state[2]) <= 60 for state in states)
    assert {answer.headers["RateLimit-Policy"] for answer in answers} == {'"default";q=3;w=60'}
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["2", "1", "0"]
    assert {answer.headers["X-RateLimit-Limit"] for answer in answers} == {"3"}
    assert all(59 <= int(answer.headers["X-RateLimit-Reset"]) - asked_at <= 62 + seconds for answer in answers)


def test_past_the_limit_everything_is_refused_until_the_minute_is_over(
    three_a_minute: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    window_seconds = 3
    monkeypatch.setattr(rate_limit, "WINDOW_SECONDS", window_seconds)
    three_a_minute("192.0.2.2").get("/")  # The first request builds the application, which has taken 2 s under load.
    client = three_a_minute("192.0.2.1")
    for path in ("/", "/users/1", "/no-such-route"):
        assert client.get(path).status_code != 429

    for method, path in (("GET", "/"), ("POST", "/login"), ("GET", "/v1/users/1"), ("GET", "/no-such-route")):
        refused = client.request(method, path, headers={"Origin": "http://localhost:3000"})
        assert_refused(refused, 429, "rate_limited", "Too many requests; wait before the next one")
        assert 1 <= int(refused.headers["Retry-After"]) <= window_seconds
        assert refused.headers["RateLimit"] == f'"default";r=0;t={refused.headers["Retry-After"]}'
        assert refused.headers["Cache-Control"] == "no-store"
        assert refused.headers["X-Content-Type-Options"] == "nosniff"
        assert refused.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
        exposed = refused.headers["Access-Control-Expose-Headers"].split(", ")
        assert {"RateLimit", "RateLimit-Policy", "X-RateLimit-Remaining", "Retry-After"} <= set(exposed)

    deadline = time.monotonic() + 10
    while client.get("/").status_code == 429:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_files_of_the_web_client_do_not_count(three_a_minute: Clients) -> None:
    client = three_a_minute("192.0.2.1")
    page = client.get("/web/")
    files = re.findall(r'(?:href|src)="(/web/assets/[^"]+)"', page.text)
    assert len(files) > 20

    answers = [client.get(file) for file in files]

    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["X-RateLimit-Remaining"] for answer in answers} == {"2"}
    assert [client.get("/").status_code for _ in range(3)] == [200, 200, 429]
    assert client.get(files[0]).status_code == 200
    assert client.get("/web/").status_code == 429


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/livez/", "/v1/livez"])
def test_probes_are_never_limited(three_a_minute: Clients, path: str) -> None:
    client = three_a_minute("192.0.2.1")

    answers = [client.get(path) for _ in range(5)]

    assert {answer.status_code for answer in answers} == {200}
    assert not [name for answer in answers for name in answer.headers if "ratelimit" in name]


def test_every_address_is_a_caller_and_an_ipv6_network_is_one(three_a_minute: Clients) -> None:
    def statuses(*addresses: str) -> list[int]:
        return [three_a_minute(address).get("/").status_code for address in addresses]

    assert statuses("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4") == [200] * 4
    assert statuses("2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4") == [200] * 3 + [429]
    assert statuses("2001:db8:0:1::1") == [200]


def test_a_user_is_one_caller_at_all_addresses_and_apart_from_them(
    three_a_minute: Clients, make_person: Callable[..., Person]
) -> None:
    ada, bob = make_person(), make_person()

    statuses = [three_a_minute(f"192.0.2.{n}").get("/", headers=ada.headers).status_code for n in range(5)]

    assert statuses == [200] * 3 + [429] * 2
    here = three_a_minute("192.0.2.0")
    assert here.get("/", headers=bob.headers).status_code == 200
    assert [here.get("/").status_code for _ in range(4)] == [200] * 3 + [429]


def test_cookies_and_api_keys_count_for_their_user_at_all_addresses(
    three_a_minute: Clients, client: TestClient, make_person: Callable[..., Person]
) -> None:
    ada, bob = make_person(), make_person()
    key = client.post("/api-keys", json={"name": "a script", "scopes": ["read"]}, headers=ada.headers).json()["key"]
    cookie = access_tokens.issue(bob.id, bob.session_id, timedelta(days=1), "cookie")
    by_key = [{"Authorization": f"Bearer {key}"}, {"X-API-Key": key}] * 3
    by_cookie = [{"Cookie": f"session={cookie}"}] * 5

    def statuses(requests: list[dict[str, str]]) -> list[int]:
        return [
            three_a_minute(f"192.0.2.{n}").get("/posts", headers=headers).status_code
            for n, headers in enumerate(requests)
        ]

    # A process has the key's owner only after a lookup, so the first request counts for its address.
    assert statuses(by_key) == [200] * 4 + [429] * 2
    assert statuses([{"Authorization": ada.headers["Authorization"]}]) == [429]
    assert statuses(by_cookie) == [200] * 3 + [429] * 2
    assert statuses([bob.headers]) == [429]


def test_an_unverified_token_opens_no_new_window(three_a_minute: Clients, person: Person) -> None:
    client = three_a_minute("192.0.2.1")
    forged = [
        f"Bearer {signed(claims_of(person), '0' * 64)}",
        f"Bearer {signed(claims_of(person, exp=int(time.time()) - 1))}",
        f"Basic {person.token}",
        "Bearer garbage",
        "Bearer",
        "",
    ]

    statuses = [client.get("/", headers={"Authorization": value}).status_code for value in forged]

    assert statuses == [200] * 3 + [429] * 3


def test_callers_that_began_first_are_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "MAX_CALLERS", 3)
    limit = RateLimit(PlainTextResponse("hello"), per_minute=1, user_of=lambda _: None)

    def status(address: str) -> int:
        return TestClient(RequestContext(limit), client=(address, 50_000)).get("/").status_code

    assert [status(f"192.0.2.{n}") for n in (1, 2, 3, 3, 4)] == [200, 200, 200, 429, 200]
    assert len(limit.windows) == 3
    assert status("192.0.2.3") == 429
    assert status("192.0.2.1") == 200


def test_servers_with_limits_disabled_limit_nothing(
    start_server: Callable[..., Server], person: Person
) -> None:  # fmt: skip
    server = start_server(RATE_LIMITS_ENABLED="false", RATE_LIMIT_PER_MINUTE="1")

    answers = [httpx2.get(f"{server.url}/posts", headers=person.headers) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200] * 3
    assert "RateLimit" not in answers[0].headers


def test_it_costs_less_than_twenty_microseconds_a_request(person: Person) -> None:
    async def answer(_scope: Scope, _receive: object, send: Callable[[Message], object]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[misc]

    async def ignore(_: Message) -> None:
        pass

    async def seconds(app: ASGIApp, scope: Scope, count: int) -> float:
        started_at = time.thread_time()  # On a busy machine, too.
        for _ in range(count):
            await app(scope, ignore, ignore)  # type: ignore[arg-type]
        return (time.thread_time() - started_at) / count

    scope = {"type": "http", "path": "/posts", "root_path": "", "method": "GET",
             "headers": [(b"host", b"x"), (b"authorization", f"Bearer {person.token}".encode())]}  # fmt: skip
    limited = RateLimit(answer, per_minute=10**7, user_of=authentication.user_of)
    costs = [asyncio.run(seconds(limited, scope, 5_000)) - asyncio.run(seconds(answer, scope, 5_000)) for _ in range(5)]

    print(f"the limit costs {min(costs) * 1e6:.1f} µs a request")  # noqa: T201
    assert min(costs) < 20e-6


def test_a_caller_with_a_hundred_concurrent_requests_is_refused_until_one_is_done() -> None:
    async def run() -> None:
        may_end = asyncio.Event()

        async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
            await may_end.wait()
            await PlainTextResponse("done")(_scope, _receive, send)

        limit = RateLimit(app, per_minute=1_000, user_of=lambda scope: scope["user"])

        async def ask(user: int) -> tuple[int, dict[bytes, bytes]]:
            messages: list[Message] = []

            async def send(message: Message) -> None:
                messages.append(message)

            async def receive() -> Message:
                return {"type": "http.request"}

            await limit({"type": "http", "path": "/posts", "headers": [], "user": user, "method": "GET"}, receive, send)
            return messages[0]["status"], dict(messages[0]["headers"])

        waiting = [asyncio.create_task(ask(1)) for _ in range(rate_limit.MAX_IN_HAND)]
        other = asyncio.create_task(ask(2))
        await asyncio.sleep(0)
        status, headers = await ask(1)
        assert (status, headers[b"retry-after"], headers[b"x-ratelimit-remaining"]) == (429, b"1", b"900")

        may_end.set()
        assert {status for status, _ in await asyncio.gather(*waiting, other)} == {200}
        assert (await ask(1))[0] == 200
        assert limit.in_hand == {}

    asyncio.run(run())


class _Turns:
    """A limited application whose requests run until they may answer, and answer until they may end."""

    def __init__(self) -> None:
        self.began: list[tuple[int, int]] = []
        self.may_answer = asyncio.Event()
        self.may_end = asyncio.Event()
        self.limit = RateLimit(self._app, per_minute=1_000, user_of=lambda scope: scope["user"])

    async def _app(self, scope: Scope, _: object, send: Send) -> None:
        self.began.append((scope["user"], scope["number"]))
        await self.may_answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await self.may_end.wait()
        await send({"type": "http.response.body", "body": b""})

    def ask(self, user: int | None, number: int = 0, method: str = "GET") -> asyncio.Task[int]:
        async def ask() -> int:
            messages: list[Message] = []

            async def send(message: Message) -> None:
                messages.append(message)

            scope: Scope = {
                "type": "http",
                "path": "/posts",
                "headers": [],
                "user": user,
                "number": number,
                "method": method,
            }
            await self.limit(scope, _no_body, send)
            return int(messages[0]["status"])

        return asyncio.create_task(ask())


async def _no_body() -> Message:
    return {"type": "http.request"}


async def _settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_four_reads_and_two_writes_of_an_account_run_at_the_same_time_and_others_do_not_wait_for_them() -> None:
    async def run() -> None:
        turns = _Turns()
        asked = [turns.ask(1, number) for number in range(8)]
        asked += [turns.ask(1, number, "POST") for number in range(10, 14)]
        asked += [turns.ask(2), *(turns.ask(None) for _ in range(6))]
        await _settle()
        assert turns.began == [(1, 0), (1, 1), (1, 2), (1, 3), (1, 10), (1, 11), (2, 0), *[(None, 0)] * 6]

        turns.may_answer.set()  # A slot is free when the answer begins: a client that reads slowly keeps none.
        await _settle()
        assert turns.began[-6:] == [(1, 4), (1, 5), (1, 6), (1, 7), (1, 12), (1, 13)]

        turns.may_end.set()
        assert await asyncio.gather(*asked) == [200] * 19
        assert turns.limit.in_hand == {}

    asyncio.run(asyncio.wait_for(run(), 10))


def test_a_request_cancelled_before_or_during_its_slot_loses_no_slot() -> None:
    async def run() -> None:
        turns = _Turns()
        asked = [turns.ask(1, number) for number in range(10)]
        await _settle()
        for number in (0, 1, 2, 3, 4, 5):
            asked[number].cancel()
        await _settle()
        assert turns.began[4:] == [(1, 6), (1, 7), (1, 8), (1, 9)]

        turns.may_answer.set()
        turns.may_end.set()
        assert await asyncio.gather(*asked[6:]) == [200] * 4

    asyncio.run(asyncio.wait_for(run(), 10))


def test_a_request_that_waits_too_long_for_a_slot_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "MAX_WAIT_SECONDS", 0.01)

    async def run() -> None:
        turns = _Turns()
        asked = [turns.ask(1) for _ in range(5)]
        assert await asked[4] == 503

        turns.may_answer.set()
        turns.may_end.set()
        assert await asyncio.gather(*asked[:4]) == [200] * 4

    asyncio.run(asyncio.wait_for(run(), 10))


def test_a_credential_that_was_revoked_uses_up_nothing_of_its_owners_limit(
    three_a_minute: Clients, make_person: Callable[..., Person], connection: Connection
) -> None:
    def statuses_after(method: str, path: str) -> list[int]:
        ada = make_person()
        other_session_id = connection.scalar(
            text("INSERT INTO sessions (user_id, expires_at) VALUES (:id, now() + interval '1 day') RETURNING id"),
            {"id": ada.id},
        )
        assert isinstance(other_session_id, int)
        connection.execute(text("DELETE FROM sessions WHERE id = :id"), {"id": ada.session_id})
        for n in range(5):
            client = three_a_minute(f"192.0.2.{n}")
            client.request(method, path, headers=ada.headers)
        good = {"Authorization": f"Bearer {access_tokens.issue(ada.id, other_session_id, timedelta(minutes=30))}"}
        return [three_a_minute("192.0.2.9").get("/", headers=good).status_code for _ in range(3)]

    # The first request counts for its owner, because only the database has the end of the session.
    routes = [("/posts", "GET"), ("/users/me/votes", "GET"), ("/users/me", "GET"), ("/users/1", "GET")]
    routes += [("/posts/1/vote", "PUT"), ("/posts/1", "DELETE"), ("/logout", "POST")]
    for path, method in routes:
        assert statuses_after(method, path) == [200, 200, 429], (method, path)


def test_a_bad_refresh_token_does_not_take_a_caller_out_of_the_limit_of_its_account(
    three_a_minute: Clients, person: Person
) -> None:
    def refresh(n: int) -> int:
        body = {"refresh_token": "refresh_garbage"}
        return three_a_minute(f"192.0.2.{n}").post("/token/refresh", json=body, headers=person.headers).status_code

    assert [refresh(n) for n in range(5)] == [401] * 3 + [429] * 2


def test_a_request_with_a_late_body_delays_no_other_and_waits_for_a_slot_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rate_limit, "MAX_BODY_SECONDS", 0.01)

    async def run() -> None:
        bodies: asyncio.Queue[Message] = asyncio.Queue()
        may_answer = asyncio.Event()
        began: list[str] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["user_agent"] == "slow":
                while (await receive())["more_body"]:
                    pass
            began.append(scope["user_agent"])
            await may_answer.wait()
            await PlainTextResponse("done")(scope, receive, send)

        limit = RateLimit(app, per_minute=1_000, user_of=lambda _: 1)

        async def ignore(_: Message) -> None:
            pass

        def ask(name: str) -> asyncio.Task[None]:
            scope = {"type": "http", "path": "/posts", "headers": [], "method": "POST", "user_agent": name}
            return asyncio.create_task(limit(scope, bodies.get, ignore))

        asked = [ask("slow"), ask("slow")]
        await asyncio.sleep(0)
        bodies.put_nowait({"type": "http.request", "body": b"{", "more_body": True})
        await asyncio.sleep(0.1)
        asked += [ask("quick"), ask("quick")]
        await _settle()
        assert began == ["quick", "quick"]

        for _ in range(2):
            bodies.put_nowait({"type": "http.request", "body": b"}", "more_body": False})
        await _settle()
        assert began == ["quick", "quick"]  # The two that run have both slots.

        may_answer.set()
        await asyncio.gather(*asked)
        assert began == ["quick", "quick", "slow", "slow"]
        assert limit.in_hand == {}

    asyncio.run(asyncio.wait_for(run(), 10))


@pytest.mark.parametrize(("method", "path"), [("POST", "/posts"), ("POST", "/vote"), ("PATCH", "/users/me")])
def test_a_late_body_that_gets_no_slot_again_is_503(
    monkeypatch: pytest.MonkeyPatch, person: Person, method: str, path: str
) -> None:
    monkeypatch.setattr(rate_limit, "MAX_BODY_SECONDS", 0)
    monkeypatch.setattr(rate_limit, "MAX_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(rate_limit, "MAX_WRITES_OF_ACCOUNT", 1)
    app = create_app()

    async def run() -> list[Message]:
        others: list[asyncio.Task[None]] = []
        answer: list[Message] = []
        scope = {
            "type": "http", "http_version": "1.1", "method": method, "path": path, "raw_path": path.encode(),
            "query_string": b"", "scheme": "http", "client": ("192.0.2.1", 5),
            "headers": [(b"host", b"x"), (b"content-type", b"application/json"),
                        (b"authorization", f"Bearer {person.token}".encode())],
        }  # fmt: skip

        async def late() -> Message:
            await asyncio.sleep(0.01)
            # Another request takes the slot meanwhile, and keeps it.
            turns = next(iter(_rate_limit(app).in_hand.values())).writes
            others.append(asyncio.create_task(_hold(turns)))
            await asyncio.sleep(0.01)
            return {"type": "http.request", "body": b"{}", "more_body": False}

        async def send(message: Message) -> None:
            answer.append(message)

        await app(scope, late, send)
        for other in others:
            other.cancel()
        return answer

    head, body = asyncio.run(asyncio.wait_for(run(), 10))

    assert head["status"] == 503
    assert dict(head["headers"])[b"retry-after"] == b"1"
    assert json.loads(body["body"])["code"] == "overloaded"


async def _hold(turns: asyncio.Semaphore) -> None:
    async with turns:
        await asyncio.sleep(5)


def _rate_limit(app: Application) -> RateLimit:
    layer = app.outermost
    while not isinstance(layer, RateLimit):
        layer = layer.app  # type: ignore[attr-defined]
    return layer

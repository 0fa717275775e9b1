"""One account that has many passwords verified at once: how long sign-ins of others wait."""

import asyncio
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from sqlalchemy import Connection, text

from app.config import get_settings
from app.errors import RateLimited
from app.observability import request_context
from app.security import passwords
from tests.fixtures import PASSWORD, Person, Server
from tests.races.conftest import statuses

# The default: in other tests hashes are cheaper.
ROUNDS = 12
ATTACKS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "second factor": ("POST", "/users/me/totp", {"json": {"current_password": PASSWORD}}),
    "password": ("PATCH", "/users/me", {"json": {"password": PASSWORD, "current_password": PASSWORD}}),
    "sign-in": ("POST", "/login", {}),
}


def test_account_with_a_hundred_calls_holds_eight_places_and_another_caller_is_next() -> None:
    """Tested on the queue itself, with a call that blocks a hashing thread until the test releases it."""
    order: list[str] = []
    let_go = threading.Event()

    def hash_for(caller: str) -> None:
        let_go.wait(10)
        order.append(caller)

    async def scenario() -> list[object]:
        request_context.client_address.set("192.0.2.1")  # Of both: it is the account that is held to its share.
        hostile = [asyncio.create_task(passwords.in_hashing_thread(1, None, hash_for, "hostile")) for _ in range(100)]
        await asyncio.sleep(0)
        honest = [asyncio.create_task(passwords.in_hashing_thread(None, None, hash_for, "honest")) for _ in range(3)]
        await asyncio.sleep(0)
        let_go.set()
        return await asyncio.gather(*hostile, *honest, return_exceptions=True)

    outcomes = asyncio.run(asyncio.wait_for(scenario(), 10))

    running = get_settings().hashing_thread_count
    most = running + passwords.MAX_WAITING_HASHES_OF_ACCOUNT
    assert [type(outcome) for outcome in outcomes] == [
        *[type(None)] * most, *[RateLimited] * (100 - most), *[type(None)] * 3,
    ]  # fmt: skip
    assert order[:running] == ["hostile"] * running
    assert "honest" in order[running : running + 2]


async def at_once(url: str, attack: str, hostile: Person, count: int) -> list[httpx2.Response]:
    method, path, body = ATTACKS[attack]
    if attack == "sign-in":
        body = {"data": {"username": hostile.email, "password": PASSWORD}}
    headers = {**hostile.headers, "X-Forwarded-For": "198.51.100.66"}
    async with httpx2.AsyncClient(base_url=url, limits=httpx2.Limits(max_connections=None), timeout=600) as client:
        return await asyncio.gather(*(client.request(method, path, headers=headers, **body) for _ in range(count)))


def sign_in(client: httpx2.Client, person: Person, address: str = "192.0.2.1") -> float:
    """Sign in from this address, and return the seconds that it took."""
    form = {"username": person.email, "password": PASSWORD}
    started_at = time.perf_counter()
    response = client.post("/login", data=form, headers={"X-Forwarded-For": address})
    assert response.status_code == 200, response.text
    return time.perf_counter() - started_at


@pytest.fixture
def server(start_server: Callable[..., Server]) -> Server:
    """Two workers with the default limits, behind a proxy that sends client addresses."""
    return start_server(WORKERS="2", PASSWORD_HASH_ROUNDS=str(ROUNDS), TRUSTED_PROXIES="127.0.0.1")


def hash_at_full_cost(connection: Connection) -> None:
    full = passwords._context().handler("bcrypt_sha256").using(rounds=ROUNDS).hash(PASSWORD)
    connection.execute(text("UPDATE users SET password_hash = :hash"), {"hash": full})


@pytest.mark.slow
@pytest.mark.parametrize("count", [80, 400])
@pytest.mark.parametrize("attack", ATTACKS)
def test_account_that_has_right_passwords_verified_delays_other_sign_ins_to_at_most_three_times(
    server: Server, connection: Connection, make_person: Callable[..., Person], attack: str, count: int
) -> None:
    ratios = []
    with httpx2.Client(base_url=server.url, timeout=600) as client:
        for _ in range(3):  # The machine may have other work to do in one of them.
            hostile, honest = make_person(), make_person()
            hash_at_full_cost(connection)
            sign_in(client, honest)
            idle = [sign_in(client, honest) for _ in range(8)]
            with ThreadPoolExecutor(max_workers=1) as thread:
                attacking = thread.submit(asyncio.run, at_once(server.url, attack, hostile, count))
                time.sleep(0.5)
                busy = [sign_in(client, honest)]
                while not attacking.done() and len(busy) < 8:
                    busy.append(sign_in(client, honest))
                answered = statuses(attacking.result())
            assert set(answered) <= {200, 403, 429, 503}
            # The mean: in a queue that is not fair the first sign-in waits for all that came before it.
            ratios.append(statistics.mean(busy) / statistics.mean(idle))
            print(  # noqa: T201
                f"{count} x {attack} {answered}: others' sign-in idle {statistics.mean(idle):.2f} s, "
                f"meanwhile {statistics.mean(busy):.2f} s (max {max(busy):.2f} s, {len(busy)}): {ratios[-1]:.1f} x"
            )
            if ratios[-1] <= 3:
                break
    assert min(ratios) <= 3


@pytest.mark.slow
def test_class_of_a_hundred_behind_one_address_signs_in_at_once(
    server: Server, connection: Connection, make_person: Callable[..., Person]
) -> None:
    people = [make_person() for _ in range(100)]
    hash_at_full_cost(connection)
    refused: list[int] = []

    async def sign_in_as_told(client: httpx2.AsyncClient, person: Person) -> httpx2.Response:
        """If a hash takes more than 0.5 s, the last users wait too long, and retry."""
        for _ in range(20):
            answer = await client.post("/login", data={"username": person.email, "password": PASSWORD})
            if answer.status_code != 503:
                break
            refused.append(answer.status_code)
            await asyncio.sleep(int(answer.headers["Retry-After"]))
        return answer

    async def sign_all_in() -> list[httpx2.Response]:
        headers = {"X-Forwarded-For": "192.0.2.1"}
        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(base_url=server.url, headers=headers, limits=limits, timeout=600) as client:
            return await asyncio.gather(*(sign_in_as_told(client, person) for person in people))

    started_at = time.perf_counter()
    answers = asyncio.run(sign_all_in())
    seconds = time.perf_counter() - started_at
    print(f"100 sign-ins at once from one address: {seconds:.1f} s, {len(refused)} times 503")  # noqa: T201

    assert statuses(answers) == {200: 100}

"""Our own corpus on every operation, parameter and field: never a 5xx, always a declared answer."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import unquote

import psycopg2
import pytest
from sqlalchemy import Engine

from app.main import app
from tests.figures import Figure
from tests.fixtures import Person
from tests.hostile.answers import assert_declared, assert_one_shape
from tests.hostile.caller import CALLERS, PUT_BACK, headers_of, leave_room, role_of
from tests.hostile.corpus import PLAIN, Case, cases

# A prime, so that the sample meets every part of the corpus.
EVERY = 31


def test_no_session_gets_an_id_that_another_had(database: Engine, make_person: Callable[..., Person]) -> None:
    leave_room(database)
    earlier = make_person().session_id
    leave_room(database)

    assert make_person().session_id > earlier > 1000


async def answer(case: Case, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
    """Call the application; return status, headers and body.

    The application is called as a server calls it, with the bytes as they are.
    """
    path, _, query = case.target.partition(b"?")
    sent = {b"host": b"testserver"} | {name.lower().encode(): value.encode() for name, value in headers.items()}
    sent |= case.headers
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": case.method, "scheme": "http",
        "path": unquote(path.decode("ascii")), "raw_path": path, "query_string": query, "root_path": "",
        "headers": [*sent.items(), (b"content-length", str(len(case.content)).encode())],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "app": app,
    }  # fmt: skip
    messages: Iterator[dict[str, object]] = iter([{"type": "http.request", "body": case.content}])
    answered: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return next(messages, {"type": "http.disconnect"})

    async def send(message: dict[str, object]) -> None:
        answered.append(message)

    await app(scope, receive, send)  # type: ignore[arg-type]
    start, *rest = answered
    found = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}  # type: ignore[attr-defined]
    return int(str(start["status"])), found, b"".join(bytes(message.get("body", b"")) for message in rest)  # type: ignore[call-overload]


def ask(database: Engine, caller: str, asked: Iterable[Case]) -> int:
    """Send the cases one after the other and look at every answer; returns how many there were."""
    leave_room(database)
    headers = headers_of(caller)
    connection = psycopg2.connect(database.url.set(drivername="postgresql").render_as_string(hide_password=False))
    connection.autocommit = True

    async def run() -> int:
        count = 0
        for case in asked:
            with connection.cursor() as cursor:
                cursor.execute(PUT_BACK, {"role": role_of(caller)})
            try:
                status, found, body = await answer(case, headers)
                assert_one_shape(case.method, status, found, body)
                path = unquote(case.target.partition(b"?")[0].decode("ascii"))
                assert_declared(case.method, path, status, found, body)
            except Exception as error:
                error.add_note(str(case))
                raise
            count += 1
        return count

    try:
        return asyncio.run(run())
    finally:
        connection.close()


@pytest.mark.parametrize("caller", CALLERS)
def test_hostile_input_is_answered_as_declared_in_every_part_of_the_corpus(database: Engine, caller: str) -> None:
    first = CALLERS.index(caller)

    asked = ask(
        database, caller, (case for n, case in enumerate(cases()) if n % EVERY == first or case.aimed_at in PLAIN)
    )

    assert asked > 50


@pytest.mark.slow
@pytest.mark.parametrize("caller", CALLERS)
def test_hostile_input_is_answered_as_declared(database: Engine, caller: str, figure: Figure) -> None:
    asked = ask(database, caller, cases())

    figure(f"R1: our own corpus as {caller}: {asked:,} cases, none answered 5xx or other than declared")
    assert asked > 5_000

"""Both applications on databases with the same rows, their answers, and a comparison of two answers."""

import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bcrypt
import httpx2
from jose import jwt
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.pool import NullPool
from starlette.testclient import TestClient

from tests.conftest import _own_database, administration, test_server
from tests.fixtures import _server
from tests.tutorial.reference import ALGORITHM, create_reference
from tests.tutorial.requests import (
    ADA,
    CAROL,
    COMMENTED_POST,
    DRAFTS,
    FILLERS,
    NOT_SIGNED,
    PASSWORD,
    PEOPLE,
    POSTS,
    REQUESTS,
    TOKENS,
    Request,
)

FIRST_NEW_ID = 1000  # Rows with such ids were created by a request.
SEEDED = datetime(2024, 3, 1, tzinfo=UTC)


@dataclass
class Answer:
    """What is compared of an answer."""

    status: int
    body: object
    headers: dict[str, str]


@dataclass
class Comparison:
    """What differs between two answers, in words, and the fields that only ours has."""

    differences: list[str] = field(default_factory=list)
    additional_fields: set[str] = field(default_factory=set)


def answers_of_the_reference() -> dict[str, Answer]:
    """Send all requests to the application of the tutorial's contract, by name of the request."""
    with _empty_database() as engine, _client_of_the_reference(engine) as client:
        with engine.begin() as connection:
            _fill(connection, "password", {})
        return _answers(client)


def answers_of_ours(folder: Path, **environment: str) -> dict[str, Answer]:
    """Send all requests to a server process of ours with these settings, by name of the request."""
    with _own_database() as url:
        engine = create_engine(url, poolclass=NullPool)
        with engine.begin() as connection:
            _fill(connection, "password_hash", {"email_canonical": "email"})
        where = {"DATABASE_URL": url.render_as_string(hide_password=False)}
        with _server(folder, where | environment) as server, httpx2.Client(base_url=server.url) as client:
            return _answers(client)


@contextmanager
def _empty_database() -> Iterator[Engine]:
    with test_server() as server, administration(server) as connection:
        name = f"tutorial_{os.getpid()}_{secrets.token_hex(3)}"
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE template0"))
        engine = create_engine(server.set(database=name))
        try:
            yield engine
        finally:
            engine.dispose()
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


@contextmanager
def _client_of_the_reference(engine: Engine) -> Iterator[TestClient]:
    app = create_reference(engine, os.environ["SECRET_KEY"])
    with TestClient(app, raise_server_exceptions=False, follow_redirects=False) as client:
        yield client


def _fill(connection: Connection, password_column: str, copied: Mapping[str, str]) -> None:
    """Insert the same people, posts and votes, and an additional table; later rows get ids from 1000."""
    copies = "".join(f", {column}" for column in copied)
    values = "".join(f", :{source}" for source in copied.values())
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    connection.execute(
        text(f"""
            INSERT INTO users (id, email, {password_column}, created_at{copies})
            VALUES (:id, :email, :hashed, :created_at{values})
        """),
        [
            {"id": id_, "email": f"{name}@example.com", "hashed": hashed, "created_at": SEEDED}
            for name, id_ in PEOPLE.items()
        ],
    )
    fillers = [(number, CAROL, f"filler {number}", "filling", True, False) for number in FILLERS]
    for number, owner, title, content, published, is_voted in [*POSTS, *fillers, *DRAFTS]:
        connection.execute(
            text("""
                INSERT INTO posts (id, owner_id, title, content, published, created_at)
                VALUES (:id, :owner, :title, :content, :published, :created_at)
            """),
            {
                "id": number,
                "owner": owner,
                "title": title,
                "content": content,
                "published": published,
                "created_at": SEEDED + timedelta(minutes=number),
            },
        )
        if is_voted:
            connection.execute(
                text("INSERT INTO votes (user_id, post_id) VALUES (:user, :post)"), {"user": ADA, "post": number}
            )
    connection.execute(text("CREATE TABLE remarks (id serial PRIMARY KEY, post_id bigint REFERENCES posts (id))"))
    connection.execute(text("INSERT INTO remarks (post_id) VALUES (:post)"), {"post": COMMENTED_POST})
    for table in ("users", "posts"):
        connection.execute(text(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), {FIRST_NEW_ID})"))


def _answers(client: httpx2.Client) -> dict[str, Answer]:
    tokens = _tokens() | {name: _sign_in(client, name) for name in PEOPLE}
    return {request.name: _answer(client, request, tokens) for request in REQUESTS}


def _tokens() -> dict[str, str]:
    """Mint the tokens that a server with the same SECRET_KEY could have signed."""
    tokens = dict(NOT_SIGNED)
    for name, (claims, lifetime_seconds) in TOKENS.items():
        end = {} if lifetime_seconds is None else {"exp": int(time.time()) + lifetime_seconds}
        tokens[name] = jwt.encode(claims | end, os.environ["SECRET_KEY"], ALGORITHM)
    return tokens


def _sign_in(client: httpx2.Client, name: str) -> str:
    response = client.post("/login", data={"username": f"{name}@example.com", "password": PASSWORD})
    assert response.status_code == 200, response.text
    return str(response.json()["access_token"])


def _answer(client: httpx2.Client, request: Request, tokens: Mapping[str, str]) -> Answer:
    headers = {name: value.format_map(tokens) for name, value in request.headers.items()}
    if request.token is not None:
        headers["Authorization"] = f"Bearer {tokens[request.token]}"
    response = client.request(
        request.method,
        request.path,
        headers=headers,
        json=request.body,
        data=request.form,
        content=request.content,
    )
    return Answer(response.status_code, _body(response), _headers(response, request))


def _headers(response: httpx2.Response, request: Request) -> dict[str, str]:
    """Return the headers that a client of the tutorial may read."""
    headers: dict[str, str] = {}
    if response.content:
        headers["Content-Type"] = response.headers["Content-Type"].partition(";")[0]
    if "WWW-Authenticate" in response.headers:
        headers["WWW-Authenticate"] = response.headers["WWW-Authenticate"]
    if response.is_redirect:
        headers["Location"] = httpx2.URL(response.headers["Location"]).path
    if origin := request.headers.get("Origin"):
        allowed = response.headers.get("Access-Control-Allow-Origin")
        headers["is allowed to the origin"] = str(allowed in {"*", origin})
    return headers


def _body(response: httpx2.Response) -> object:
    if not response.content or response.headers["Content-Type"] != "application/json":
        return None  # Pages of documentation, and the plain text of a 500.
    body = response.json()
    if isinstance(body, dict) and "paths" in body:
        operations = (f"{method} {path.rstrip('/')}" for path, item in body["paths"].items() for method in item)
        return {"operations": sorted(operations)}
    return _without_chance(body)


def _without_chance(value: Any, key: str = "") -> object:
    """Replace what differs from run to run.

    Of the errors of a 422 only the places are kept.
    """
    if isinstance(value, dict):
        kept = {"loc": value["loc"]} if "loc" in value else value
        return {name: _without_chance(item, name) for name, item in kept.items()}
    if isinstance(value, list):
        return [_without_chance(item, key) for item in value]
    if key in {"id", "owner_id"} and isinstance(value, int) and value > FIRST_NEW_ID:
        return "NEW"
    if key == "username" and int(value.removeprefix("user")) > FIRST_NEW_ID:
        return "NEW"
    if key in {"access_token", "refresh_token", "request_id"}:
        return "RANDOM"
    return _moment(value) if key.endswith("_at") and isinstance(value, str) else value


def _moment(written: str) -> str:
    """Return the time in UTC where it was there before the requests."""
    moment = datetime.fromisoformat(written).astimezone(UTC)
    return moment.isoformat() if moment.year == SEEDED.year else "NOW"


def compare(ours: Answer, theirs: Answer) -> Comparison:
    """Compare our answer with the tutorial's.

    Fields that only ours has are noted, and are no difference.
    """
    found = Comparison()
    if ours.status != theirs.status:
        found.differences.append(f"status: {ours.status}, not {theirs.status}")
        return found  # Bodies of different outcomes need not be compared.
    _compare_values(ours.body, theirs.body, "body", found)
    for name in sorted(ours.headers.keys() | theirs.headers.keys()):
        if ours.headers.get(name) != theirs.headers.get(name):
            found.differences.append(f"{name}: {ours.headers.get(name)}, not {theirs.headers.get(name)}")
    return found


def _compare_values(ours: object, theirs: object, place: str, found: Comparison) -> None:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        found.additional_fields |= ours.keys() - theirs.keys()
        for name, value in theirs.items():
            if name in ours:
                _compare_values(ours[name], value, f"{place}.{name}", found)
            else:
                found.differences.append(f"{place} has no {name}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            _compare_values(one, other, f"{place}[{number}]", found)
    elif ours != theirs:
        found.differences.append(f"{place}: {ours!r:.200}, not {theirs!r:.200}")

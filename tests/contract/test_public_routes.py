"""Every route requires a valid credential, except for those listed below."""

import base64
import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from jose import jwt
from starlette.testclient import TestClient

from app.config import get_settings
from app.main import app
from app.security import access_tokens
from app.security.refresh_tokens import RefreshToken
from app.services import api_key
from tests.contract.answers import assert_unauthenticated
from tests.contract.conftest import Rows
from tests.fixtures import Person

PUBLIC = {
    ("GET", "/"),
    ("GET", "/livez"),
    ("GET", "/readyz"),
    ("GET", "/users/{id}"),
    ("GET", "/users/by-username/{username}"),
    ("GET", "/sign-up-challenge"),
    ("POST", "/users"),
    ("POST", "/login"),
    ("POST", "/token/refresh"),
    ("POST", "/password-reset"),
    ("POST", "/password-reset/confirm"),
    ("POST", "/email-verification/confirm"),
}
OPERATIONS = [(method.upper(), path) for path, item in app.api.openapi()["paths"].items() for method in item]
PROTECTED = [operation for operation in OPERATIONS if operation not in PUBLIC]


def claims_of(person: Person, **changes: Any) -> dict[str, Any]:
    """Return the claims of a valid token, with changes; a claim changed to None is left out."""
    now = int(time.time())
    claims = {
        "user_id": person.id, "sub": str(person.id), "sid": person.session_id, "jti": "x", "iat": now, "exp": now + 600,
    } | changes  # fmt: skip
    return {name: value for name, value in claims.items() if value is not None}


def signed(
    claims: dict[str, Any], secret: str | None = None, algorithm: str = "HS256", header: dict[str, Any] | None = None
) -> str:
    return str(jwt.encode(claims, secret or get_settings().signing_secret, algorithm=algorithm, headers=header))


def part(content: object) -> str:
    """One of a token's three parts."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unsigned(person: Person, algorithm: str) -> str:
    return f"{part({'alg': algorithm, 'typ': 'JWT'})}.{part(claims_of(person))}."


def bit_flipped(token: str, place: int) -> str:
    """Return the token with one bit of one of its parts flipped.

    The bit is flipped in the bytes, so that it is not lost in base64's padding.
    """
    parts = token.split(".")
    raw = bytearray(base64.urlsafe_b64decode(parts[place] + "=" * (-len(parts[place]) % 4)))
    raw[len(raw) // 2] ^= 1
    parts[place] = part(bytes(raw))
    return ".".join(parts)


def without(claim: str) -> Callable[[Person], str]:
    return lambda person: signed(claims_of(person, **{claim: None}))


def with_claim(**changes: Any) -> Callable[[Person], str]:
    return lambda person: signed(claims_of(person, **changes))


def with_header(**header: Any) -> Callable[[Person], str]:
    return lambda person: signed(claims_of(person), header=header)


# In the place of a name.
STRANGE: list[Any] = [
    "",
    "0" * 12,
    "../../dev/null",
    "/dev/null",
    "' OR 1=1 --",
    "\0",
    "é",
    None,
    0,
    True,
    [],
    {},
    [""],
]
FORGERIES: dict[str, Callable[[Person], str]] = {
    "no token": lambda _: "",
    "garbage": lambda _: "garbage",
    "three dots": lambda _: "...",
    "not base64": lambda _: "é.ü.ß",
    "another secret": lambda person: signed(claims_of(person), "0" * 64),
    "an empty secret": lambda person: unsigned(person, "HS256"),
    "alg none": lambda person: unsigned(person, "none"),
    "alg None": lambda person: unsigned(person, "None"),
    "alg nOnE with a signature": lambda person: unsigned(person, "nOnE") + person.token.split(".")[2],
    "HS512": lambda person: signed(claims_of(person), algorithm="HS512"),
    "HS384": lambda person: signed(claims_of(person), algorithm="HS384"),
    "a header that says RS256": lambda person: ".".join([part({"alg": "RS256"}), *person.token.split(".")[1:]]),
    "a header without alg": lambda person: ".".join([part({"typ": "JWT"}), *person.token.split(".")[1:]]),
    "an alg that is a list": lambda person: ".".join([part({"alg": ["HS256"]}), *person.token.split(".")[1:]]),
    "a header that is a list": lambda person: ".".join([part(["HS256"]), *person.token.split(".")[1:]]),
    "a header that is not UTF-8": lambda person: ".".join([part(b"\xff"), *person.token.split(".")[1:]]),
    "a header nested too deeply": lambda person: ".".join([part(b"[" * 20_000), *person.token.split(".")[1:]]),
    "a header with a number of 5 000 digits": lambda person: ".".join(
        [part(b'{"alg":"HS256","x":' + b"1" * 5000 + b"}"), *person.token.split(".")[1:]]
    ),
    "a flipped bit in the header": lambda person: bit_flipped(person.token, 0),
    "a flipped bit in the claims": lambda person: bit_flipped(person.token, 1),
    "a flipped bit in the signature": lambda person: bit_flipped(person.token, 2),
    **{f"a kid of {kid!r}": with_header(kid=kid) for kid in STRANGE},
    "a kid that names the secret, and no secret": lambda person: signed(
        claims_of(person), "0" * 64, header={"kid": access_tokens.key_id(get_settings().signing_secret)}
    ),
    "an empty kid, and an empty secret": lambda person: signed(claims_of(person), "\0", header={"kid": ""}),
    "a key of its own": lambda person: signed(
        claims_of(person), "0" * 64, header={"jwk": {"kty": "oct", "k": part(b"0" * 64)}}
    ),
    "a key from elsewhere": lambda person: signed(
        claims_of(person), "0" * 64, header={"jku": "https://evil.example/keys", "x5u": "https://evil.example/x"}
    ),
    "a cookie": lambda person: access_tokens.issue(person.id, person.session_id, timedelta(days=1), "cookie"),
    **{f"a typ of {typ!r}": with_claim(typ=typ) for typ in ["refresh", "cookie", *STRANGE] if typ is not None},
    "a refresh token": lambda _: str(RefreshToken.first()),
    "twenty kilobytes of claims": lambda person: signed(claims_of(person, padding="x" * 20_000)),
    "a good token, and then some": lambda person: person.token + "A" * 20_000,
    "as the tutorial made them": lambda person: signed({"user_id": person.id, "exp": int(time.time()) + 600}),
    "no signature": lambda person: person.token.rpartition(".")[0] + ".",
    "a fourth part": lambda person: person.token + ".e30",
    "claims of another user": lambda person: ".".join(
        [person.token.split(".")[0], part(claims_of(person, user_id=1, sub="1")), person.token.split(".")[2]]
    ),
    "expired": lambda person: signed(claims_of(person, exp=int(time.time()) - 1)),
    "issued expired": lambda person: access_tokens.issue(person.id, person.session_id, timedelta(seconds=-1)),
    "not yet valid": lambda person: signed(claims_of(person, nbf=int(time.time()) + 600)),
    "exp as text": lambda person: signed(claims_of(person, exp="never")),
    "exp infinite": lambda person: signed(claims_of(person, exp=float("inf"))),
    "exp not a number": lambda person: signed(claims_of(person, exp=float("nan"))),
    "exp a list": lambda person: signed(claims_of(person, exp=[9e9])),
    "exp of 400 digits": lambda person: signed(claims_of(person, exp=10**400, sid=0)),
    **{f"no {name}": without(name) for name in ("exp", "iat", "sub", "sid", "jti", "user_id")},
    "sub of another user": lambda person: signed(claims_of(person, sub=str(person.id + 1))),
    "sub a number": lambda person: signed(claims_of(person, sub=person.id)),
    "user_id of another user": lambda person: signed(claims_of(person, user_id=person.id + 1)),
    "user_id as text": lambda person: signed(claims_of(person, user_id=str(person.id))),
    "user_id true": lambda person: signed(claims_of(person, user_id=True, sub="True")),
    "user_id as a fraction": lambda person: signed(claims_of(person, user_id=person.id + 0.0, sub=f"{person.id}.0")),
    "user_id past int8": lambda person: signed(claims_of(person, user_id=2**63, sub=str(2**63))),
    "sid as text": lambda person: signed(claims_of(person, sid=str(person.session_id))),
    "sid of no session": lambda person: signed(claims_of(person, sid=person.session_id + 1_000_000)),
    "sid negative": lambda person: signed(claims_of(person, sid=-person.session_id)),
    "sid past int8": lambda person: signed(claims_of(person, sid=2**64 + person.session_id)),
    "an API key that was never given out": lambda _: api_key.make_key(),
    "an API key with a wrong checksum": lambda _: api_key.make_key()[:-6] + "000000",
    "the beginning of an API key": lambda _: api_key.PREFIX,
    "claims that are a list": lambda _: str(
        __import__("jose.jws").jws.sign(b"[1]", get_settings().signing_secret, algorithm="HS256")
    ),
    "claims nested too deeply": lambda _: str(
        __import__("jose.jws").jws.sign(b"[" * 20_000, get_settings().signing_secret, algorithm="HS256")
    ),
}  # fmt: skip


def test_the_document_lists_every_public_route_that_is_listed_here() -> None:
    assert set(OPERATIONS) >= PUBLIC
    assert len(PROTECTED) >= 18


def test_a_good_token_of_this_making_is_accepted(client: TestClient, person: Person) -> None:
    """A valid token made this way is accepted, so each forgery fails by its change."""
    response = client.get("/users/me", headers={"Authorization": f"Bearer {signed(claims_of(person))}"})

    assert response.status_code == 200


def body_of(method: str) -> dict[str, Any] | None:
    """A body that every route takes."""
    body = {"title": "t", "content": "c", "post_id": 1, "vote_dir": 1, "name": "n", "scopes": ["read"], "code": "1",
            "current_password": "p", "up_to": 1}  # fmt: skip
    return body if method in {"POST", "PUT", "PATCH"} else None


@pytest.mark.parametrize(("method", "path"), PROTECTED)
def test_bad_tokens_are_rejected_on_every_route(
    client: TestClient, person: Person, rows: Rows, method: str, path: str
) -> None:
    address = path.replace("{id}", str(person.id)).replace("{name}", "travel")
    before = rows("SELECT users::text FROM users")

    assert_unauthenticated(client.request(method, address, json=body_of(method)))
    for scheme in ("Basic", "Token", ""):
        headers = {"Authorization": f"{scheme} {person.token}".strip()}
        assert_unauthenticated(client.request(method, address, json=body_of(method), headers=headers))
    for name, forge in FORGERIES.items():
        headers_sent = {"Authorization": b"Bearer " + forge(person).encode()}
        response = client.request(method, address, json=body_of(method), headers=headers_sent)  # type: ignore[arg-type]
        assert response.status_code == 401, name
        assert_unauthenticated(response)

    assert rows("SELECT users::text FROM users") == before
    assert rows("SELECT 1 FROM posts UNION ALL SELECT 1 FROM votes") == []


ENDINGS = {
    "session ended": "DELETE FROM sessions WHERE user_id = :id RETURNING 1",
    "session expired": "UPDATE sessions SET expires_at = now() - interval '1 second' WHERE user_id = :id RETURNING 1",
    "account disabled": "UPDATE users SET is_active = false WHERE id = :id RETURNING 1",
    "account deleted": "DELETE FROM users WHERE id = :id RETURNING 1",
}


@pytest.mark.parametrize("role", ["user", "admin"])
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(("method", "path"), PROTECTED)
def test_revoked_credentials_are_rejected_on_every_route(
    client: TestClient,
    make_person: Callable[..., Person],
    rows: Rows,
    method: str,
    path: str,
    ending: str,
    role: str,
) -> None:
    person = make_person(role=role)
    assert rows(ENDINGS[ending], id=person.id) == [(1,)]
    before = rows("SELECT users::text FROM users")

    address = path.replace("{id}", str(person.id)).replace("{name}", "travel")
    assert_unauthenticated(client.request(method, address, json=body_of(method), headers=person.headers))

    assert rows("SELECT users::text FROM users") == before
    assert rows("SELECT 1 FROM posts UNION ALL SELECT 1 FROM votes") == []


@pytest.mark.parametrize(("method", "path"), PROTECTED)
@pytest.mark.parametrize("token", ["", "garbage"])
def test_a_missing_or_bad_token_is_refused_before_anything_malformed(
    client: TestClient, method: str, path: str, token: str
) -> None:
    headers = {"Content-Type": "application/json", "Idempotency-Key": "\x7f" * 300} | (
        {"Authorization": f"Bearer {token}"} if token else {}
    )
    address = path.replace("{id}", "not-a-number") + "?limit=-1&cursor=garbage"

    assert_unauthenticated(client.request(method, address, content=b"{{{", headers=headers))
    assert_unauthenticated(client.request(method, path.replace("{id}", "0"), content=b"\xff", headers=headers))

"""`SIGNUP_PROOF_OF_WORK`: a sign-up needs the solution of a challenge, once."""

import base64
import hashlib
import json
import re
import time
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from app.config import get_settings
from app.security import passwords, sign_up_challenges
from tests.conftest import ROOT
from tests.contract.answers import assert_refused
from tests.contract.conftest import Rows
from tests.fixtures import PASSWORD, Person

DETAIL = "Signing up needs a new solution of GET /sign-up-challenge as proof_of_work"


@pytest.fixture(autouse=True)
def _required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(get_settings(), "signup_proof_of_work", True)
    monkeypatch.setattr(sign_up_challenges, "COST", 10)


def documented_solver() -> Callable[[Any], str]:
    """The function in docs/authentication.md."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "authentication.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - of our own documentation.
    solver: Callable[[Any], str] = names["proof_of_work"]
    return solver


solve = documented_solver()


def challenge(client: TestClient) -> Any:
    response = client.get("/sign-up-challenge")
    assert response.status_code == 200
    return response.json()


def sign_up(client: TestClient, proof: Any = None, email: str = "new@example.com", **headers: str) -> httpx2.Response:
    body = {"email": email, "password": PASSWORD, "proof_of_work": proof}
    return client.post("/users", json=body, headers=headers)


def test_a_solution_by_the_documented_steps_makes_one_account(client: TestClient, rows: Rows) -> None:
    proof = solve(challenge(client))

    assert sign_up(client, proof).status_code == 201
    assert_refused(sign_up(client, proof, "second@example.com"), 403, "invalid_proof", DETAIL)

    assert rows("SELECT email FROM users") == [("new@example.com",)]
    assert rows("SELECT count(*) FROM allowances WHERE limit_name = 'sign_up_challenge'") == [(1,)]


def test_the_default_cost_is_what_the_documentation_says(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sign_up_challenges, "COST", 5_000)

    parameters = challenge(client)["parameters"]

    assert (parameters["algorithm"], parameters["cost"], parameters["keyPrefix"]) == ("PBKDF2/SHA-256", 5_000, "00")
    assert 590 < parameters["expiresAt"] - time.time() <= 600


def changed(proof: str, change: Callable[[Any], None]) -> str:
    content = json.loads(base64.b64decode(proof))
    change(content)
    return base64.b64encode(json.dumps(content).encode()).decode()


def derived(content: Any, counter: int) -> None:
    wanted = content["challenge"]["parameters"]
    password = bytes.fromhex(wanted["nonce"]) + counter.to_bytes(4, "big")
    key = hashlib.pbkdf2_hmac("sha256", password, bytes.fromhex(wanted["salt"]), wanted["cost"], wanted["keyLength"])
    content["solution"] = {"counter": counter, "derivedKey": key.hex()}


def cheaper(content: Any) -> None:
    content["challenge"]["parameters"]["keyPrefix"] = ""
    derived(content, 0)


FORGERIES: dict[str, Callable[[Any], None]] = {
    "no solution": lambda content: content.pop("solution"),
    "a key that does not fit": lambda content: derived(content, content["solution"]["counter"] + 1),
    "another key": lambda content: content["solution"].update(derivedKey="00" * 32),
    "a counter as text": lambda content: content["solution"].update(counter="1"),
    "a counter that is true": lambda content: content["solution"].update(counter=True),
    "a negative counter": lambda content: content["solution"].update(counter=-1),
    "a cheaper challenge": cheaper,
    "a later end": lambda content: content["challenge"]["parameters"].update(expiresAt=2**40),
    "no end": lambda content: content["challenge"]["parameters"].pop("expiresAt"),
    "an end that is null": lambda content: content["challenge"]["parameters"].update(expiresAt=None),
    "another nonce": lambda content: content["challenge"]["parameters"].update(nonce="00" * 16),
    "no signature": lambda content: content["challenge"].pop("signature"),
    "an empty signature": lambda content: content["challenge"].update(signature=""),
    "parameters that are a list": lambda content: content["challenge"].update(parameters=[]),
    "data of its own": lambda content: content["challenge"]["parameters"].update(data={"__proto__": 1}),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_solutions_are_refused_and_store_nothing(client: TestClient, rows: Rows, name: str) -> None:
    proof = changed(solve(challenge(client)), FORGERIES[name])

    assert_refused(sign_up(client, proof), 403, "invalid_proof", DETAIL)

    assert rows("SELECT count(*) FROM users") == [(0,)]
    assert rows("SELECT count(*) FROM allowances WHERE limit_name = 'sign_up_challenge'") == [(0,)]


GARBAGE = [
    None, "", "x", "é", "====", "e30=", "W10=", "MQ==", "bnVsbA==", "A" * 2000,
    base64.b64encode(b"[" * 1400).decode(),
    base64.b64encode(b"\xff\xfe").decode(),
    base64.b64encode(b'{"challenge": {"parameters": "x"}, "solution": "y"}').decode(),
    base64.b64encode(b'{"challenge": NaN, "solution": Infinity}').decode(),
]  # fmt: skip


@pytest.mark.parametrize("proof", GARBAGE)
@pytest.mark.parametrize("email", ["new@example.com", "taken@example.com"])
def test_without_a_solution_a_refusal_says_nothing_about_the_address_and_hashes_nothing(
    client: TestClient,
    make_person: Callable[..., Person],
    monkeypatch: pytest.MonkeyPatch,
    proof: str | None,
    email: str,
) -> None:
    make_person(email="taken@example.com")
    hashed: list[str] = []
    monkeypatch.setattr(passwords, "hash_password", hashed.append)

    assert_refused(sign_up(client, proof, email), 403, "invalid_proof", DETAIL)

    assert hashed == []


def test_another_encoding_or_another_solution_of_a_challenge_is_the_same_solution(
    client: TestClient, rows: Rows
) -> None:
    proof = solve(challenge(client))
    assert sign_up(client, proof).status_code == 201

    wanted = json.loads(base64.b64decode(proof))
    counter = wanted["solution"]["counter"] + 1
    while True:
        derived(wanted, counter)
        if wanted["solution"]["derivedKey"].startswith("00"):
            break
        counter += 1
    others = [
        changed(proof, lambda content: content["solution"].update(time=1.5)),
        "".join(f"{character} " for character in proof),
        base64.b64encode(json.dumps(wanted).encode()).decode(),
    ]
    for other in others:
        assert_refused(sign_up(client, other, "second@example.com"), 403, "invalid_proof", DETAIL)
    assert rows("SELECT count(*) FROM users") == [(1,)]


def test_a_solution_is_used_up_by_a_sign_up_that_fails(client: TestClient, make_person: Callable[..., Person]) -> None:
    make_person(email="taken@example.com")
    proof = solve(challenge(client))

    assert_refused(sign_up(client, proof, "taken@example.com"), 409, "email_taken")

    assert_refused(sign_up(client, proof), 403, "invalid_proof", DETAIL)


def test_a_malformed_sign_up_leaves_the_solution(client: TestClient) -> None:
    proof = solve(challenge(client))
    assert_refused(sign_up(client, proof, "no address"), 422, "validation_failed")

    assert sign_up(client, proof).status_code == 201


def test_an_expired_challenge_is_refused(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    proof = solve(challenge(client))
    later = time.time() + sign_up_challenges.LIFETIME.total_seconds() + 1
    monkeypatch.setattr(time, "time", lambda: later)

    assert_refused(sign_up(client, proof), 403, "invalid_proof", DETAIL)


def test_a_used_solution_is_remembered_longer_than_its_challenge_is_valid(client: TestClient, rows: Rows) -> None:
    assert sign_up(client, solve(challenge(client))).status_code == 201

    assert rows("""
        SELECT expires_at > now() + interval '19 minutes' FROM allowances WHERE limit_name = 'sign_up_challenge'
    """) == [(True,)]


def test_a_replayed_request_with_an_idempotency_key_gets_the_same_response(client: TestClient, rows: Rows) -> None:
    proof = solve(challenge(client))

    first, second = (sign_up(client, proof, **{"Idempotency-Key": "k"}) for _ in range(2))

    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert rows("SELECT count(*) FROM users") == [(1,)]


def test_a_challenge_of_the_key_before_is_accepted_after_a_change(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    proof, settings = solve(challenge(client)), get_settings()
    monkeypatch.setattr(settings, "secret_key_previous", [settings.secret_key])
    monkeypatch.setattr(settings, "secret_key", type(settings.secret_key)("k" * 32))  # type: ignore[misc]

    assert sign_up(client, proof).status_code == 201


def test_solutions_are_used_up_also_without_rate_limits(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(get_settings(), "rate_limits_enabled", False)
    proof = solve(challenge(client))

    statuses = [sign_up(client, proof, f"new{n}@example.com").status_code for n in range(2)]

    assert statuses == [201, 403]


def test_without_the_setting_there_is_no_challenge_and_no_proof(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(get_settings(), "signup_proof_of_work", False)

    assert_refused(client.get("/sign-up-challenge"), 404, "not_found")
    assert sign_up(client).status_code == 201

"""One solution of a sign-up challenge on two servers: one account."""

from collections.abc import Callable

from sqlalchemy import Connection

from tests.contract.test_proof_of_work import solve
from tests.fixtures import PASSWORD, Server
from tests.races.conftest import Call, Crowd, count, statuses


def test_of_twenty_sign_ups_at_once_with_one_solution_one_succeeds(
    start_server: Callable[..., Server], connection: Connection
) -> None:
    settings = {"SIGNUP_PROOF_OF_WORK": "true", "RATE_LIMITS_ENABLED": "false"}
    crowd = Crowd([start_server(**settings) for _ in range(2)])
    (challenge,) = crowd.send([Call("GET", "/sign-up-challenge")])
    proof = solve(challenge.json())

    answers = crowd.send(
        [
            Call("POST", "/users", None, {"email": f"new{n}@example.com", "password": PASSWORD, "proof_of_work": proof})
            for n in range(20)
        ]
    )

    assert statuses(answers) == {201: 1, 403: 19}
    assert count(connection, "users") == 1

"""`/sign-up-challenge`: proof of work for `POST /users`."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.api.route import Route
from app.config import get_settings
from app.errors import NotFound
from app.middleware.problem_details import responses
from app.security import sign_up_challenges

router = APIRouter(tags=["users"], route_class=Route)


class SignUpChallenge(BaseModel):
    """A challenge, in the format of ALTCHA (version 2)."""

    parameters: dict[str, str | int] = Field(
        description="The task. An ALTCHA library solves it; docs/authentication.md says how.",
        examples=[
            {
                "algorithm": sign_up_challenges.ALGORITHM,
                "cost": sign_up_challenges.COST,
                "expiresAt": 1798761600,
                "keyLength": 32,
                "keyPrefix": sign_up_challenges.KEY_PREFIX,
                "nonce": "0123456789abcdef" * 2,
                "salt": "fedcba9876543210" * 2,
            }
        ],
    )
    signature: str = Field(description="The server's signature of the parameters.", examples=["0123456789abcdef" * 4])


@router.get("/sign-up-challenge", responses=responses(NotFound))
async def get_sign_up_challenge() -> SignUpChallenge:
    """Get a challenge, whose solution signing up needs. Needs no credentials.

    Send the solution as `proof_of_work` of `POST /users`, within ten minutes. 404 if the server needs none.
    """
    if not get_settings().signup_proof_of_work:
        raise NotFound
    return SignUpChallenge.model_validate(sign_up_challenges.issue().to_dict())

"""`/login`: from a name and a password to an access token."""

from typing import Annotated

from fastapi import APIRouter, Form
from starlette.requests import Request
from starlette.responses import Response

from app import passwords, tokens
from app.config import get_settings
from app.errors import InvalidCredentials, TooManyTries
from app.oauth2 import Route
from app.problems import responses
from app.schemas.auth import SignedIn
from app.services import auth

router = APIRouter(tags=["signing in"], route_class=Route)


@router.post("/token", response_model=SignedIn, include_in_schema=False)
@router.post("/login", response_model=SignedIn, responses=responses(InvalidCredentials, TooManyTries))
async def login(
    username: Annotated[str, Form(max_length=320, description="The e-mail address, or the username.")],
    password: Annotated[str, Form(max_length=1000, json_schema_extra={"format": "password"})],
    request: Request,
    response: Response,
) -> SignedIn:
    """Sign in, with a form as OAuth2's password flow has it."""
    response.headers["Cache-Control"] = "no-store"
    settings = get_settings()
    device = auth.Device(request.headers.get("user-agent"), request.client.host if request.client else None)
    session = await passwords.in_hashing_thread(auth.sign_in, username, password, device, settings.session_lifetime)
    lifetime = settings.access_token_lifetime
    return SignedIn(
        access_token=tokens.issue(session.user_id, session.id, lifetime), expires_in=int(lifetime.total_seconds())
    )

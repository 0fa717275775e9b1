"""`/login`, `/token/refresh`, `/logout`: from a name and a password to tokens or a cookie, and back."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Form, Query
from starlette.requests import Request
from starlette.responses import Response

from app import context, passwords, tokens
from app.config import get_settings
from app.database import SessionDep
from app.errors import CrossSiteRequest, InvalidCredentials, NotAuthenticated, OtpRequired, TooManyTries
from app.oauth2 import (
    SESSION_COOKIE,
    CredentialsRoute,
    CurrentUser,
    Token,
    is_same_origin,
    session_cookie,
    uses_cookie,
)
from app.problems import refusal, responses
from app.refresh_tokens import RefreshToken
from app.schemas.auth import RefreshIn, SignedIn, SignedInByCookie
from app.services import auth, session, totp

router = APIRouter(tags=["signing in"], route_class=CredentialsRoute)


@router.post("/token", response_model=SignedIn | SignedInByCookie, include_in_schema=False)
@router.post(
    "/login",
    response_model=SignedIn | SignedInByCookie,
    responses=responses(InvalidCredentials, OtpRequired, CrossSiteRequest, TooManyTries),
)
async def login(
    username: Annotated[str, Form(max_length=320, description="The e-mail address, or the username.")],
    password: Annotated[str, Form(max_length=1000, json_schema_extra={"format": "password"})],
    request: Request,
    response: Response,
    otp: Annotated[
        str | None, Form(max_length=64, description="Where a second factor is due: a code, or a recovery code.")
    ] = None,
    cookie: Annotated[
        bool, Query(description="Set a cookie for pages of this origin, instead of answering tokens.")
    ] = False,
) -> SignedIn | SignedInByCookie:
    """Sign in, with a form as OAuth2's password flow has it."""
    if cookie and is_same_origin(request) is False:
        raise CrossSiteRequest
    device = auth.Device(request.headers.get("user-agent"), context.client_address.get())
    second_factor = partial(totp.demand, otp=otp)
    signed_in = await passwords.in_hashing_thread(
        None, request.receive, auth.sign_in, username, password, device, second_factor, refreshes=not cookie
    )
    if signed_in.refresh_token is not None:
        return _pair(signed_in.user_id, signed_in.session_id, signed_in.refresh_token)
    lifetime = get_settings().session_lifetime
    seconds = int(lifetime.total_seconds())
    _set_cookie(request, response, tokens.issue(signed_in.user_id, signed_in.session_id, lifetime, "cookie"), seconds)
    return SignedInByCookie(expires_in=seconds)


@router.post("/token/refresh", response_model=SignedIn, responses=responses(NotAuthenticated))
def refresh_token(wanted: RefreshIn, db: SessionDep, request: Request) -> SignedIn | Response:
    """Put a new pair of tokens in the place of an old one.

    A refresh token works once. Sent again, it ends the session: somebody else has it. Only within ten seconds, for a
    client whose answer was lost, it answers the same new refresh token as before.
    """
    refreshed = session.refresh(db, RefreshToken.read(wanted.refresh_token))
    if isinstance(refreshed, NotAuthenticated):
        return refusal(request.scope, refreshed)
    return _pair(refreshed.user_id, refreshed.session_id, refreshed.refresh_token)


@router.post("/logout", status_code=204, responses=responses(NotAuthenticated))
def logout(token: Token, caller: CurrentUser, db: SessionDep, request: Request, response: Response) -> None:
    """Sign out: the session's access token, refresh token and cookie work no more."""
    session.sign_out(db, caller.id, token.session_id)
    if uses_cookie(request):
        _set_cookie(request, response, "", 0)


def _pair(user_id: int, session_id: int, refresh_token: RefreshToken) -> SignedIn:
    lifetime = get_settings().access_token_lifetime
    return SignedIn(
        access_token=tokens.issue(user_id, session_id, lifetime),
        expires_in=int(lifetime.total_seconds()),
        refresh_token=str(refresh_token),
    )


def _set_cookie(request: Request, response: Response, value: str, seconds: int) -> None:
    """Set it for so long; 0 takes it away."""
    name = session_cookie(request)
    is_secure = name == SESSION_COOKIE
    response.set_cookie(name, value, max_age=seconds, path="/", secure=is_secure, httponly=True, samesite="lax")

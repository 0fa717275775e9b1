"""`/login`, `/token/refresh`, `/logout`: sign in and out with tokens or a cookie."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Form, Query
from starlette.requests import Request
from starlette.responses import Response

from app.api.authentication import SESSION_COOKIE, CurrentUser, Token, is_same_origin, session_cookie, uses_cookie
from app.api.route import CredentialsRoute
from app.config import get_settings
from app.database.sessions import SessionDep
from app.errors import Banned, CrossSiteRequest, InvalidCredentials, NotAuthenticated, OtpRequired, TooManyTries
from app.middleware.problem_details import refusal, responses
from app.observability import request_context
from app.schemas.auth import RefreshIn, SignedIn, SignedInByCookie
from app.security import access_tokens, passwords
from app.security.refresh_tokens import RefreshToken
from app.services import auth, session, totp

router = APIRouter(tags=["authentication"], route_class=CredentialsRoute)


@router.post("/token", response_model=SignedIn, include_in_schema=False)
@router.post(
    "/login",
    response_model=SignedIn,
    responses=responses(InvalidCredentials, Banned, OtpRequired, CrossSiteRequest, TooManyTries),
)
async def login(
    username: Annotated[
        str, Form(max_length=320, description="Your e-mail address or username.", examples=["ada@example.com"])
    ],
    password: Annotated[
        str,
        Form(
            max_length=1000,
            description="Your password.",
            examples=["correct horse battery"],
            json_schema_extra={"format": "password"},
        ),
    ],
    request: Request,
    otp: Annotated[
        str | None, Form(max_length=64, description="With two-factor authentication: a code, or a recovery code.")
    ] = None,
    # Only in the docstring, because a second response type in the schema would complicate generated clients.
    cookie: Annotated[bool, Query(include_in_schema=False)] = False,
) -> SignedIn | Response:
    """Sign in with an e-mail address or username, and a password.

    The body is the form of OAuth 2.0's password flow.

    **Cookie mode**, for web pages of the API's own origin: `POST /login?cookie=true` takes the same form. It answers
    `{"expires_in": seconds}` and sets the session cookie instead of returning tokens.
    """
    if cookie and is_same_origin(request) is False:
        raise CrossSiteRequest
    device = auth.Device(request.headers.get("user-agent"), request_context.client_address.get())
    second_factor = partial(totp.demand, otp=otp)
    signed_in = await passwords.in_hashing_thread(
        None, request.receive, auth.sign_in, username, password, device, second_factor, refreshes=not cookie
    )
    if signed_in.refresh_token is not None:
        return _pair(signed_in.user_id, signed_in.session_id, signed_in.refresh_token)
    lifetime = get_settings().session_lifetime
    seconds = int(lifetime.total_seconds())
    response = Response(SignedInByCookie(expires_in=seconds).model_dump_json(), media_type="application/json")
    _set_cookie(
        request, response, access_tokens.issue(signed_in.user_id, signed_in.session_id, lifetime, "cookie"), seconds
    )
    return response


@router.post("/token/refresh", response_model=SignedIn, responses=responses(NotAuthenticated))
def refresh_token(wanted: RefreshIn, db: SessionDep, request: Request) -> SignedIn | Response:
    """Exchange a refresh token for new tokens.

    A refresh token works once. Within ten seconds, a second use returns the same new refresh token again, so that a
    client that lost the answer can try again. A later one ends the session, because the token may be stolen.
    """
    refreshed = session.refresh(db, RefreshToken.read(wanted.refresh_token))
    if isinstance(refreshed, NotAuthenticated):
        return refusal(request.scope, refreshed)
    return _pair(refreshed.user_id, refreshed.session_id, refreshed.refresh_token)


@router.post("/logout", status_code=204, responses=responses(NotAuthenticated))
def logout(token: Token, caller: CurrentUser, db: SessionDep, request: Request, response: Response) -> None:
    """Sign out.

    The access token, refresh token and cookie of the session stop working.
    """
    session.sign_out(db, caller.id, token.session_id)
    if uses_cookie(request):
        _set_cookie(request, response, "", 0)


def _pair(user_id: int, session_id: int, refresh_token: RefreshToken) -> SignedIn:
    lifetime = get_settings().access_token_lifetime
    return SignedIn(
        access_token=access_tokens.issue(user_id, session_id, lifetime),
        expires_in=int(lifetime.total_seconds()),
        refresh_token=str(refresh_token),
    )


def _set_cookie(request: Request, response: Response, value: str, seconds: int) -> None:
    """Set the session cookie for this time; 0 removes it."""
    name = session_cookie(request)
    is_secure = name == SESSION_COOKIE
    response.set_cookie(name, value, max_age=seconds, path="/", secure=is_secure, httponly=True, samesite="lax")

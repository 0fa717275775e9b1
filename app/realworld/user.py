"""`/api/users`, `/api/user` and `/api/profiles`: accounts, sign-in and follows."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path
from sqlalchemy import update
from sqlalchemy.orm import Session
from starlette.requests import Request

from app import models
from app.api.authentication import CurrentUser, PublicUser, ScopedUser, Token
from app.api.route import CredentialsRoute
from app.config import get_settings
from app.database.sessions import SessionDep, transaction
from app.errors import NotAuthenticated
from app.middleware.headers import header
from app.observability import request_context
from app.realworld import queries
from app.realworld.schemas import LoginBody, NewUserBody, UserChanges, UserChangesBody, as_profile, as_user, shown_image
from app.schemas.types import Text
from app.schemas.user import UserChange
from app.security import access_tokens, attempt_limits, passwords
from app.services import auth, follow, profile, totp, user

router = APIRouter(prefix="/api", include_in_schema=False, route_class=CredentialsRoute)

Username = Annotated[Text, Path()]


@router.post("/users", status_code=201)
async def register(new: NewUserBody, request: Request) -> Mapping[str, Any]:
    """Create an account and sign in."""

    def commit() -> Mapping[str, Any]:
        attempt_limits.spend(attempt_limits.SIGN_UP_FROM_ADDRESS, request_context.client_address.get() or "")
        with transaction() as db:
            account = user.sign_up(db, new.user)
            signed_in = auth.open_session(db, account, _device(request), refreshes=False)
        return as_user(account, _token(signed_in))

    return await passwords.in_hashing_thread(None, request.receive, commit)


@router.post("/users/login")
async def login(wanted: LoginBody, request: Request) -> Mapping[str, Any]:
    """Sign in. The token is valid until its session ends."""
    given = wanted.user

    def commit() -> Mapping[str, Any]:
        second_factor = partial(totp.demand, otp=given.otp)
        signed_in = auth.sign_in(given.email, given.password, _device(request), second_factor, refreshes=False)
        with transaction() as db:
            return as_user(auth.current_user(db, signed_in.user_id, signed_in.session_id), _token(signed_in))

    return await passwords.in_hashing_thread(None, request.receive, commit)


@router.get("/user")
def get_user(caller: CurrentUser, request: Request) -> Mapping[str, Any]:
    """Get the caller's account. Its token is the one of the request."""
    return as_user(caller, _token_of(request))


@router.put("/user")
async def change_user(wanted: UserChangesBody, token: Token, request: Request) -> Mapping[str, Any]:
    """Change the caller's account. Only within ten minutes of signing in: its e-mail address and its password."""

    def commit() -> Mapping[str, Any]:
        with transaction() as db:
            caller = auth.current_user(db, token.user_id, token.session_id)
            return as_user(_change(db, caller, token.session_id, wanted.user), _token_of(request))

    return await passwords.in_hashing_thread(token.user_id, request.receive, commit)


def _change(db: Session, caller: models.User, session_id: int, wanted: UserChanges) -> models.User:
    given = wanted.model_dump(exclude_unset=True)
    if given.get("email") == caller.email:  # Frontends send the whole form.
        del given["email"]
    if given.get("bio", "") is None:
        given["bio"] = ""
    has_image, image = "image" in given, given.pop("image", None)
    is_trusted = queries.has_just_signed_in(db, session_id)
    changed = user.change(db, caller, session_id, caller.id, UserChange(**given), is_trusted=is_trusted)
    # Compared with the changed row, which is locked. The form has the shown picture if it is to stay.
    if not has_image or image == shown_image(changed.image_url, changed.avatar):
        return changed
    return _with_image(db, caller.id, image or None)


def _with_image(db: Session, user_id: int, image_url: str | None) -> models.User:
    """Set the picture's address. Raises `NotAuthenticated` if the account was disabled or deleted meanwhile."""
    account = db.scalars(
        update(models.User)
        .where(models.User.id == user_id, models.User.is_active, ~models.User.is_deleted)
        .values(image_url=image_url)
        .returning(models.User)
        .execution_options(populate_existing=True)
    ).one_or_none()
    if account is None:
        raise NotAuthenticated
    return account


@router.get("/profiles/{username}")
def get_profile(username: Username, caller: PublicUser, db: SessionDep) -> dict[str, Any]:
    """Get the profile of a user."""
    return _shown(profile.get_by_username(db, username, caller))


@router.post("/profiles/{username}/follow")
def follow_user(username: Username, caller: ScopedUser, db: SessionDep) -> dict[str, Any]:
    """Follow a user. Idempotent."""
    follow.add(db, caller, profile.get_by_username(db, username, caller).account.id)
    return _shown(profile.get_by_username(db, username, caller))


@router.delete("/profiles/{username}/follow")
def unfollow_user(username: Username, caller: ScopedUser, db: SessionDep) -> dict[str, Any]:
    """Stop following a user. Idempotent."""
    follow.remove(db, caller, profile.get_by_username(db, username, caller).account.id)
    return _shown(profile.get_by_username(db, username, caller))


def _shown(found: profile.Profile) -> dict[str, Any]:
    return {"profile": as_profile(found.account, following=found.followed)}


def _device(request: Request) -> auth.Device:
    return auth.Device(request.headers.get("user-agent"), request_context.client_address.get())


def _token(signed_in: auth.SignIn) -> str:
    return access_tokens.issue(signed_in.user_id, signed_in.session_id, get_settings().session_lifetime)


def _token_of(request: Request) -> str:
    return header(request.scope, b"authorization").decode("latin-1").partition(" ")[2].strip()

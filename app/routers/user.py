"""`/users`: sign-up, profiles, accounts, and the caller's votes."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Path, Query
from sqlalchemy import Row
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from app import models
from app.api import batch_queues
from app.api.authentication import Admin, CurrentUser, OptionalUser, ScopedToken, ScopedUser, Token
from app.api.conditional import CONDITIONAL
from app.api.idempotency_key import IdempotentRequest, respond_once
from app.api.pagination import cut_and_link, linked, respond_with_page
from app.api.route import CredentialsRoute
from app.config import get_settings
from app.database.sessions import SessionDep, transaction
from app.errors import (
    EmailTaken,
    IdempotencyInProgress,
    IdempotencyMismatch,
    InvalidInvite,
    InvalidProof,
    LastAdmin,
    MalformedCursor,
    NotAuthenticated,
    NotAuthorized,
    NotFound,
    Overloaded,
    RegistrationClosed,
    StillReferenced,
    TooManyTries,
    UsernameTaken,
    UserNotFound,
    WrongPassword,
)
from app.middleware.problem_details import headers, responses
from app.observability import request_context
from app.schemas.page import page_of
from app.schemas.post import PostWithVotes
from app.schemas.types import Cursor, Id, Limit, Role, Skip, Text
from app.schemas.user import Account, NewUser, OwnAccount, UserChange, UserIn, UserProfile, UserSummary
from app.security import attempt_limits, passwords
from app.security.access_tokens import AccessToken
from app.security.email_addresses import placeholder_email
from app.services import auth, feed, profile, user

router = APIRouter(prefix="/users", tags=["users"], route_class=CredentialsRoute)


COUNTED = ("posts", "followers", "following", "followed", "blocked")


def _shown(found: profile.Profile, caller: models.User | None) -> UserProfile:
    """Return the profile of an account.

    The e-mail address is real for its owner, for admins, and with `PUBLIC_EMAILS`. Otherwise it is a placeholder.
    """
    account = found.account
    may_see_email = get_settings().public_emails or (caller and (caller.is_admin or caller.id == account.id))
    return UserProfile(
        id=account.id,
        username=account.username,
        created_at=account.created_at,
        email=account.email if may_see_email else placeholder_email(account.id, account.username),
        display_name=account.display_name,
        bio=account.bio,
        avatar=account.avatar,
        **{name: getattr(found, name) for name in COUNTED},
    )


@router.post(
    "",
    status_code=201,
    response_model=NewUser,
    responses={
        201: headers("Location"),
        **responses(
            EmailTaken,
            UsernameTaken,
            RegistrationClosed,
            InvalidInvite,
            InvalidProof,
            IdempotencyInProgress,
            IdempotencyMismatch,
            TooManyTries,
        ),
    },
)
async def sign_up(new: UserIn, idempotent: IdempotentRequest, request: Request) -> Response:
    """Create an account.

    An e-mail address can have one account, in upper or lower case. The server may require an invite or a proof of
    work, or accept no new accounts.
    """

    def create(db: Session) -> tuple[NewUser, str]:
        account = user.sign_up(db, new)
        return NewUser.model_validate(account), f"/users/{account.id}"

    def commit() -> Response:
        attempt_limits.spend(attempt_limits.SIGN_UP_FROM_ADDRESS, request_context.client_address.get() or "")
        with transaction() as db:
            return respond_once(db, idempotent, None, lambda: create(db), http_request=request)

    return await passwords.in_hashing_thread(None, request.receive, commit)


@router.get("", response_model=list[Account], responses=responses(NotAuthenticated, NotAuthorized, MalformedCursor))
def list_users(
    _: Admin,
    db: SessionDep,
    response: Response,
    limit: Annotated[Limit, Query()] = 10,
    skip: Annotated[Skip, Query()] = 0,
    email: Annotated[Text | None, Query(max_length=320, description="Only the account with this address.")] = None,
    role: Annotated[Role | None, Query(description="Only accounts with this role.")] = None,
    is_active: Annotated[bool | None, Query(description="Only active or only disabled accounts.")] = None,
    cursor: Annotated[Cursor | None, Query()] = None,
) -> list[models.User]:
    """List accounts by ascending id. Admins only."""
    page = page_of("users", limit=limit, cursor=cursor, skip=skip)
    accounts = user.list_all(db, page, email=email, role=role, is_active=is_active)
    # Links go without `email`: only one account can match it, so there is no second page.
    return cut_and_link(response, page, accounts, role=role, is_active=is_active)


@router.get("/me", response_model=OwnAccount, responses=responses(NotAuthenticated))
def get_me(caller: ScopedUser, db: SessionDep) -> OwnAccount:
    """Get your account. It has your real e-mail address and your role."""
    found = profile.get(db, caller.id, caller)
    account = Account.model_validate(caller, from_attributes=True)
    return OwnAccount(**account.model_dump(), **{name: getattr(found, name) for name in COUNTED})


@router.get("/search", response_model=list[UserSummary], responses=responses(NotAuthenticated))
def search_users(
    _: ScopedUser,
    db: SessionDep,
    q: Annotated[Text, Query(min_length=1, max_length=30, description="The beginning of the username, in any case.")],
    limit: Annotated[Limit, Query()] = 10,
) -> Sequence[Row[int, str, str | None, str | None]]:
    """Find users whose username begins with a text, in alphabetical order. For mentions.

    At most 100, without a next page.
    """
    return profile.search(db, q, limit)


@router.get(
    "/by-username/{username}",
    response_model=UserProfile,
    responses={**CONDITIONAL, **responses(NotFound, UserNotFound)},
)
def get_user_by_username(
    username: Annotated[Text, Path(max_length=30, description="The username, in any case.", examples=["ada"])],
    caller: OptionalUser,
    db: SessionDep,
) -> UserProfile:
    """Get the profile of a user by username.

    The e-mail address may be a placeholder; your own is real.
    """
    return _shown(profile.get_by_username(db, username, caller), caller)


@router.get(
    "/me/votes",
    response_model=list[PostWithVotes],
    responses={**CONDITIONAL, **responses(NotAuthenticated, MalformedCursor, Overloaded)},
)
async def list_my_votes(
    token: ScopedToken,
    request: Request,
    limit: Annotated[Limit, Query()] = 10,
    skip: Annotated[Skip, Query()] = 0,
    cursor: Annotated[Cursor | None, Query()] = None,
) -> Response:
    """List the posts that you voted for, newest vote first. Drafts are left out."""
    query = feed.PageQuery(
        order="voted",
        limit=limit,
        skip=skip,
        reader_id=token.user_id,
        position=feed.position_of(cursor, "voted") if cursor else None,
    )
    result = await batch_queues.read_page(feed.PageRequest(token, query))
    return respond_with_page(request, result, linked({"limit": limit}))


@router.get("/{id}", response_model=UserProfile, responses={**CONDITIONAL, **responses(UserNotFound)})
def get_user(user_id: Annotated[Id, Path(alias="id")], caller: OptionalUser, db: SessionDep) -> UserProfile:
    """Get the profile of a user.

    The e-mail address may be a placeholder; your own is real.
    """
    return _shown(profile.get(db, user_id, caller), caller)


CHANGE_ERRORS = (
    NotAuthenticated, NotAuthorized, WrongPassword, UserNotFound, EmailTaken, UsernameTaken, LastAdmin, TooManyTries,
)  # fmt: skip


async def _change(request: Request, token: AccessToken, user_id: int, wanted: UserChange) -> models.User:
    def commit() -> models.User:
        with transaction() as db:
            caller = auth.current_user(db, token.user_id, token.session_id)
            _authorize(caller, user_id)
            return user.change(db, caller, token.session_id, user_id, wanted)

    return await passwords.in_hashing_thread(token.user_id, request.receive, commit)


def _authorize(caller: models.User, user_id: int) -> None:
    if caller.id != user_id and not caller.is_admin:
        raise NotAuthorized


@router.put("/me", response_model=Account, responses=responses(*CHANGE_ERRORS), name="replace_me")
@router.patch("/me", response_model=Account, responses=responses(*CHANGE_ERRORS))
async def change_me(token: Token, wanted: UserChange, request: Request) -> models.User:
    """Change your account. Fields that you leave out keep their values.

    A new e-mail address or password needs `current_password`. A new password ends your other sessions.
    """
    return await _change(request, token, token.user_id, wanted)


@router.put("/{id}", response_model=Account, responses=responses(*CHANGE_ERRORS), name="replace_user")
@router.patch("/{id}", response_model=Account, responses=responses(*CHANGE_ERRORS))
async def change_user(
    user_id: Annotated[Id, Path(alias="id")], token: Token, wanted: UserChange, request: Request
) -> models.User:
    """Change an account. Fields that you leave out keep their values.

    Admins can change every account, other users only their own.
    """
    return await _change(request, token, user_id, wanted)


@router.delete("/me", status_code=204, responses=responses(NotAuthenticated, LastAdmin, StillReferenced))
def delete_me(caller: CurrentUser, db: SessionDep) -> None:
    """Delete your account, with its posts, votes, follows, bookmarks, notifications and sessions.

    Your comments that have replies stay without author and content.
    """
    user.remove(db, caller, caller.id)


@router.delete(
    "/{id}",
    status_code=204,
    responses=responses(NotAuthenticated, NotAuthorized, UserNotFound, LastAdmin, StillReferenced),
)
def delete_user(user_id: Annotated[Id, Path(alias="id")], caller: CurrentUser, db: SessionDep) -> None:
    """Delete an account. This deletes its posts, votes, follows, bookmarks, notifications and sessions, too.

    Admins can delete every account, other users only their own.
    """
    _authorize(caller, user_id)
    user.remove(db, caller, user_id)

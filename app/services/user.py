"""Accounts: create, look up, change and delete."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import and_, delete, insert, or_, select, true, union_all, update
from sqlalchemy.orm import Session

from app import models
from app.config import get_settings
from app.database import deletion_marks, event_log, notification_delivery
from app.database.locks import lock_user_counts
from app.errors import (
    LastAdmin,
    NotAuthenticated,
    NotAuthorized,
    RegistrationClosed,
    UserNotFound,
    WrongPassword,
)
from app.mail import outbox
from app.models.security_event import Event
from app.observability import request_context
from app.schemas.page import KeysetPage
from app.schemas.user import UserChange, UserIn
from app.security import attempt_limits, audit_log, invite_tokens, passwords, sign_up_challenges
from app.security.email_addresses import canonical_email


def sign_up(db: Session, new: UserIn) -> models.User:
    """Create an account as `REGISTRATION` and `SIGNUP_PROOF_OF_WORK` allow.

    Proof and invite are checked before the password is hashed and before anything is read of other accounts. The invite
    is used with the transaction, so a sign-up that fails does not use it. Raises `RegistrationClosed`, `InvalidProof`,
    `InvalidInvite`, and as `create` does.
    """
    settings = get_settings()
    if settings.registration == "closed":
        raise RegistrationClosed
    if settings.signup_proof_of_work:
        sign_up_challenges.use(new.proof_of_work)
    needs_invite = settings.registration == "invite"
    if needs_invite:
        invite_tokens.check(db, new.invite)
    return create(db, new, needs_invite=needs_invite)


def create(db: Session, new: UserIn, *, needs_invite: bool = False) -> models.User:
    """Create an account and queue the mail that verifies its address.

    A unique index refuses a taken e-mail address or username, also under concurrency. Hashes the password: call it
    through `passwords.in_hashing_thread`. Raises `InvalidInvite`.
    """
    values: dict[str, object] = {
        "email": new.email,
        "email_canonical": canonical_email(new.email),
        "password_hash": passwords.hash_password(new.password),
    }
    if new.username is not None:
        values["username"] = new.username
    values |= _description(new)
    # After the hash, so that sign-ups with the same invite wait for each other only briefly.
    details = {"invite_id": invite_tokens.use(db, new.invite)} if needs_invite else {}
    user = db.scalars(insert(models.User).values(values).returning(models.User)).one()
    audit_log.record(db, Event.SIGNED_UP, user.id, **details)
    outbox.post(db, "email_verification", user.email)
    return user


def get(db: Session, user_id: int) -> models.User:
    """Return the account. Raises `UserNotFound`."""
    user = db.get(models.User, user_id)
    if user is None or user.is_deleted:
        raise UserNotFound(user_id)
    return user


def list_all(
    db: Session, page: KeysetPage, *, email: str | None, role: models.Role | None, is_active: bool | None
) -> Sequence[models.User]:
    """Return accounts that match the filters, by ascending id."""
    statement = select(models.User).where(~models.User.is_deleted)
    if email is not None:
        statement = statement.where(models.User.email_canonical == canonical_email(email))
    if role is not None:
        statement = statement.where(models.User.role == role)
    if is_active is not None:
        statement = statement.where(models.User.is_active == is_active)
    return db.scalars(page.select(statement, models.User.id)).all()


def change(
    db: Session, caller: models.User, session_id: int, user_id: int, wanted: UserChange, *, is_trusted: bool = False
) -> models.User:
    """Change the caller's own account, or, for admins, any account.

    A new password, or disabling the account, ends its sessions and API keys. Users who change their own password keep
    their current session. A new e-mail address has to be verified. A new password or e-mail address is announced to
    the previous address, if that was verified. With `is_trusted`, the caller has just given their password to sign in,
    and a new password or e-mail address needs no `current_password`.

    Hashes passwords: call it through `passwords.in_hashing_thread`. Raises `UserNotFound`, `WrongPassword`,
    `TooManyTries`, `LastAdmin`. Raises `NotAuthenticated` if the caller's account was disabled or deleted meanwhile,
    and `NotAuthorized` if the caller is no longer an admin.
    """
    needs_proof = _spend_attempts(caller, user_id, wanted, is_trusted=is_trusted)
    values = _description(wanted)
    if wanted.username is not None:
        values["username"] = wanted.username
    if wanted.email is not None:
        values |= {"email": wanted.email, "email_canonical": canonical_email(wanted.email)}
    if wanted.password is not None:
        values["password_hash"] = passwords.hash_password(wanted.password)
    standing = wanted.model_dump(include={"role", "is_active"}, exclude_none=True) if caller.is_admin else {}
    values |= standing
    if not values:
        return get(db, user_id)
    # Locked, so that of two concurrent changes each notifies the address that it replaced.
    before = _lock(db, caller, user_id, standing, needs_admin=caller.id != user_id or bool(standing))
    has_new_email = wanted.email not in {None, before.email}
    if has_new_email:
        values["email_verified_at"] = None
    # The proved password must still be the current one, so that of two concurrent changes one is refused.
    still = models.User.password_hash == caller.password_hash if needs_proof else true()
    user = db.scalars(
        update(models.User)
        .where(models.User.id == user_id, still)
        .values(values)
        .returning(models.User)
        .execution_options(populate_existing=True)
    ).one_or_none()
    if user is None:
        raise WrongPassword if needs_proof else UserNotFound(user_id)
    if has_new_email:
        audit_log.record(db, Event.EMAIL_CHANGED, user_id)
        _notify(db, "email_changed", before, user_id)
        if attempt_limits.is_within(attempt_limits.MAIL_OF_ACCOUNT["email_verification"], str(user_id)):
            outbox.post(db, "email_verification", user.email)
    if wanted.password is not None:
        audit_log.record(db, Event.PASSWORD_CHANGED, user_id, by_user_id=caller.id)
        _notify(db, "password_changed", before, user_id)
    if wanted.password is not None or values.get("is_active") is False:
        # Ends sign-ins and API keys. Only a user who changed their own password, and is still active, stays signed in.
        deletion_marks.end_sessions(db, user_id, keeping=session_id if user.is_active else None)
    _record_change(db, before, user, by=caller.id)
    return user


def _description(wanted: UserIn | UserChange) -> dict[str, object]:
    """Return the given texts of the profile. An empty one is removed."""
    given = {"display_name": wanted.display_name, "bio": wanted.bio}
    return {name: value or None for name, value in given.items() if value is not None}


def _spend_attempts(caller: models.User, user_id: int, wanted: UserChange, *, is_trusted: bool) -> bool:
    """Count the change as an attempt; return whether the caller had to prove that they know their password.

    They have proved it then. Raises `WrongPassword`, `TooManyTries`.
    """
    is_own = caller.id == user_id
    needs_proof = is_own and (wanted.email is not None or wanted.password is not None)
    if needs_proof and not is_trusted:
        _require_password(caller, wanted.current_password or "")
    elif wanted.password is not None:  # By an admin, or soon after signing in. Counted, because hashing is expensive.
        attempt_limits.spend_right_password(caller.id)
    if is_own and wanted.email not in {None, caller.email}:
        # Limited, because the response reveals whether the address has an account. Admins can list all accounts.
        attempt_limits.spend(attempt_limits.EMAIL_CHANGE_OF_ACCOUNT, str(caller.id))
        attempt_limits.spend(attempt_limits.EMAIL_CHANGE_FROM_ADDRESS, request_context.client_address.get() or "")
    return needs_proof


def _notify(db: Session, kind: Literal["email_changed", "password_changed"], before: "_Standing", user_id: int) -> None:
    """Mail the previous address, but only if verified: it may be a stranger's."""
    if before.email_verified_at is not None and attempt_limits.is_within(
        attempt_limits.MAIL_OF_ACCOUNT[kind], str(user_id)
    ):
        outbox.post(db, kind, before.email)


def _require_password(caller: models.User, password: str) -> None:
    """Check the caller's password. Raises `WrongPassword`, `TooManyTries`.

    Attempts are counted because the session may be stolen, and its holder may be guessing.
    """
    attempt_limits.spend(attempt_limits.PASSWORD_OF_ACCOUNT, str(caller.id), password_of=caller.id)
    if not passwords.verify(password, caller.password_hash)[0]:
        raise WrongPassword
    attempt_limits.give_back(attempt_limits.PASSWORD_OF_ACCOUNT, str(caller.id), password_of=caller.id)


def remove(db: Session, caller: models.User, user_id: int) -> None:
    """Delete the caller's own account, or, for admins, any.

    This deletes the account's posts, votes, comments, follows, bookmarks, blocks, notifications and sessions, too.
    Comments with replies stay as tombstones.

    Raises `UserNotFound`, `LastAdmin`; `NotAuthenticated` and `NotAuthorized` as `change` does.

    An account with many rows, or with comments, is only marked. It is deleted at once for every request, and its rows
    are removed in the background. Rows are locked in the order of `app.database.locks`, so that it cannot deadlock with
    votes.
    """
    _lock(db, caller, user_id, {"is_active": False}, needs_admin=caller.id != user_id)
    own_posts = select(models.Post.id).where(models.Post.owner_id == user_id)
    is_large = deletion_marks.is_large(db, user_id)
    if not is_large:
        db.execute(own_posts.order_by(models.Post.id).with_for_update())
        # Under the lock, because others may comment on the posts until then.
        is_large = deletion_marks.has_comments(db, user_id)
    if is_large:
        deletion_marks.mark_account(db, user_id)
        audit_log.record(db, Event.ACCOUNT_DELETED, user_id)
        return
    followees = select(models.Follow.followee_id).where(models.Follow.follower_id == user_id)
    followers = select(models.Follow.follower_id).where(models.Follow.followee_id == user_id)
    lock_user_counts(db, [user_id, *db.scalars(followees.union_all(followers))])
    voted = select(models.Vote.post_id).where(models.Vote.user_id == user_id)
    bookmarked = select(models.Bookmark.post_id).where(models.Bookmark.user_id == user_id)
    muted = select(models.PostMute.post_id).where(models.PostMute.user_id == user_id)
    db.execute(
        select(models.PostStats.post_id)
        .where(models.PostStats.post_id.in_(own_posts.union_all(voted, bookmarked, muted)))
        .order_by(models.PostStats.post_id)
        .with_for_update(key_share=True)
    )
    # Two accounts that have blocked each other may be deleted at once.
    block = models.Block
    own_blocks = select(block.blocker_id).where(or_(block.blocker_id == user_id, block.blocked_id == user_id))
    db.execute(own_blocks.order_by(block.blocker_id, block.blocked_id).with_for_update())
    tagged = select(models.PostTag.tag_id).where(models.PostTag.post_id.in_(own_posts))
    followed = select(models.TagFollow.tag_id).where(models.TagFollow.user_id == user_id)
    db.execute(
        select(models.TagStats.tag_id)
        .where(models.TagStats.tag_id.in_(tagged.union_all(followed)))
        .order_by(models.TagStats.tag_id)
        .with_for_update(key_share=True)
    )
    post_ids = db.scalars(own_posts).all()
    event_log.record_deleted_posts(db, post_ids)
    db.execute(delete(models.User).where(models.User.id == user_id))
    notification_delivery.forget_account(db, user_id, post_ids)
    audit_log.record(db, Event.ACCOUNT_DELETED, user_id)


@dataclass(frozen=True, slots=True)
class _Standing:
    """The permissions of an account, and the address for notifications."""

    role: models.Role
    is_active: bool
    email: str
    email_verified_at: datetime | None

    @property
    def manages(self) -> bool:
        """Whether it can manage accounts."""
        return self.role == "admin" and self.is_active


_STANDING = (models.User.role, models.User.is_active, models.User.email, models.User.email_verified_at)


def _lock(db: Session, caller: models.User, user_id: int, wanted: Mapping[str, Any], *, needs_admin: bool) -> _Standing:
    """Lock the account; return its permissions and address before the change.

    If an admin's permissions are to change, the accounts of all active admins are locked. So removals of admins are
    serialized: of two admins who remove each other, only one succeeds.
    Raises `UserNotFound`, and `LastAdmin` if the change would leave no active admin. The caller's account is read
    again: `NotAuthenticated` if it is disabled or deleted by now, `NotAuthorized` if it needs to be an admin's.
    """
    manages = and_(models.User.role == "admin", models.User.is_active)
    account = select(models.User.id).where(models.User.id == user_id)
    admins = select(models.User.id).where(manages, account.where(manages).exists())
    locked = {
        row.id: _Standing(*row[1:])
        for row in db.execute(
            select(models.User.id, *_STANDING)
            .where(models.User.id.in_(union_all(account, admins) if wanted else account), ~models.User.is_deleted)
            .order_by(models.User.id)
            .with_for_update()
        )
    }
    before = locked.pop(user_id, None)
    _check_caller(before if caller.id == user_id else _lock_caller(db, caller.id), needs_admin=needs_admin)
    if before is None:
        raise UserNotFound(user_id)
    if before.manages and not replace(before, **wanted).manages and not any(other.manages for other in locked.values()):
        raise LastAdmin
    return before


def _lock_caller(db: Session, user_id: int) -> _Standing | None:
    """Lock the caller's account until the transaction ends.

    It is locked last, without an order relative to the changed account. So two admins who change each other may
    deadlock; then one of the requests runs again. With an order, a request that waits for its target would delay the
    demotion of its caller.
    """
    row = db.execute(select(*_STANDING).where(models.User.id == user_id).with_for_update(read=True)).one_or_none()
    return None if row is None else _Standing(*row)


def _check_caller(now: _Standing | None, *, needs_admin: bool) -> None:
    if now is None or not now.is_active:
        raise NotAuthenticated
    if needs_admin and not now.manages:
        raise NotAuthorized


def _record_change(db: Session, before: _Standing, after: models.User, by: int) -> None:
    if after.role != before.role:
        audit_log.record(db, Event.ROLE_CHANGED, after.id, role=after.role, by=by)
    if after.is_active != before.is_active:
        event = Event.ACCOUNT_ENABLED if after.is_active else Event.ACCOUNT_DISABLED
        audit_log.record(db, event, after.id, by=by)

"""Accounts: signing up, changing, deleting, looking up."""

from collections.abc import Sequence

from sqlalchemy import delete, insert, select, true, update
from sqlalchemy.orm import Session

from app import audit, models, outbox, passwords
from app.audit import Event
from app.errors import NotAuthenticated, UserNotFound, WrongPassword
from app.schemas.types import canonical_email
from app.schemas.user import UserChange, UserIn


def sign_up(db: Session, new: UserIn) -> models.User:
    """Make the account, and have its address verified.

    The database refuses an e-mail address or username that is taken, whoever asks at once. Hashes the password: call it
    through `passwords.in_hashing_thread`.
    """
    values = {
        "email": new.email,
        "email_canonical": canonical_email(new.email),
        "password_hash": passwords.hash_password(new.password),
    }
    if new.username is not None:
        values["username"] = new.username
    user = db.scalars(insert(models.User).values(values).returning(models.User)).one()
    audit.record(db, Event.SIGNED_UP, user.id)
    outbox.post(db, "email_verification", user.email)
    return user


def get(db: Session, user_id: int) -> models.User:
    """The account. Raises `UserNotFound`."""
    user = db.get(models.User, user_id)
    if user is None:
        raise UserNotFound(user_id)
    return user


def list_all(
    db: Session,
    *,
    after_id: int,
    limit: int,
    skip: int,
    email: str | None,
    role: models.Role | None,
    is_active: bool | None,
) -> Sequence[models.User]:
    """Accounts by ascending id, after one of them, that fit every filter given."""
    statement = select(models.User).where(models.User.id > after_id)
    if email is not None:
        statement = statement.where(models.User.email_canonical == canonical_email(email))
    if role is not None:
        statement = statement.where(models.User.role == role)
    if is_active is not None:
        statement = statement.where(models.User.is_active == is_active)
    return db.scalars(statement.order_by(models.User.id).limit(limit).offset(skip)).all()


def change(db: Session, caller: models.User, session_id: int, user_id: int, wanted: UserChange) -> models.User:
    """Change the caller's own account, or, for admins, anybody's.

    A new password or a disabled account ends the account's sessions, except the one the change was made in. Of a new
    password or e-mail address, the address that the account had is told.
    Hashes passwords: call it through `passwords.in_hashing_thread`. Raises `UserNotFound`, `WrongPassword`,
    `NotAuthenticated` where the caller's own account is deleted meanwhile.
    """
    needs_password = caller.id == user_id and (wanted.email is not None or wanted.password is not None)
    if needs_password and not passwords.verify(wanted.current_password or "", caller.password_hash)[0]:
        raise WrongPassword
    values: dict[str, object] = {}
    if wanted.username is not None:
        values["username"] = wanted.username
    if wanted.email is not None:
        values |= {"email": wanted.email, "email_canonical": canonical_email(wanted.email)}
    if wanted.password is not None:
        values["password_hash"] = passwords.hash_password(wanted.password)
    if caller.is_admin:
        values |= wanted.model_dump(include={"role", "is_active"}, exclude_none=True)
    if not values:
        return get(db, user_id)
    # Locked, so that of two changes at once each tells the address that it took the place of.
    before = db.execute(
        select(models.User.email, models.User.email_canonical).where(models.User.id == user_id).with_for_update()
    ).one_or_none()
    if before is None:
        raise NotAuthenticated if caller.id == user_id else UserNotFound(user_id)
    has_new_email = values.get("email_canonical", before.email_canonical) != before.email_canonical
    if has_new_email:
        values["email_verified_at"] = None
    # The password that was verified must still be the password: of two changes at once, one is refused.
    still = models.User.password_hash == caller.password_hash if needs_password else true()
    user = db.scalars(
        update(models.User)
        .where(models.User.id == user_id, still)
        .values(values)
        .returning(models.User)
        .execution_options(populate_existing=True)
    ).one_or_none()
    if user is None:
        raise WrongPassword if needs_password else UserNotFound(user_id)
    if has_new_email:
        audit.record(db, Event.EMAIL_CHANGED, user_id)
        outbox.post(db, "email_changed", before.email)
        outbox.post(db, "email_verification", user.email)
    if wanted.password is not None:
        outbox.post(db, "password_changed", before.email)
    if wanted.password is not None or values.get("is_active") is False:
        db.execute(delete(models.Session).where(models.Session.user_id == user_id, models.Session.id != session_id))
    return user


def remove(db: Session, user_id: int) -> None:
    """Delete the account with its posts, votes and sessions. Raises `UserNotFound`.

    Rows that voters lock are locked in their order (users, posts, counts; each ascending), so that neither waits for
    the other in a circle.
    """
    if db.scalar(select(models.User.id).where(models.User.id == user_id).with_for_update()) is None:
        raise UserNotFound(user_id)
    own_posts = select(models.Post.id).where(models.Post.owner_id == user_id)
    db.execute(own_posts.order_by(models.Post.id).with_for_update())
    voted = select(models.Vote.post_id).where(models.Vote.user_id == user_id)
    db.execute(
        select(models.PostStats.post_id)
        .where(models.PostStats.post_id.in_(own_posts.union_all(voted)))
        .order_by(models.PostStats.post_id)
        .with_for_update(key_share=True)
    )
    db.execute(delete(models.User).where(models.User.id == user_id))
    audit.record(db, Event.ACCOUNT_DELETED, user_id)

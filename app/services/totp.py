"""Two-factor authentication: TOTP codes (RFC 6238) and recovery codes.

A code is accepted once, also under concurrent use: one statement in the sign-in's transaction decides.
"""

import base64
import hashlib
import io
import logging
import re
import secrets
import time
from collections.abc import Callable
from functools import partial

import pyotp
import segno
from pyotp.utils import strings_equal
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as insert_or_update
from sqlalchemy.orm import Session

from app import models
from app.database.sessions import transaction
from app.errors import (
    InvalidCredentials,
    NotAuthenticated,
    OtpRequired,
    TotpEnabled,
    TotpNotFound,
    WrongCode,
    WrongPassword,
)
from app.models.security_event import Event
from app.schemas.totp import TotpSecret, TotpState
from app.security import attempt_limits, audit_log, encryption, passwords

logger = logging.getLogger("app.totp")

ISSUER = "Social posts"  # Shown above the code in the authenticator app.
STEP_SECONDS = 30
# Number of steps by which a code may be early or late, for inexact clocks and slow typing.
STEPS_ASIDE = 1
RECOVERY_CODE_COUNT = 10
# 80 bits cannot be guessed, so a fast hash protects them, and no attempt counter is needed.
RECOVERY_CODE_BYTES = 10
_CODE = re.compile(r"[0-9]{6}")
_RECOVERY_CODE = re.compile(r"[a-z2-7]{16}")
_SEPARATORS = re.compile(r"[\s-]")

Use = Callable[[Session], None]


def ask_password(caller: models.User, password: str) -> None:
    """Check the caller's password. Raises `WrongPassword`, `TooManyTries`.

    Takes the time of one hash. Call it through `passwords.in_hashing_thread`, without a database connection.
    """
    tries = f"password:{caller.id}"
    attempt_limits.spend(attempt_limits.CODE_OF_ACCOUNT, tries, password_of=caller.id)
    if not passwords.verify(password, caller.password_hash)[0]:
        raise WrongPassword
    attempt_limits.give_back(attempt_limits.CODE_OF_ACCOUNT, tries, password_of=caller.id)


def begin(db: Session, caller: models.User) -> TotpSecret:
    """Create a secret for the caller, replacing an unconfirmed one.

    Raises `TotpEnabled`. Call it after `ask_password`. Raises `WrongPassword` if the password was changed since then.
    """
    _lock_verified(db, caller)
    secret = pyotp.random_base32()
    values = {"sealed_secret": encryption.encrypt(secret.encode()), "last_step": 0, "created_at": func.now()}
    begun = (
        insert_or_update(models.Totp)
        .values(user_id=caller.id, **values)
        .on_conflict_do_update(index_elements=["user_id"], set_=values, where=models.Totp.confirmed_at.is_(None))
        .returning(models.Totp.user_id)
    )
    if db.scalar(begun) is None:
        raise TotpEnabled
    uri = pyotp.TOTP(secret).provisioning_uri(name=caller.email, issuer_name=ISSUER)
    return TotpSecret(secret=secret, uri=uri, qr_svg=_svg(uri))


def confirm(db: Session, caller: models.User, code: str) -> list[str]:
    """Enable the second factor; return the recovery codes, stored only as hashes.

    Raises `TotpNotFound`, `TotpEnabled`, `WrongCode`, and `TooManyTries`. Attempts count even if `db` is rolled back.
    Raises `NotAuthenticated` if, since the request was authenticated, the account was deleted or disabled, or its
    password changed or reset. That ended sessions of the account, and an ended session must not lock its owner out.
    """
    if not _lock(db, caller):
        raise NotAuthenticated
    totp = db.scalar(select(models.Totp).where(models.Totp.user_id == caller.id).with_for_update())
    if totp is None:
        raise TotpNotFound
    if totp.confirmed_at is not None:
        raise TotpEnabled
    step = _check_code(totp, _normalize(code))
    if step is None:
        audit_log.record_apart(Event.TOTP_FAILED, caller.id)
        raise WrongCode
    db.execute(
        update(models.Totp)
        .where(models.Totp.user_id == caller.id)
        .values(confirmed_at=func.now(), last_step=step, **_reencrypted(totp))
    )
    codes = [_recovery_code() for _ in range(RECOVERY_CODE_COUNT)]
    hashes = [{"user_id": caller.id, "code_hash": _hash(_normalize(code))} for code in codes]
    db.execute(insert(models.RecoveryCode), hashes)
    audit_log.record(db, Event.TOTP_ENABLED, caller.id)
    return codes


def state(db: Session, user_id: int) -> TotpState:
    """Return whether sign-in needs a code, and the number of unused recovery codes."""
    enabled = select(models.Totp.user_id).where(models.Totp.user_id == user_id, models.Totp.confirmed_at.is_not(None))
    left = select(func.count()).where(models.RecoveryCode.user_id == user_id)
    is_enabled, count = db.execute(select(enabled.exists(), left.scalar_subquery())).one()
    return TotpState(enabled=is_enabled, recovery_codes_left=count)


def remove(db: Session, caller: models.User) -> None:
    """Disable the caller's second factor. Raises `TotpNotFound`.

    Call it after `ask_password`. Raises `WrongPassword` if the password was changed since then.
    """
    _lock_verified(db, caller)
    removed = db.execute(
        delete(models.Totp).where(models.Totp.user_id == caller.id).returning(models.Totp.confirmed_at)
    ).one_or_none()
    if removed is None:
        raise TotpNotFound
    if removed.confirmed_at is not None:
        audit_log.record(db, Event.TOTP_DISABLED, caller.id)


def demand(user_id: int, otp: str | None) -> Use:
    """Check the second factor; return a function that marks the code as used.

    Call the returned function in the sign-in's transaction. Raises `OtpRequired`, `TooManyTries`, and
    `InvalidCredentials` for a wrong or used code; the returned function raises this, too. Holds no connection when it
    returns.

    Recovery codes cannot be guessed, so attempts with them are not counted. An attacker who knows only the password
    and keeps guessing TOTP codes therefore cannot lock out an owner with a recovery code.
    """
    with transaction() as db:
        totp = db.scalar(
            select(models.Totp).where(models.Totp.user_id == user_id, models.Totp.confirmed_at.is_not(None))
        )
    if totp is None:
        return lambda _: None
    code = _normalize(otp or "")
    if not code:
        raise OtpRequired
    if _RECOVERY_CODE.fullmatch(code):
        return partial(_use_recovery_code, user_id=user_id, code_hash=_hash(code))
    step = _check_code(totp, code)
    if step is None:
        audit_log.record_apart(Event.TOTP_FAILED, user_id)
        raise InvalidCredentials
    return partial(_use_step, totp=totp, step=step)


def _use_step(db: Session, totp: models.Totp, step: int) -> None:
    used = (
        update(models.Totp)
        .where(models.Totp.user_id == totp.user_id, models.Totp.last_step < step)
        .values(last_step=step, **_reencrypted(totp))
        .returning(models.Totp.user_id)
    )
    _refuse_unless_used(db.scalar(used), totp.user_id)


def _use_recovery_code(db: Session, user_id: int, code_hash: bytes) -> None:
    used = (
        delete(models.RecoveryCode)
        .where(models.RecoveryCode.user_id == user_id, models.RecoveryCode.code_hash == code_hash)
        .returning(models.RecoveryCode.user_id)
    )
    _refuse_unless_used(db.scalar(used), user_id)
    audit_log.record(db, Event.RECOVERY_CODE_USED, user_id)


def _refuse_unless_used(used: int | None, user_id: int) -> None:
    if used is None:
        audit_log.record_apart(Event.TOTP_FAILED, user_id)  # The transaction is about to be rolled back.
        raise InvalidCredentials


def _lock_verified(db: Session, caller: models.User) -> None:
    """Lock the account of a caller whose password was just verified.

    Raises `WrongPassword`.
    """
    if not _lock(db, caller):
        raise WrongPassword


def _lock(db: Session, caller: models.User) -> bool:
    """Lock the password until the transaction ends; return False if it has changed."""
    same = select(models.User.id).where(
        models.User.id == caller.id, models.User.password_hash == caller.password_hash, models.User.is_active
    )
    return db.scalar(same.with_for_update(read=True)) is not None


def _check_code(totp: models.Totp, code: str) -> int | None:
    """Return the time step of a code; None for a wrong one, which costs an attempt."""
    tries = str(totp.user_id)
    attempt_limits.spend(attempt_limits.CODE_OF_ACCOUNT, tries)
    step = _step_of(totp, code)
    if step is not None:
        attempt_limits.give_back(attempt_limits.CODE_OF_ACCOUNT, tries)
    return step


def _step_of(totp: models.Totp, code: str) -> int | None:
    try:
        secret, _ = encryption.decrypt(totp.sealed_secret)
    except encryption.Undecryptable:
        logger.error("TOTP secret cannot be decrypted user_id=%s; set SECRET_KEY_PREVIOUS", totp.user_id)  # noqa: TRY400
        return None
    if not _CODE.fullmatch(code):
        return None
    generator = pyotp.TOTP(secret.decode(), interval=STEP_SECONDS)
    now = int(time.time()) // STEP_SECONDS
    near = range(now - STEPS_ASIDE, now + STEPS_ASIDE + 1)
    return next((step for step in near if strings_equal(generator.generate_otp(step), code)), None)


def _reencrypted(totp: models.Totp) -> dict[str, bytes]:
    """Return the secret re-encrypted with the newest key, if the key was older."""
    _, sealed = encryption.decrypt(totp.sealed_secret)
    return {"sealed_secret": sealed} if sealed else {}


def _normalize(code: str) -> str:
    """Remove spaces and hyphens, and lower the case: users type codes in any form."""
    return _SEPARATORS.sub("", code).lower()


def _recovery_code() -> str:
    code = base64.b32encode(secrets.token_bytes(RECOVERY_CODE_BYTES)).decode().lower()
    return "-".join(code[place : place + 4] for place in range(0, len(code), 4))


def _hash(code: str) -> bytes:
    return hashlib.sha256(code.encode()).digest()


def _svg(uri: str) -> str:
    picture = io.BytesIO()
    # A white background, so that apps can scan the code on a dark page, too.
    segno.make(uri, error="m", micro=False).save(picture, kind="svg", scale=4, light="#fff", xmldecl=False, nl=False)
    return picture.getvalue().decode()

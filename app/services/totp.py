"""The second factor: codes of an authenticator app (TOTP, RFC 6238), and recovery codes for when the app is lost.

A code is accepted once, also if two requests send it at the same time: one statement in the sign-in's
transaction decides.
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

ISSUER = "Social posts"  # The name above the code in the authenticator.
STEP_SECONDS = 30
# How many steps a device's clock may be off, or its owner slow.
STEPS_ASIDE = 1
RECOVERY_CODE_COUNT = 10
# 80 bits: past guessing, so a fast hash keeps them, and no limit has to count tries at them.
RECOVERY_CODE_BYTES = 10
_CODE = re.compile(r"[0-9]{6}")
_RECOVERY_CODE = re.compile(r"[a-z2-7]{16}")
_FILLING = re.compile(r"[\s-]")

Use = Callable[[Session], None]


def ask_password(caller: models.User, password: str) -> None:
    """Raises `WrongPassword` unless it is the caller's; `TooManyTries` where that was asked too often.

    Takes the time of one hash: call it through `passwords.in_hashing_thread`, holding no connection.
    """
    tries = f"password:{caller.id}"
    attempt_limits.spend(attempt_limits.CODE_OF_ACCOUNT, tries, password_of=caller.id)
    if not passwords.verify(password, caller.password_hash)[0]:
        raise WrongPassword
    attempt_limits.give_back(attempt_limits.CODE_OF_ACCOUNT, tries, password_of=caller.id)


def begin(db: Session, caller: models.User) -> TotpSecret:
    """Make a new secret for the caller, in the place of one that was not confirmed. Raises `TotpEnabled`.

    Call it after `ask_password`: a password changed meanwhile is `WrongPassword`.
    """
    _hold_verified(db, caller)
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
    """From now on signing in needs a code; returns the recovery codes, of which only hashes are kept.

    Raises `TotpNotFound`, `TotpEnabled`, `WrongCode`; `TooManyTries`, which are counted whatever becomes of `db`;
    `NotAuthenticated` where the account is deleted or disabled, or its password changed or reset, meanwhile: that ended
    the caller's session or others, and none of those may lock the owner out.
    """
    if not _hold(db, caller):
        raise NotAuthenticated
    totp = db.scalar(select(models.Totp).where(models.Totp.user_id == caller.id).with_for_update())
    if totp is None:
        raise TotpNotFound
    if totp.confirmed_at is not None:
        raise TotpEnabled
    step = _spend(totp, _plain(code))
    if step is None:
        audit_log.record_apart(Event.TOTP_FAILED, caller.id)
        raise WrongCode
    db.execute(
        update(models.Totp)
        .where(models.Totp.user_id == caller.id)
        .values(confirmed_at=func.now(), last_step=step, **_encrypted_again(totp))
    )
    codes = [_recovery_code() for _ in range(RECOVERY_CODE_COUNT)]
    hashes = [{"user_id": caller.id, "code_hash": _hash(_plain(code))} for code in codes]
    db.execute(insert(models.RecoveryCode), hashes)
    audit_log.record(db, Event.TOTP_ENABLED, caller.id)
    return codes


def state(db: Session, user_id: int) -> TotpState:
    """Whether the user's sign-ins need a code, and how many recovery codes are left."""
    enabled = select(models.Totp.user_id).where(models.Totp.user_id == user_id, models.Totp.confirmed_at.is_not(None))
    left = select(func.count()).where(models.RecoveryCode.user_id == user_id)
    is_enabled, count = db.execute(select(enabled.exists(), left.scalar_subquery())).one()
    return TotpState(enabled=is_enabled, recovery_codes_left=count)


def remove(db: Session, caller: models.User) -> None:
    """Sign the caller in without a code again. Raises `TotpNotFound`; after `ask_password`, as `begin`."""
    _hold_verified(db, caller)
    removed = db.execute(
        delete(models.Totp).where(models.Totp.user_id == caller.id).returning(models.Totp.confirmed_at)
    ).one_or_none()
    if removed is None:
        raise TotpNotFound
    if removed.confirmed_at is not None:
        audit_log.record(db, Event.TOTP_DISABLED, caller.id)


def demand(user_id: int, otp: str | None) -> Use:
    """Return what a sign-in with the right password has to do in its transaction: use up the code.

    Holds no connection when it returns. Raises `OtpRequired`, `TooManyTries`, and `InvalidCredentials` for a
    code that is wrong or was used; the returned function raises the last one too. Recovery codes cannot be
    guessed, so they are not counted. An attacker who knows only the password therefore cannot lock out a user
    who has one.
    """
    with transaction() as db:
        totp = db.scalar(
            select(models.Totp).where(models.Totp.user_id == user_id, models.Totp.confirmed_at.is_not(None))
        )
    if totp is None:
        return lambda _: None
    code = _plain(otp or "")
    if not code:
        raise OtpRequired
    if _RECOVERY_CODE.fullmatch(code):
        return partial(_use_recovery_code, user_id=user_id, code_hash=_hash(code))
    step = _spend(totp, code)
    if step is None:
        audit_log.record_apart(Event.TOTP_FAILED, user_id)
        raise InvalidCredentials
    return partial(_use_step, totp=totp, step=step)


def _use_step(db: Session, totp: models.Totp, step: int) -> None:
    used = (
        update(models.Totp)
        .where(models.Totp.user_id == totp.user_id, models.Totp.last_step < step)
        .values(last_step=step, **_encrypted_again(totp))
        .returning(models.Totp.user_id)
    )
    _only_once(db.scalar(used), totp.user_id)


def _use_recovery_code(db: Session, user_id: int, code_hash: bytes) -> None:
    used = (
        delete(models.RecoveryCode)
        .where(models.RecoveryCode.user_id == user_id, models.RecoveryCode.code_hash == code_hash)
        .returning(models.RecoveryCode.user_id)
    )
    _only_once(db.scalar(used), user_id)
    audit_log.record(db, Event.RECOVERY_CODE_USED, user_id)


def _only_once(used: int | None, user_id: int) -> None:
    if used is None:
        audit_log.record_apart(Event.TOTP_FAILED, user_id)  # The transaction is about to be rolled back.
        raise InvalidCredentials


def _hold_verified(db: Session, caller: models.User) -> None:
    """As `_hold`, for a caller whose password was just verified. Raises `WrongPassword`."""
    if not _hold(db, caller):
        raise WrongPassword


def _hold(db: Session, caller: models.User) -> bool:
    """Keep the password from being changed until the transaction ends; False if it has been since it was read."""
    same = select(models.User.id).where(
        models.User.id == caller.id, models.User.password_hash == caller.password_hash, models.User.is_active
    )
    return db.scalar(same.with_for_update(read=True)) is not None


def _spend(totp: models.Totp, code: str) -> int | None:
    """The time step whose code it is; None where it is of no step near now. A wrong one costs a try."""
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
        logger.error("the second factor of user %s cannot be decrypted: SECRET_KEY changed", totp.user_id)  # noqa: TRY400
        return None
    if not _CODE.fullmatch(code):
        return None
    generator = pyotp.TOTP(secret.decode(), interval=STEP_SECONDS)
    now = int(time.time()) // STEP_SECONDS
    near = range(now - STEPS_ASIDE, now + STEPS_ASIDE + 1)
    return next((step for step in near if strings_equal(generator.generate_otp(step), code)), None)


def _encrypted_again(totp: models.Totp) -> dict[str, bytes]:
    """The secret encrypted with the newest key, where it was with an older one."""
    _, sealed = encryption.decrypt(totp.sealed_secret)
    return {"sealed_secret": sealed} if sealed else {}


def _plain(code: str) -> str:
    """As it is compared: people type the gaps that are there for reading, and capitals."""
    return _FILLING.sub("", code).lower()


def _recovery_code() -> str:
    code = base64.b32encode(secrets.token_bytes(RECOVERY_CODE_BYTES)).decode().lower()
    return "-".join(code[place : place + 4] for place in range(0, len(code), 4))


def _hash(code: str) -> bytes:
    return hashlib.sha256(code.encode()).digest()


def _svg(uri: str) -> str:
    picture = io.BytesIO()
    # White, so that it can be scanned from a dark page too.
    segno.make(uri, error="m", micro=False).save(picture, kind="svg", scale=4, light="#fff", xmldecl=False, nl=False)
    return picture.getvalue().decode()

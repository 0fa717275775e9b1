"""Brute-force protection.

Attempts are counted in PostgreSQL, so limits hold across workers and restarts. A row of `allowances` is an attempt
counter: it has the times of one key's attempts within a limit's period. This is an exact sliding window. A row holds no
more times than the limit allows. Its key is a keyed hash, so the table contains neither e-mail addresses nor names.

An attacker cannot lock out another user permanently. Sign-in attempts are counted by the name as typed, so attempts
with the (public) username do not count for the (private) e-mail address. An address from which that name signed in
within `ADDRESS_KNOWN` has a counter of its own, which attempts from other addresses do not affect. Its row exists
before any attempt (docs/decisions/0008).
"""

import hashlib
import hmac
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn

import psycopg2
from sqlalchemy import Connection, Interval, bindparam, text
from sqlalchemy.exc import SQLAlchemyError

from app.config import get_settings
from app.database.sessions import counting
from app.errors import TooManyTries, Unavailable
from app.models import MailKind
from app.models.security_event import Event
from app.observability import metrics, request_context
from app.security import audit_log

logger = logging.getLogger("app.limits")


@dataclass(frozen=True, slots=True)
class Limit:
    """A maximum of attempts of one kind, per key, in any period of this length."""

    name: str
    most: int
    per: timedelta


SIGN_IN_OF_ACCOUNT = Limit("sign_in_of_account", 10, timedelta(minutes=15))
SIGN_IN_FROM_KNOWN_ADDRESS = Limit("sign_in_from_known_address", 10, timedelta(minutes=15))
SIGN_IN_FROM_ADDRESS = Limit("sign_in_from_address", 50, timedelta(minutes=15))
# Each attempt reveals whether an e-mail address has an account, and costs a hash. A class room or a company shares one
# address.
SIGN_UP_FROM_ADDRESS = Limit("sign_up_from_address", 100, timedelta(hours=1))
# The invites of one account bound how many accounts its owner can bring in a day.
INVITE_OF_ACCOUNT = Limit("invite_of_account", 20, timedelta(days=1))
# An export reads everything of an account. Several, because a connection may break.
EXPORT_OF_ACCOUNT = Limit("export_of_account", 5, timedelta(hours=1))
# Deliveries that the owner of a webhook asks for: tests and repetitions.
WEBHOOK_TEST_OF_ACCOUNT = Limit("webhook_test_of_account", 60, timedelta(hours=1))
# Correct passwords of an account from one address, because each also costs a hash. They are counted after the hash, so
# attempts without the password do not count. A script does not use up the limit of its owner at another address.
# 100 hashes are 25 s of one core, and enough for a test suite that signs in before each test.
RIGHT_PASSWORD_OF_ACCOUNT = Limit("right_password_of_account", 100, timedelta(minutes=15))
# The same for all accounts together, because one person may have many: 250 s of one core. A school or a company shares
# one address.
RIGHT_PASSWORD_FROM_ADDRESS = Limit("right_password_from_address", 1_000, timedelta(minutes=15))
# Password confirmations (`current_password`) of a signed-in user.
PASSWORD_OF_ACCOUNT = Limit("password_of_account", 10, timedelta(minutes=15))
CODE_OF_ACCOUNT = Limit("code_of_account", 5, timedelta(minutes=15))
# Each change reveals whether the new address has an account, as a sign-up does, and sends a mail to it.
EMAIL_CHANGE_OF_ACCOUNT = Limit("email_change_of_account", 5, timedelta(hours=1))
EMAIL_CHANGE_FROM_ADDRESS = Limit("email_change_from_address", 20, timedelta(hours=1))
# Per recipient and kind, so that mails of one kind do not suppress those of another. No period is longer than the
# lifetime of a mailed token. So when a mail is dropped, the mailbox has a link that still works.
MAIL_TO_ADDRESS: dict[MailKind, Limit] = {
    "password_reset": Limit("mail_to_address_password_reset", 3, timedelta(hours=1)),
    "email_verification": Limit("mail_to_address_email_verification", 3, timedelta(hours=1)),
    "password_changed": Limit("mail_to_address_password_changed", 5, timedelta(hours=1)),
    "email_changed": Limit("mail_to_address_email_changed", 5, timedelta(hours=1)),
    "webhook_disabled": Limit("mail_to_address_webhook_disabled", 5, timedelta(hours=1)),
}
# Per kind, to all unverified addresses of one mailbox: `ada+1@` and `ada+2@` count as `ada@` (RFC 5233).
MAIL_TO_UNVERIFIED_MAILBOX = Limit("mail_to_unverified_mailbox", 10, timedelta(hours=1))
# Per account that the mail is about, for all recipients: an account that changes its address repeatedly mails many.
MAIL_OF_ACCOUNT: dict[MailKind, Limit] = {
    "email_verification": Limit("mail_of_account_email_verification", 5, timedelta(hours=1)),
    "password_changed": Limit("mail_of_account_password_changed", 5, timedelta(hours=1)),
    "email_changed": Limit("mail_of_account_email_changed", 5, timedelta(hours=1)),
}
MAIL_FROM_ADDRESS = Limit("mail_from_address", 20, timedelta(hours=1))

ADDRESS_KNOWN = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class SignInTry:
    """A counted sign-in attempt, with the counters that it used.

    `user_id` is the account that has this name, if there is one. Rows are locked in this order: known address, account,
    address, then correct passwords of the account and of the address.
    """

    name: str
    user_id: int | None
    used: tuple[tuple[Limit, str], ...]


def spend(limit: Limit, key: str, *, password_of: int | None = None) -> None:
    """Count one attempt before it is checked, in a transaction of its own.

    Counting first means that a thousand concurrent attempts cannot be checked before the first is counted.
    `password_of` is the account whose password is checked, if it is a password.
    Raises `TooManyTries` (429 with `Retry-After`) past the limit, or past that of correct passwords. Raises
    `Unavailable` if the attempt cannot be counted.
    """
    if get_settings().rate_limits_enabled:
        with _counting() as connection:
            if password_of is not None:
                _require_room_for_right_password(connection, password_of)
            _spend(connection, limit, key)


def claim(name: str, key: str, *, kept: timedelta) -> bool:
    """Claim a single-use value; return False if it was claimed before, within `kept`.

    It holds on all servers together, and also without rate limits. Raises `Unavailable`.
    """
    with _counting() as connection:
        return connection.execute(_SPEND, _bound(Limit(name, 1, kept), key)).first() is not None


def release(name: str, key: str) -> None:
    """Give a claimed value back. If that fails, it stays claimed until its time is over."""
    try:
        with _counting() as connection:
            connection.execute(_GIVE_BACK, _bound(Limit(name, 1, timedelta()), key))
    except Unavailable:
        logger.warning("could not release a claim: it lasts until its time is over")


def is_within(limit: Limit, key: str) -> bool:
    """Count one attempt as `spend` does; False past the limit. Raises `Unavailable`."""
    try:
        spend(limit, key)
    except TooManyTries:
        return False
    return True


def give_back(limit: Limit, key: str, *, password_of: int | None = None) -> None:
    """Uncount an attempt with a correct password.

    It is counted as a correct password instead.
    """
    _after_success([(limit, key)], password_of=password_of)


def spend_right_password(user_id: int) -> None:
    """Count a hash for the account that checks no password. Raises as `spend` does."""
    if get_settings().rate_limits_enabled:
        with _counting() as connection:
            for limit, key in _right_password(user_id):
                _spend(connection, limit, key)


def spend_sign_in(name: str, user_id: int | None = None) -> SignInTry:
    """Count one sign-in attempt for the canonical name and the request's address.

    It counts for both or for neither. `user_id` is the account that has this name, if there is one. Raises as `spend`
    does.
    """
    if not get_settings().rate_limits_enabled:
        return SignInTry(name, user_id, ())
    address = request_context.client_address.get()
    with _counting() as connection:
        _require_room_for_right_password(connection, user_id)
        used = [(SIGN_IN_OF_ACCOUNT, name)]
        if address is not None:
            here = _here(name, address)
            if _is_held(connection, SIGN_IN_FROM_KNOWN_ADDRESS, here):
                used = [(SIGN_IN_FROM_KNOWN_ADDRESS, here)]
            used.append((SIGN_IN_FROM_ADDRESS, address))
        for limit, key in used:
            _spend(connection, limit, key)
    return SignInTry(name, user_id, tuple(used))


def settle_sign_in(made: SignInTry) -> None:
    """Uncount a successful sign-in attempt and remember its address as known."""
    _after_success(made.used, name=made.name, password_of=made.user_id)


def give_back_sign_in(made: SignInTry) -> None:
    """Uncount a sign-in attempt with a correct password that still needs a code."""
    _after_success(made.used, password_of=made.user_id)


def know_address(name: str) -> None:
    """Remember the request's address as known for this (canonical) name.

    Attempts from other addresses then do not count at this one. For users who authenticated with a mailed token
    instead of a sign-in.
    """
    _after_success((), name=name)


def _after_success(used: Sequence[tuple[Limit, str]], name: str | None = None, password_of: int | None = None) -> None:
    address = request_context.client_address.get()
    known = (SIGN_IN_FROM_KNOWN_ADDRESS, _here(name, address)) if name is not None and address is not None else None
    if not get_settings().rate_limits_enabled or not (used or known):
        return
    try:
        with _counting() as connection:
            if known:
                connection.execute(_KNOW, {**_bound(*known), "known": ADDRESS_KNOWN})
            for limit, key in used:
                connection.execute(_GIVE_BACK, _bound(limit, key))
            if password_of is not None:
                for limit, key in _right_password(password_of):
                    # Concurrent attempts may pass the limit by this one. It is not refused: the password was correct.
                    connection.execute(_SPEND, _bound(limit, key))
    except Unavailable:
        # The attempt counts until its period is over, which is no reason to refuse a correct password.
        logger.warning("could not uncount a successful attempt: it counts until its period is over")


# The check of the limit and the increment run while the row is locked, so that no concurrent attempt is missed.
_SPEND = text("""
    INSERT INTO allowances AS held (limit_name, key, used_at, expires_at)
    VALUES (:name, :key, ARRAY[now()], now() + :per)
    ON CONFLICT (limit_name, key) DO UPDATE SET
        used_at = ARRAY(SELECT used FROM unnest(held.used_at) AS used WHERE used > now() - :per) || now(),
        expires_at = greatest(held.expires_at, excluded.expires_at)
    WHERE (SELECT count(*) FROM unnest(held.used_at) AS used WHERE used > now() - :per) < :most
    RETURNING held.id
""").bindparams(bindparam("per", type_=Interval))

# NULL below the limit.
_SECONDS_LEFT = text("""
    SELECT CAST(ceil(extract(epoch FROM min(used) + :per - now())) AS integer)
    FROM allowances, unnest(used_at) AS used
    WHERE limit_name = :name AND key = :key AND used > now() - :per
    HAVING count(*) >= :most
""").bindparams(bindparam("per", type_=Interval))

# Removes the latest attempt. It may be another one, made in the meantime, but the count is the same.
_GIVE_BACK = text("""
    UPDATE allowances SET used_at = trim_array(used_at, 1)
    WHERE limit_name = :name AND key = :key AND cardinality(used_at) > 0
""")

_IS_HELD = text("SELECT FROM allowances WHERE limit_name = :name AND key = :key AND expires_at > now()")

_KNOW = text("""
    INSERT INTO allowances (limit_name, key, used_at, expires_at) VALUES (:name, :key, '{}', now() + :known)
    ON CONFLICT (limit_name, key) DO UPDATE SET expires_at = excluded.expires_at
""").bindparams(bindparam("known", type_=Interval))


def _spend(connection: Connection, limit: Limit, key: str) -> None:
    values = _bound(limit, key)
    if connection.execute(_SPEND, values).first() is None:
        # In the meantime attempts may have expired, or the row may have been deleted with its last attempt.
        _refuse(limit, connection.scalar(_SECONDS_LEFT, values) or 1)


def _right_password(user_id: int | None) -> Iterator[tuple[Limit, str]]:
    """The counters of a correct password.

    The same number without an account, so that timing reveals nothing.
    """
    address = request_context.client_address.get()
    yield RIGHT_PASSWORD_OF_ACCOUNT, _here(str(user_id), address or "")
    if address is not None:
        yield RIGHT_PASSWORD_FROM_ADDRESS, address


def _require_room_for_right_password(connection: Connection, user_id: int | None) -> None:
    for limit, key in _right_password(user_id):
        if (seconds := connection.scalar(_SECONDS_LEFT, _bound(limit, key))) is not None:
            _refuse(limit, seconds)


def _refuse(limit: Limit, seconds: int) -> NoReturn:
    audit_log.record(None, Event.LIMIT_REACHED, None, limit=limit.name)
    metrics.limit_reached(limit.name)
    raise TooManyTries(max(1, seconds))


def _is_held(connection: Connection, limit: Limit, key: str) -> bool:
    return connection.execute(_IS_HELD, _bound(limit, key)).first() is not None


def _bound(limit: Limit, key: str) -> dict[str, object]:
    secret = get_settings().signing_secret.encode()
    digest = hmac.new(
        secret, f"{limit.name}:{request_context.network_of(key)}".encode(errors="surrogatepass"), hashlib.sha256
    ).digest()
    return {"name": limit.name, "key": digest, "per": limit.per, "most": limit.most}


def _here(name: str, address: str) -> str:
    return f"{request_context.network_of(address)} {name}"


@contextmanager
def _counting() -> Iterator[Connection]:
    """A transaction for counting, committed when the block ends.

    Raises `Unavailable` for any database error.
    """
    try:
        with counting() as connection:
            yield connection
    except (SQLAlchemyError, psycopg2.Error) as error:
        logger.error("failed to count an attempt: %s", type(error).__name__)  # noqa: TRY400 - the cause is in the type.
        raise Unavailable from error

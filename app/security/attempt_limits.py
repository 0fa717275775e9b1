"""Guessing is slow: how many tries somebody has, counted in PostgreSQL, so that workers share it and restarts keep it.

A row of `allowances` has the times of the tries that one key made within a limit's span: a true sliding window, with no
error. It can hold no more of them than the limit allows. Its key is a keyed hash: neither e-mail addresses nor names
stand there.

Nobody can lock a stranger out for good. Tries to sign in are counted by the name as it was typed, so whoever knows
only the (public) username uses up nothing of the (private) e-mail address. And an address from which that name signed
in within `ADDRESS_KNOWN` has an allowance of its own, which tries from elsewhere do not touch. It is a row that is
there before any try is (docs/decisions/0008).
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
    """At most so many tries of one kind, for one key, in any such span of time."""

    name: str
    most: int
    per: timedelta


SIGN_IN_OF_ACCOUNT = Limit("sign_in_of_account", 10, timedelta(minutes=15))
SIGN_IN_FROM_KNOWN_ADDRESS = Limit("sign_in_from_known_address", 10, timedelta(minutes=15))
SIGN_IN_FROM_ADDRESS = Limit("sign_in_from_address", 50, timedelta(minutes=15))
# Each tells whether an e-mail address has an account, and takes the time of a hash. A class room or a company shares
# one address.
SIGN_UP_FROM_ADDRESS = Limit("sign_up_from_address", 100, timedelta(hours=1))
# Right passwords of an account from one address: each costs a hash, too. They are counted after the hash, so a stranger
# without the password uses up nothing. A script uses up nothing of its owner's at another address.
# 100 hashes are 25 s of one core, and enough for a test suite that signs in before each test.
RIGHT_PASSWORD_OF_ACCOUNT = Limit("right_password_of_account", 100, timedelta(minutes=15))
# Those of all accounts, because one person may have many: 250 s of one core. A school or a company shares one address.
RIGHT_PASSWORD_FROM_ADDRESS = Limit("right_password_from_address", 1_000, timedelta(minutes=15))
# Of whoever is signed in, and says the password again for what matters most.
PASSWORD_OF_ACCOUNT = Limit("password_of_account", 10, timedelta(minutes=15))
CODE_OF_ACCOUNT = Limit("code_of_account", 5, timedelta(minutes=15))
# Each change asks whether the new address has an account, as a sign-up does, and mails it.
EMAIL_CHANGE_OF_ACCOUNT = Limit("email_change_of_account", 5, timedelta(hours=1))
EMAIL_CHANGE_FROM_ADDRESS = Limit("email_change_from_address", 20, timedelta(hours=1))
# Per recipient, and a limit for each kind, so that mails of one kind do not suppress those of another. No window is
# longer than a mailed token lives: where a mail is dropped, the mailbox has a link that works.
MAIL_TO_ADDRESS: dict[MailKind, Limit] = {
    "password_reset": Limit("mail_to_address_password_reset", 3, timedelta(hours=1)),
    "email_verification": Limit("mail_to_address_email_verification", 3, timedelta(hours=1)),
    "password_changed": Limit("mail_to_address_password_changed", 5, timedelta(hours=1)),
    "email_changed": Limit("mail_to_address_email_changed", 5, timedelta(hours=1)),
}
# To all addresses of one mailbox that were never verified, for each kind: `ada+1@` and `ada+2@` are `ada@` (RFC 5233).
MAIL_TO_UNVERIFIED_MAILBOX = Limit("mail_to_unverified_mailbox", 10, timedelta(hours=1))
# Per account that the mail is about, wherever it goes: whose address changes again and again mails many recipients.
MAIL_OF_ACCOUNT: dict[MailKind, Limit] = {
    "email_verification": Limit("mail_of_account_email_verification", 5, timedelta(hours=1)),
    "password_changed": Limit("mail_of_account_password_changed", 5, timedelta(hours=1)),
    "email_changed": Limit("mail_of_account_email_changed", 5, timedelta(hours=1)),
}
MAIL_FROM_ADDRESS = Limit("mail_from_address", 20, timedelta(hours=1))

ADDRESS_KNOWN = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class SignInTry:
    """A try to sign in that was counted: what it used.

    `user_id` is the account that has this name, if there is one. Rows are locked in this order: that of the known
    address, of the account, of the address; then those of right passwords, of the account and of the address.
    """

    name: str
    user_id: int | None
    used: tuple[tuple[Limit, str], ...]


def spend(limit: Limit, key: str, *, password_of: int | None = None) -> None:
    """Count one try before it is made, at once and for good, whatever becomes of the request's transaction.

    Tries are counted before they are judged, so that a thousand at once are not judged before the first is counted.
    `password_of` is the account whose password is tried, if it is one.
    Raises `TooManyTries` (429 with `Retry-After`) past the limit, and past that of right passwords; `Unavailable` where
    it cannot be counted.
    """
    if get_settings().rate_limits_enabled:
        with _counting() as connection:
            if password_of is not None:
                _require_room_for_right_password(connection, password_of)
            _spend(connection, limit, key)


def is_within(limit: Limit, key: str) -> bool:
    """Count one try as `spend` does; False past the limit. Raises `Unavailable`."""
    try:
        spend(limit, key)
    except TooManyTries:
        return False
    return True


def give_back(limit: Limit, key: str, *, password_of: int | None = None) -> None:
    """Take back a try that turned out to be no guess: the password was right, and is counted as such."""
    _after_success([(limit, key)], password_of=password_of)


def spend_right_password(user_id: int) -> None:
    """Count a hash for the account that takes no password of its own. Raises as `spend` does."""
    if get_settings().rate_limits_enabled:
        with _counting() as connection:
            for limit, key in _right_password(user_id):
                _spend(connection, limit, key)


def spend_sign_in(name: str, user_id: int | None = None) -> SignInTry:
    """Count one try to sign in with this name (canonical), of the account and of the request's address, or neither.

    `user_id` is the account that has this name, if there is one. Raises as `spend` does.
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
    """Whoever made the try has signed in: it is taken back, and the address is known from now on."""
    _after_success(made.used, name=made.name, password_of=made.user_id)


def give_back_sign_in(made: SignInTry) -> None:
    """Take back a try to sign in whose password was right, but not enough: a code is due."""
    _after_success(made.used, password_of=made.user_id)


def know_address(name: str) -> None:
    """Whoever has this name (canonical) is at the request's address: tries from elsewhere are not counted there.

    For those who proved who they are otherwise than by signing in: with a token that was mailed to them.
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
                    # Of those that are verified at this moment, one may be past the limit: it was right all the same.
                    connection.execute(_SPEND, _bound(limit, key))
    except Unavailable:
        # The try counts until its time is over, which is no reason to refuse who got it right.
        logger.warning("a try could not be given back")


# Whether there is room is asked, and the try is added, while the row is locked: of many at once none is overlooked.
_SPEND = text("""
    INSERT INTO allowances AS held (limit_name, key, used_at, expires_at)
    VALUES (:name, :key, ARRAY[now()], now() + :per)
    ON CONFLICT (limit_name, key) DO UPDATE SET
        used_at = ARRAY(SELECT used FROM unnest(held.used_at) AS used WHERE used > now() - :per) || now(),
        expires_at = greatest(held.expires_at, excluded.expires_at)
    WHERE (SELECT count(*) FROM unnest(held.used_at) AS used WHERE used > now() - :per) < :most
    RETURNING held.id
""").bindparams(bindparam("per", type_=Interval))

# None while there is room.
_SECONDS_LEFT = text("""
    SELECT CAST(ceil(extract(epoch FROM min(used) + :per - now())) AS integer)
    FROM allowances, unnest(used_at) AS used
    WHERE limit_name = :name AND key = :key AND used > now() - :per
    HAVING count(*) >= :most
""").bindparams(bindparam("per", type_=Interval))

# The latest try goes, which may be another's, made in the meantime: how many are left is the same.
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
        # There may be room since, or the row may have gone with the last of its tries.
        _refuse(limit, connection.scalar(_SECONDS_LEFT, values) or 1)


def _right_password(user_id: int | None) -> Iterator[tuple[Limit, str]]:
    """What a right password uses up. As much is looked up without an account, so that the time does not tell."""
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
    """A transaction for counting, committed when the block ends. Raises `Unavailable` for whatever goes wrong in it."""
    try:
        with counting() as connection:
            yield connection
    except (SQLAlchemyError, psycopg2.Error) as error:
        logger.error("tries cannot be counted: %s", type(error).__name__)  # noqa: TRY400 - the cause is in the type.
        raise Unavailable from error

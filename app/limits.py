"""Guessing is slow: how many tries somebody has, counted in PostgreSQL, so that workers share it and restarts keep it."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Limit:
    """At most so many tries of one kind, for one key, in any such span of time."""

    name: str
    most: int
    per: timedelta


SIGN_IN_OF_ACCOUNT = Limit("sign_in_of_account", 10, timedelta(minutes=15))
SIGN_IN_FROM_ADDRESS = Limit("sign_in_from_address", 50, timedelta(minutes=15))
SIGN_UP_FROM_ADDRESS = Limit("sign_up_from_address", 20, timedelta(hours=1))
CODE_OF_ACCOUNT = Limit("code_of_account", 5, timedelta(minutes=15))
MAIL_TO_ACCOUNT = Limit("mail_to_account", 3, timedelta(hours=1))
MAIL_FROM_ADDRESS = Limit("mail_from_address", 20, timedelta(hours=1))


def spend(limit: Limit, key: str) -> None:
    """Count one try before it is made, at once and for good, whatever becomes of the request's transaction.

    Tries are counted before they are judged, so that a thousand at once are not judged before the first is counted.
    Raises `TooManyTries` (429 with `Retry-After`) past the limit; `Unavailable` where it cannot be counted.
    """


def give_back(limit: Limit, key: str) -> None:
    """Take back a try that turned out to be no guess: the password was right."""

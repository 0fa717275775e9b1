"""Password hashing. The only importer of passlib."""

import asyncio
import logging
import os
import sys
import threading
import unicodedata
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import lru_cache, partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from passlib.context import CryptContext
from passlib.exc import PasswordSizeError
from starlette.types import Receive

from app.config import get_settings
from app.observability import request_context
from app.security.fair_queue import FairQueue

# passlib 1.7.4 reads a version attribute that bcrypt no longer has, and logs the error that it caught.
logging.getLogger("passlib.handlers.bcrypt").setLevel(logging.ERROR)

# A hash takes 0.25 s, so the last call in a full queue waits for half a minute.
MAX_WAITING_HASHES_PER_THREAD = 128
# One person needs one or two at once. There is no maximum per address, because 100 people of a class sign in at once.
MAX_WAITING_HASHES_OF_ACCOUNT = 8
# Below the 30 s after which the proxies of deploy/ give up.
MAX_WAIT_SECONDS = 28.0
# On a contended core, a hashing thread gets a third of the time of a thread that serves requests. The value is added to
# the niceness of the process, because only root may go below that.
_NICENESS = 5


def _lower_priority() -> None:
    if sys.platform == "linux":  # On other systems the priority applies to the whole process.
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _NICENESS)


# Maximum bcrypt cost of a stored hash that is verified: four seconds of a core, sixteen times the default. A higher
# `PASSWORD_HASH_ROUNDS` replaces it.
MAX_STORED_ROUNDS = 16

# The 30 000 most common passwords of zxcvbn 4.5.0 (PyPI), NFKC and case-folded. The licence (MIT) is beside them.
_COMMON_PASSWORDS = Path(__file__).parent / "common_passwords" / "passwords.txt"

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


# Hashing has its own threads, limited to the number of cores and divided among the worker processes. So a burst of
# logins delays only logins.
@lru_cache
def _threads() -> ThreadPoolExecutor:
    count = get_settings().hashing_thread_count
    return ThreadPoolExecutor(count, thread_name_prefix="hashing", initializer=_lower_priority)


@lru_cache
def _queue() -> FairQueue:
    count = get_settings().hashing_thread_count
    return FairQueue(slots=count, max_waiting=MAX_WAITING_HASHES_PER_THREAD * count, max_wait_seconds=MAX_WAIT_SECONDS)


@lru_cache
def _context() -> CryptContext:
    """Return the accepted hash formats.

    Plain bcrypt truncates at 72 bytes, bcrypt_sha256 does not. The tutorial wrote plain bcrypt: it is accepted and
    replaced at the next login.
    """
    rounds = get_settings().password_hash_rounds
    return CryptContext(
        schemes=["bcrypt_sha256", "bcrypt"],
        deprecated=["bcrypt"],
        bcrypt_sha256__rounds=rounds,
        bcrypt__rounds=rounds,
    )


def hash_password(password: str) -> str:
    """Return a salted hash of the password.

    Takes about 0.25 s of one core at the default cost.
    """
    return str(_context().hash(_normalised(password)))


def verify(password: str, password_hash: str | None) -> tuple[bool, str | None]:
    """Return whether the password is correct, and a new hash if it is outdated.

    The caller stores the new hash. Without a hash (the account does not exist) it takes the same time and returns
    False.
    """
    if password_hash is None or "\0" in password or not can_be_verified(password_hash):
        _context().dummy_verify()
        return False, None
    # The tutorial hashed passwords without normalising them.
    secret = _normalised(password) if password_hash.startswith("$bcrypt-sha256$") else password
    try:
        fits = bool(_context().verify(secret, password_hash))
    except PasswordSizeError:  # Normalising can turn one character into eighteen.
        _context().dummy_verify()
        return False, None
    replace = fits and _context().needs_update(password_hash)
    return fits, hash_password(password) if replace else None


def can_be_verified(password_hash: str) -> bool:
    """Return whether the hash is well-formed and its cost at most `MAX_STORED_ROUNDS`.

    Other software may have written it. passlib raises `ValueError` for a damaged hash, and a cost of 31 would keep a
    hashing thread busy for days.
    """
    try:
        handler = _context().identify(password_hash, resolve=True)
        maximum = max(MAX_STORED_ROUNDS, get_settings().password_hash_rounds)
        return handler is not None and handler.from_string(password_hash).rounds <= maximum
    except ValueError:
        return False


def is_common(password: str) -> bool:
    """Whether it is a common password, in any case and Unicode composition."""
    return _normalised(password).casefold() in _common_passwords()


@lru_cache
def _common_passwords() -> frozenset[str]:
    return frozenset(_COMMON_PASSWORDS.read_text(encoding="utf-8").splitlines())


async def in_hashing_thread(
    user_id: int | None,
    receive: Receive | None,
    call: Callable[Parameters, Result],
    *args: Parameters.args,
    **kwargs: Parameters.kwargs,
) -> Result:
    """Run the call in a hashing thread, in the caller's turn, and return its result.

    The caller is the signed-in account, or without one (`user_id` is None) the network of the client's address.
    If `receive` reports that the client has disconnected while the call waits, the call is dropped. The request's body
    must have been read. Raises `RateLimited` if too many calls of the account wait, and `Overloaded` if too many wait
    in total.
    """
    caller: Hashable = user_id
    if user_id is None:
        caller = request_context.network_of(request_context.client_address.get() or "")
    in_context = partial(copy_context().run, call, *args, **kwargs)
    async with _queue().turn(
        caller,
        max_waiting_of_caller=None if user_id is None else MAX_WAITING_HASHES_OF_ACCOUNT,
        until_gone=receive and partial(_until_disconnected, receive),
    ):
        return await asyncio.get_running_loop().run_in_executor(_threads(), in_context)


async def _until_disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _normalised(password: str) -> str:
    """The password in NFKC, because keyboards compose characters differently."""
    return unicodedata.normalize("NFKC", password)

"""How passwords are kept: the only importer of passlib."""

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

# passlib 1.7.4 asks bcrypt for a version attribute that it no longer has, and logs that it caught the error.
logging.getLogger("passlib.handlers.bcrypt").setLevel(logging.ERROR)

# Hashing is bounded to the cores, shared by the worker processes, and has threads of its own: a rush of logins delays
# logins, nothing else.
HASHING_THREAD_COUNT = get_settings().hashing_thread_count
# A hash takes a quarter of a second: the last of so many waits for half a minute.
MAX_WAITING_HASHES = 128 * HASHING_THREAD_COUNT
# One person needs one or two at once. An address has no maximum of its own: 100 people of a class sign in at once.
MAX_WAITING_HASHES_OF_ACCOUNT = 8
# Below the 30 s after which the proxies of deploy/ give up.
MAX_WAIT_SECONDS = 28.0
# A thread that hashes gets a third of the time of one that answers, where both want the same core. It is added to what
# the process was started with: less than that only root may take.
_NICENESS = 5


def _yield_to_others() -> None:
    if sys.platform == "linux":  # Elsewhere a priority is the whole process's.
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _NICENESS)


_queue = FairQueue(slots=HASHING_THREAD_COUNT, max_waiting=MAX_WAITING_HASHES, max_wait_seconds=MAX_WAIT_SECONDS)
_threads = ThreadPoolExecutor(HASHING_THREAD_COUNT, thread_name_prefix="hashing", initializer=_yield_to_others)

# The highest bcrypt cost of a stored hash that is verified: four seconds of a core, sixteen times the default.
MAX_STORED_ROUNDS = max(16, get_settings().password_hash_rounds)

# The 30 000 most common ones, of zxcvbn 4.5.0 (PyPI), under the licence (MIT) that lies beside them; NFKC, case folded.
_COMMON_PASSWORDS = Path(__file__).parent / "common_passwords" / "passwords.txt"

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

# bcrypt alone cuts at 72 bytes; bcrypt_sha256 does not. Plain bcrypt is what the tutorial wrote: accepted, and
# replaced at the next login.
_context = CryptContext(
    schemes=["bcrypt_sha256", "bcrypt"],
    deprecated=["bcrypt"],
    bcrypt_sha256__rounds=get_settings().password_hash_rounds,
    bcrypt__rounds=get_settings().password_hash_rounds,
)


def hash_password(password: str) -> str:
    """A salted hash of the password; about a quarter of a second of one core at the default cost."""
    return str(_context.hash(_normalised(password)))


def verify(password: str, password_hash: str | None) -> tuple[bool, str | None]:
    """Whether the password fits, and, where its hash is out of date, a new hash to keep.

    Without a hash (nobody has that name) it takes the same time, and does not fit.
    """
    if password_hash is None or "\0" in password or not can_be_verified(password_hash):
        _context.dummy_verify()
        return False, None
    # The tutorial hashed what was typed, as it was typed.
    secret = _normalised(password) if password_hash.startswith("$bcrypt-sha256$") else password
    try:
        fits = bool(_context.verify(secret, password_hash))
    except PasswordSizeError:  # A character can become eighteen when it is normalised.
        _context.dummy_verify()
        return False, None
    replace = fits and _context.needs_update(password_hash)
    return fits, hash_password(password) if replace else None


def can_be_verified(password_hash: str) -> bool:
    """Return whether the hash is well-formed and no dearer than `MAX_STORED_ROUNDS`.

    A database may hold whatever other software wrote: passlib raises `ValueError` for a damaged hash, and a cost of 31
    would keep a hashing thread busy for days.
    """
    try:
        handler = _context.identify(password_hash, resolve=True)
        return handler is not None and handler.from_string(password_hash).rounds <= MAX_STORED_ROUNDS
    except ValueError:
        return False


def is_common(password: str) -> bool:
    """Whether it is among the passwords that guessers try first, however cased and composed."""
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
    """Run the call in one of the few threads that hash, when it is the turn of its caller, and return its result.

    The caller is the signed-in account, and without one (`user_id` is None) the network of the client's address.
    If `receive`, which has no body left, reports that the client has disconnected while the call waits, the call is
    dropped. Raises `RateLimited` if the account has too many calls waiting, and `Overloaded` if there are too many in
    all.
    """
    caller: Hashable = user_id
    if user_id is None:
        caller = request_context.network_of(request_context.client_address.get() or "")
    in_context = partial(copy_context().run, call, *args, **kwargs)
    async with _queue.turn(
        caller,
        max_waiting_of_caller=None if user_id is None else MAX_WAITING_HASHES_OF_ACCOUNT,
        until_gone=receive and partial(_until_disconnected, receive),
    ):
        return await asyncio.get_running_loop().run_in_executor(_threads, in_context)


async def _until_disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _normalised(password: str) -> str:
    """The same password, whichever way a keyboard composes its characters."""
    return unicodedata.normalize("NFKC", password)

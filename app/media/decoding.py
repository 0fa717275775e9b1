"""Decoding of uploads in a process of its own, which is limited in memory, time and rights (`decoder.py`).

A decoder is the part of the application that is the easiest to attack. So it gets the upload and two empty files as
open descriptors, an empty environment, and nothing else. A crash of it is an answer.
"""

import asyncio
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, TypeVar

from app.config import get_settings
from app.errors import DomainError, MediaUnavailable, PictureDamaged, PictureTooLarge, UnsupportedMedia
from app.security.fair_queue import FairQueue

logger = logging.getLogger("app")

DECODER = Path(__file__).with_name("decoder.py")
# Decoders at a time, per worker. One of 40 megapixels takes 0.4 GB and up to 4 s of one core.
MAX_DECODERS = 1
MAX_WAITING = 200
# With the decoding, below the 30 s after which the proxies of deploy/ give up.
MAX_WAIT_SECONDS = 18.0
# Longer than the decoder's own limit of CPU time, which ends it unless the machine is busy.
MAX_SECONDS = 11.0
# Exit codes of Python for an uncaught exception: the decoder could not even start.
_FAILED_TO_START = (1, 2)
_REFUSALS: dict[str, type[DomainError]] = {
    "unsupported": UnsupportedMedia,
    "too_large": PictureTooLarge,
    "damaged": PictureDamaged,
}
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture: two open files, which no folder lists, its size, and its blurhash."""

    file: BinaryIO
    preview: BinaryIO
    width: int
    height: int
    blurhash: str

    @property
    def bytes(self) -> int:
        """The bytes of both files."""
        return sum(os.fstat(file.fileno()).st_size for file in (self.file, self.preview))

    def close(self) -> None:
        self.file.close()
        self.preview.close()


def decode(upload: BinaryIO) -> Picture:
    """Decode the upload. The caller closes the result.

    Raises `UnsupportedMedia`, `PictureTooLarge`, `PictureDamaged`, and `MediaUnavailable` if no decoder can run.
    """
    with ExitStack() as stack:
        try:
            file, preview = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))
            descriptor = upload.fileno()  # Writes what is still in memory into a file.
            upload.flush()
            os.lseek(descriptor, 0, os.SEEK_SET)
        except OSError as error:
            logger.error("no room for a picture: reason=%s folder=%s", error.strerror, tempfile.gettempdir())  # noqa: TRY400
            raise MediaUnavailable from None
        found = _run(upload, file, preview)
        file.seek(0)
        preview.seek(0)
        stack.pop_all()
        return Picture(file, preview, int(found["width"]), int(found["height"]), str(found["blurhash"]))


def _run(upload: BinaryIO, file: BinaryIO, preview: BinaryIO) -> dict[str, str | int]:
    descriptors = (file.fileno(), preview.fileno())
    max_pixels = get_settings().media_max_megapixels * 1_000_000
    command = [sys.executable, "-I", str(DECODER), str(max_pixels), *map(str, descriptors)]
    try:
        ended = subprocess.run(  # noqa: S603 - no part of the command comes from clients.
            command,
            stdin=upload,
            capture_output=True,
            pass_fds=descriptors,
            env={},
            cwd="/",
            timeout=MAX_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        logger.warning("decoder was ended: no result within %d s", MAX_SECONDS)
        raise MediaUnavailable from None
    except OSError as error:
        logger.error("decoder did not start: reason=%s", error.strerror)  # noqa: TRY400 - one line says it.
        raise MediaUnavailable from None
    if ended.returncode in _FAILED_TO_START:
        reason = ended.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        logger.error("decoder did not start: reason=%s; run make install, or install requirements.lock", reason)
        raise MediaUnavailable
    if ended.returncode != 0:  # A limit of the process ended it, or a fault of a decoder.
        logger.warning("decoder was ended: signal=%d", -ended.returncode)
        raise PictureTooLarge
    found: dict[str, str | int] = json.loads(ended.stdout)
    if "refused" in found:
        raise _REFUSALS[str(found["refused"])]
    return found


async def in_decoding_thread(caller: Hashable, call: Callable[[], Result]) -> Result:
    """Run the call in the thread of decoders, in the caller's turn, and return its result.

    Raises `Overloaded` if too many calls wait, or if this one waited too long.
    """
    async with _queue().turn(caller):
        return await asyncio.get_running_loop().run_in_executor(_threads(), call)


@lru_cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(MAX_DECODERS, "decoding")


@lru_cache
def _queue() -> FairQueue:
    return FairQueue(slots=MAX_DECODERS, max_waiting=MAX_WAITING, max_wait_seconds=MAX_WAIT_SECONDS)

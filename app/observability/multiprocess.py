"""The worker processes of one server, as they know of each other: each has a place in a folder that they share.

A worker takes the lowest place that no living worker has, and holds its lock until the process ends, however it ends.
So there are never more places than workers that lived at the same time, and what a dead worker left is taken over.
"""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

# The name is prometheus-client's, which keeps the workers' counters there.
_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


@contextmanager
def sharing() -> Iterator[None]:
    """In the process that starts workers: the folder that they share, for as long as the block runs."""
    with TemporaryDirectory(prefix="social-posts-workers-", ignore_cleanup_errors=True) as folder:
        os.environ[_FOLDER] = folder
        try:
            yield
        finally:
            del os.environ[_FOLDER]


def shared_folder() -> Path | None:
    """Where the workers meet; None where this process is the only one."""
    folder = os.environ.get(_FOLDER)
    return Path(folder) if folder else None


@lru_cache
def place() -> int:
    """This worker's number, which is its own until it ends."""
    folder = shared_folder()
    if folder is None:
        return 0
    with _nobody_else(folder):
        for number in count():
            lock = _try_lock(folder / f"{number}.lock")
            if lock is None:
                continue
            os.ftruncate(lock, 0)
            os.write(lock, str(os.getpid()).encode())
            # Sums of the living go back to nothing with their worker; counters go on where it left them.
            for gauges in folder.glob(f"gauge_live*_{number}.db"):
                gauges.unlink()
            return number  # The lock's file stays open, and with it the lock, until this process has gone.
    raise AssertionError("unreachable")


def running_workers() -> Mapping[int, int]:
    """The process id of each living worker, by its place."""
    folder = shared_folder()
    if folder is None:
        return {0: os.getpid()}
    found = {}
    with _nobody_else(folder):
        for path in folder.glob("*.lock"):
            if (lock := _try_lock(path)) is not None:
                os.close(lock)
            elif path.stem.isdigit():
                found[int(path.stem)] = int(path.read_text())
    return found


def _try_lock(path: Path) -> int | None:
    """An open file that holds the lock; None where a living process, this one included, holds it already."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


@contextmanager
def _nobody_else(folder: Path) -> Iterator[None]:
    """Places are taken and looked at by one process at a time, so that no look is taken for a worker."""
    with (folder / "places").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

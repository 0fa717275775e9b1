"""Registry of worker processes: each has a numbered place in a shared folder.

A worker takes the lowest free place and holds its file lock until the process ends for any reason. So there are never
more places than concurrent workers, and a new worker takes over the files of an ended one.
"""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from prometheus_client.multiprocess import mark_process_dead

# prometheus-client defines the name and stores the workers' counters there.
_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


@contextmanager
def sharing() -> Iterator[None]:
    """Provide the shared folder while the block runs.

    For the process that starts the workers.
    """
    with TemporaryDirectory(prefix="social-posts-workers-", ignore_cleanup_errors=True) as folder:
        os.environ[_FOLDER] = folder
        try:
            yield
        finally:
            del os.environ[_FOLDER]


def shared_folder() -> Path | None:
    """The shared folder of the workers; None if this process is the only one."""
    folder = os.environ.get(_FOLDER)
    return Path(folder) if folder else None


@lru_cache
def place() -> int:
    """This worker's number. It has the number until it ends."""
    folder = shared_folder()
    if folder is None:
        return 0
    with _locking(folder):
        for number in count():
            lock = _try_lock(folder / f"{number}.lock")
            if lock is None:
                continue
            os.ftruncate(lock, 0)
            os.write(lock, str(os.getpid()).encode())
            # Live gauges start at zero with a new worker. Counters continue from the values of the ended one.
            _forget_live_gauges(folder, number)
            return number  # The file stays open and locked until this process ends.
    raise AssertionError("unreachable")


def running_workers() -> Mapping[int, int]:
    """The process id of each running worker, by its place.

    Live gauges of ended workers are removed.
    """
    folder = shared_folder()
    if folder is None:
        return {0: os.getpid()}
    found = {}
    with _locking(folder):
        for path in folder.glob("*.lock"):
            if (lock := _try_lock(path)) is None:
                found[int(path.stem)] = int(path.read_text())
            else:
                _forget_live_gauges(folder, int(path.stem))
                os.close(lock)
    return found


def _forget_live_gauges(folder: Path, place: int) -> None:
    mark_process_dead(place, str(folder))


def _try_lock(path: Path) -> int | None:
    """An open file that holds the lock; None if it is held already.

    The holder may be this process.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


@contextmanager
def _locking(folder: Path) -> Iterator[None]:
    """Lock all places.

    A check of a place locks it for a moment and must not be taken for a worker.
    """
    with (folder / "places").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

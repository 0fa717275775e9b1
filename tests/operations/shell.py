"""A shell that runs the commands of a document, block by block, as a reader would."""

import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TIMEOUT_SECONDS = 180
_END = "--- end of block ---"


class Shell:
    """One bash: variables that a block sets are there in the next one.

    A command that fails ends it.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            ["/bin/bash", "-e"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, block: str) -> str:
        """Run a block and return its output. Fails if a command does, with its messages."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        said: list[str] = []
        with suppress(BrokenPipeError):
            self._process.stdin.write(f"{block}\necho '{_END}'\n")
            self._process.stdin.flush()
        watchdog = threading.Timer(TIMEOUT_SECONDS, self._process.kill)
        watchdog.start()
        try:
            for line in self._process.stdout:
                if line == f"{_END}\n":
                    return "".join(said)
                said.append(line)
        finally:
            watchdog.cancel()
        raise AssertionError(f"this failed:\n{block}\nand said:\n{''.join(said)}")

    def close(self) -> None:
        """End the shell and the processes that it started."""
        with self._process, suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)


@contextmanager
def shell(folder: Path, programs: list[Path], **environment: str) -> Iterator[Shell]:
    """Return an environment with this process's language only, and the programs first on the path."""
    path = os.pathsep.join([*map(str, programs), os.environ["PATH"]])
    there = Shell(folder, {"PATH": path, "HOME": str(folder), "LC_ALL": "C.UTF-8", **environment})
    try:
        yield there
    finally:
        there.close()


def sections(document: str) -> dict[str, list[tuple[str, str]]]:
    """By heading: the fenced blocks below it, as (language, text)."""
    parts = re.split(r"^##+ (.*)\n", document, flags=re.MULTILINE)[1:]
    return {
        heading: re.findall(r"^```(\w+)\n(.*?)^```$", body, re.MULTILINE | re.DOTALL)
        for heading, body in zip(parts[::2], parts[1::2], strict=True)
    }

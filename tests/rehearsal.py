"""`python -m tests.rehearsal ROOT ACCOUNT`: `make run` and `make test` on another system with Python and make only.

ROOT is the folder of that system, whose /etc has to know the network's names and certificates. On Debian:
debootstrap --variant=minbase --include=ca-certificates,make,python3,python3-venv trixie /tmp/trixie

The last commit is copied to a path with spaces and umlauts, in the home of root or of an account that is created. The
environment has HOME and PATH only, and what --set adds. Needs Linux, root's rights, git, tar, bash and unshare.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import httpx2

PROJECT = Path(__file__).resolve().parent.parent
HOME = "/home/jörg"
FOLDER = "my projects/social posts"
MAX_SECONDS_UNTIL_READY = 1200
MAX_SECONDS_UNTIL_STOPPED = 30
MAX_LINE_CHARACTERS = 150
PREPARE = """
chroot "$0" id "$1" >/dev/null 2>&1 || chroot "$0" useradd --create-home --home-dir "$2" "$1"
mkdir -p "$0$2/$3"
git archive HEAD | tar --extract --directory "$0$2/$3"
chroot "$0" chown --recursive "$1:" "$2"
"""
ENTER = """
mount -t proc proc "$0/proc" && mount -t devpts -o ptmxmode=666 pts "$0/dev/pts" && mount -t tmpfs shm "$0/dev/shm" &&
exec chroot --userspec="$1" "$0" env -i --chdir="$2/$3" HOME="$2" PATH=/usr/bin:/bin "${@:4}"
"""


class Newcomer:
    """An account in the root, with the project in a folder of its home."""

    def __init__(self, root: Path, account: str, variables: list[str]) -> None:
        home = "/root" if account == "root" else HOME
        self.where = [str(root), account, home, FOLDER]
        self.root, self.variables = root, variables
        self.folder = root / home[1:] / FOLDER

    def copy_project(self) -> None:
        """Copy the last commit over what the folder has."""
        subprocess.run(["/bin/bash", "-euo", "pipefail", "-c", PREPARE, *self.where], cwd=PROJECT, check=True)

    def start(self, *command: str, output: Path) -> subprocess.Popen[bytes]:
        """Start a command in the project's folder, as the leader of a process group."""
        with output.open("wb") as file:
            return subprocess.Popen(
                ["/usr/bin/unshare", "--mount", "bash", "-c", ENTER, *self.where, *self.variables, *command],
                stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def processes(self) -> list[str]:
        """Return the processes that run in the root, with their commands."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if (process / "root").readlink() == self.root:
                    found.append(f"{process.name} {(process / 'cmdline').read_text().replace(chr(0), ' ')}")
            except OSError:  # It has ended.
                continue
        return found


def rehearse_run(newcomer: Newcomer, output: Path) -> None:
    """Run `make run` until it is ready, use the API, and stop it as Ctrl-C does."""
    started = time.monotonic()
    server = newcomer.start("make", "run", output=output)
    try:
        while not (address := re.search(r"Serving +(\S+)", output.read_text())):
            assert server.poll() is None, output.read_text()
            assert time.monotonic() - started < MAX_SECONDS_UNTIL_READY, output.read_text()
            time.sleep(0.1)
        with httpx2.Client(base_url=address[1], timeout=30) as client:
            while client.get("/readyz").status_code != 200:
                assert time.monotonic() - started < MAX_SECONDS_UNTIL_READY, output.read_text()
                time.sleep(0.1)
            print(f"make run: ready after {time.monotonic() - started:.1f} s")
            use(client)
        stopping = time.monotonic()
        os.killpg(server.pid, signal.SIGINT)
        code = server.wait(MAX_SECONDS_UNTIL_STOPPED)
        print(f"make run: Ctrl-C stops it after {time.monotonic() - stopping:.1f} s with exit code {code}")
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
    print(*(line[:MAX_LINE_CHARACTERS] for line in output.read_text().splitlines()), sep="\n")
    assert code in {0, -signal.SIGINT}  # make ends itself as the shell of a terminal expects.
    assert not newcomer.processes()


def use(client: httpx2.Client) -> None:
    """Sign up, log in, write a post and vote for it."""
    account = {"email": f"ada{time.time_ns()}@example.com", "password": "correct horse battery"}
    client.post("/users", json=account).raise_for_status()
    form = {"username": account["email"], "password": account["password"]}
    login = client.post("/login", data=form).raise_for_status().json()
    client.headers["Authorization"] = f"Bearer {login['access_token']}"
    post = client.post("/posts", json={"title": "Moths", "content": "I found one"}).raise_for_status().json()
    vote = client.post("/vote", json={"post_id": post["id"], "vote_dir": 1}).raise_for_status().json()
    assert vote["votes"] == 1
    print(f"make run: voted for post {post['id']}")


def rehearse_tests(newcomer: Newcomer, arguments: str, output: Path) -> None:
    """Run `make test`."""
    started = time.monotonic()
    code = newcomer.start("make", "test", f"ARGS={arguments}", output=output).wait()
    lines = output.read_text().splitlines()
    print(*(line for line in lines if line.startswith(("FAILED", "ERROR", "SKIPPED"))), sep="\n")
    print(f"make test: {lines[-1]}; exit code {code} after {(time.monotonic() - started) / 60:.1f} minutes")
    assert code == 0, output
    assert not newcomer.processes()


def main() -> None:
    """Rehearse what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("account", help="root, or the name of an account, which is created if it is missing")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="set an environment variable")
    parser.add_argument("--only", choices=["run", "test"])
    parser.add_argument("--tests", default="", metavar="ARGS", help="arguments for pytest")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # A background job may ignore it, and so would the server.
    newcomer = Newcomer(options.root.resolve(), options.account, options.set)
    output = newcomer.root / f"{options.account}.log"
    if options.only != "test":
        shutil.rmtree(newcomer.folder, ignore_errors=True)
    newcomer.copy_project()
    if options.only != "test":
        rehearse_run(newcomer, output)
        rehearse_run(newcomer, output)
    if options.only != "run":
        rehearse_tests(newcomer, options.tests, output)


if __name__ == "__main__":
    main()

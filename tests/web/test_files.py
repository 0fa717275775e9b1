"""The files of the web client: what is vendored, and rules that hold for every module."""

import re
import tomllib
from hashlib import sha256
from pathlib import Path

import pytest

from app.routers.web import WEB_FOLDER

VENDORED = WEB_FOLDER / "vendor"
MODULES = [path for path in sorted(WEB_FOLDER.rglob("*.js")) if path.parent != VENDORED]
# Ways to make HTML or code of text, or to reach another host.
FORBIDDEN = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|dangerouslySetInnerHTML|document\.write|DOMParser|srcdoc"
    r"|eval\(|new Function"
)
# Only in comments. tests/web/test_types.py makes it.
GENERATED_TYPES = 'import("./api-types.js")'
IMPORT = re.compile(r"""(?:from|import)\s*\(?\s*["']([^"']+)["']""")


def test_the_library_is_the_recorded_one_with_its_licences() -> None:
    record = tomllib.loads((VENDORED / "vendored.toml").read_text())
    content = (VENDORED / record["file"]["name"]).read_text()

    assert sha256(content.encode()).hexdigest() == record["file"]["sha256"]
    assert content.startswith(record["file"]["banner"])
    for name in ("preact", "htm"):
        assert f"{name} {record['packages'][name]}" in record["file"]["banner"]
        assert "Licen" in (VENDORED / f"{name}.LICENSE.txt").read_text()


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(WEB_FOLDER).as_posix())
def test_a_module_makes_no_html_of_text_and_imports_files_that_exist(module: Path) -> None:
    text = module.read_text()

    assert FORBIDDEN.findall(text) == []
    for target in IMPORT.findall(text.replace(GENERATED_TYPES, "")):
        assert target.startswith(("./", "../")), target
        assert (module.parent / target).resolve().is_file(), target


def test_the_stylesheet_loads_nothing_and_names_every_colour_once_per_theme() -> None:
    css = (WEB_FOLDER / "style.css").read_text()

    assert "@import" not in css
    assert "url(" not in css
    # The dark colours stand twice: for systems that prefer them, and for readers who choose them.
    preferred, chosen = (
        re.findall(r"(--[\w-]+|color-scheme): ([^;]+);", block)
        for block in re.findall(r":root(?::not\(\[data-theme=\"light\"\]\)|\[data-theme=\"dark\"\]) \{([^}]*)\}", css)
    )
    assert preferred == chosen

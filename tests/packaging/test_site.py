"""The documentation as a site: the real pages build, and a dead link or anchor fails the build."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.packaging.test_workflows import commands


def build(project: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, project / "docs" / "build_site.py", folder], capture_output=True, text=True, check=False
    )


def test_the_pages_build_without_a_dead_link_and_with_all_that_they_link_to(tmp_path: Path) -> None:
    done = build(ROOT, tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    site = tmp_path / "site"
    pages = ["index.html", "CHANGELOG.html", *(f"docs/{path.stem}.html" for path in (ROOT / "docs").glob("*.md"))]
    pages += [f"docs/decisions/{path.stem}.html" for path in (ROOT / "docs" / "decisions").glob("*.md")]
    files = [".env.example", "LICENSE", "deploy/nginx/nginx.conf"]
    assert [name for name in pages + files if not (site / name).is_file()] == []
    assert '<pre class="mermaid">' in (site / "index.html").read_text()
    fetched = re.findall(r'<(?:script|link)[^>]*(?:src|href)="(https?:[^"]*)', (site / "index.html").read_text())
    assert fetched == [], "opening a page asks no other server"


@pytest.mark.parametrize(
    ("link", "message"),
    [
        ("../README.md#what-to-do-when-", None),
        ("missing.md", "docs/page.md links to missing.md, which is no file of the repository"),
        ("../missing.conf", "docs/page.md links to ../missing.conf, which is no file of the repository"),
        ("../../elsewhere", "docs/page.md links to ../../elsewhere, which is no file of the repository"),
        ("../README.md#missing", "anchor does not exist"),
        ("#missing", "anchor does not exist"),
    ],
)
def test_a_dead_link_or_anchor_fails_the_build(tmp_path: Path, link: str, message: str | None) -> None:
    project = tmp_path / "project"
    (project / "docs").mkdir(parents=True)
    (tmp_path / "elsewhere").touch()
    (project / "LICENSE").touch()
    (project / "README.md").write_text("# Start\n[Licence](LICENSE)\n\n## What to do when …\n")
    (project / "docs" / "page.md").write_text(f"# Page\n[A link]({link}), and `[code](missing.md)`.\n")
    for name in ("build_site.py", "zensical.toml"):
        shutil.copy(ROOT / "docs" / name, project / "docs")

    done = build(project, tmp_path)

    output = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
    assert (done.returncode == 0) == (message is None), output
    assert message is None or message in output


def test_ci_builds_it() -> None:
    assert "make docs" in commands("check").splitlines()

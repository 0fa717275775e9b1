"""Build the pages as a site: `python docs/build_site.py FOLDER` writes `FOLDER/site`, and fails on a dead link.

The builder, Zensical, reads a single folder and checks links between its pages. Our pages also link to files outside
docs/, so they and all that they link to are copied into a folder of the same layout. Links stay as GitHub reads them.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CODE = re.compile(r"^\s*```.*?^\s*```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")


def linked_files() -> set[Path]:
    """Return README.md, the pages of docs/, and every file that they lead to. Exit if a file is missing."""
    found: set[Path] = set()
    waiting = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    while waiting:
        page = waiting.pop()
        if page in found:
            continue
        found.add(page)
        if page.suffix != ".md":
            continue
        for target in LINK.findall(CODE.sub("", page.read_text())):
            file = (page.parent / target).resolve()
            if not file.is_file() or not file.is_relative_to(ROOT):
                sys.exit(f"error: {page.relative_to(ROOT)} links to {target}, which is no file of the repository")
            waiting.append(file)
    return found


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    for made in ("pages", "site"):
        shutil.rmtree(folder / made, ignore_errors=True)
    files = linked_files()
    for file in files:
        copied = folder / "pages" / file.relative_to(ROOT)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copied)
    shutil.copy(ROOT / "docs" / "zensical.toml", folder)
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "--config-file", "zensical.toml"]
    if subprocess.run(command, cwd=folder, check=False).returncode:  # noqa: S603 - ours.
        sys.exit("error: the site was not built")
    # Zensical leaves out files whose name begins with a dot.
    for file in files:
        if file.suffix != ".md":
            copied = folder / "site" / file.relative_to(ROOT)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copied)


if __name__ == "__main__":
    main()

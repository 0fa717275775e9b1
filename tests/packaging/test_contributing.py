"""What contributors meet first: issue forms, the pull-request template, the devcontainer."""

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"))


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_issue_form_has_what_github_requires(path: Path) -> None:
    form = yaml.safe_load(path.read_text())
    assert {"name", "description", "body"} <= form.keys()
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert all(field["attributes"]["label"] for field in fields)
    assert len({field["id"] for field in fields}) == len(fields)


def test_pull_request_template_names_files_and_targets_that_exist() -> None:
    template = (ROOT / ".github" / "pull_request_template.md").read_text()
    targets = re.findall(r"`make ([a-z -]+)`", template)
    makefile = (ROOT / "Makefile").read_text()
    assert targets == ["check test"]
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets[0].split())
    files = re.findall(r"[\w/]+\.md", template)
    assert files == ["CHANGELOG.md", "docs/differences.md"]
    assert all((ROOT / file).exists() for file in files)


def test_devcontainer_has_the_programs_of_ci() -> None:
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    dockerfile = (ROOT / ".devcontainer" / container["build"]["dockerfile"]).read_text()

    def packages(text: str) -> set[str]:
        (listed,) = re.findall(r"install [-\w ]*--no-install-recommends([^&>)]*)", text.replace("\\\n", " "))
        return set(listed.split())

    assert packages(dockerfile) == packages((ROOT / ".ci" / "run").read_text()) | {"make"}

"""README.md and the pages that continue it: sessions run as printed, tables are complete, and names and links exist."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_group

from app.cli.commands import cli
from app.config import ENV_FILE_VARIABLE, MINIMUM_SECRET_BYTES, TUTORIAL_DEFAULTS, Settings
from app.schemas.post import PageParameters, PostIn
from app.schemas.types import MAX_PAGE_SIZE, MAX_PASSWORD_CODE_POINTS
from tests.conftest import ROOT, _own_database
from tests.fixtures import _server
from tests.programs import find_program

README = (ROOT / "README.md").read_text()
AUTHENTICATION, CONFIGURATION, DIFFERENCES = (
    (ROOT / "docs" / f"{name}.md").read_text() for name in ("authentication", "configuration", "differences")
)
PAGES = README + AUTHENTICATION + CONFIGURATION + DIFFERENCES
LINKING = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
ADDRESS = "http://127.0.0.1:8000"
END_OF_BLOCK = "--- end of block ---"


def blocks(section: str, page: str = README) -> list[tuple[str, str]]:
    """Return the fenced blocks below a heading, up to the next heading: (language, text)."""
    below = re.split(r"^#+ ", page.split(f"# {section}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"^```(\w+)\n(.*?)^```$", below, re.MULTILINE | re.DOTALL)


def without_chance(answer: str) -> str:
    """The answer with its times, request id and names of files, which differ from run to run, replaced."""
    answer = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", "TIME", answer)
    answer = re.sub(r"/media/files/[0-9a-f]{32}", "/media/files/NAME", answer)
    return re.sub(r'"request_id":"[0-9a-f]{32}"', '"request_id":"ID"', answer).strip()


def run(command: list[str], script: str) -> str:
    done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A server on a new database, whose ids begin at 1."""
    with (
        _own_database() as url,
        _server(tmp_path, {"DATABASE_URL": url.render_as_string(hide_password=False)}) as server,
    ):
        yield server.url


@pytest.mark.needs("bash", "curl")
def test_curl_session_answers_as_printed(server: str) -> None:
    session = blocks("A first session")
    script = "".join(body + "echo\n" for language, body in session if language == "sh")
    printed = [without_chance(body) for language, body in session if language == "json"]

    answers = run(["bash", "-eu"], script.replace(ADDRESS, server)).split("\n")

    assert len(printed) == 8
    assert [without_chance(answer) for answer in answers if answer] == printed


@pytest.mark.needs("bash", "curl", "node")
def test_pages_pasted_from_top_to_bottom_into_one_shell_answer_as_printed(server: str) -> None:
    session = README.split("## A first session\n", 1)[1] + AUTHENTICATION
    fenced = re.findall(r"^```(sh|js|json|text)\n(.*?)^```$", session, re.MULTILINE | re.DOTALL)
    script, printed = "", []
    for (language, body), (following, answer) in zip(fenced, [*fenced[1:], ("", "")], strict=True):
        if language == "js":
            body = f"node --input-type=module - <<'END'\n{body}END\n"  # noqa: PLW2901
        if language in {"sh", "js"}:
            script += body + f"echo; echo {END_OF_BLOCK}\n"
            printed.append(without_chance(answer) if following in {"json", "text"} else None)

    answers = run(["bash", "-eu"], script.replace(ADDRESS, server)).split(f"\n{END_OF_BLOCK}\n")[:-1]

    assert len(printed) >= 8
    for answer, expected in zip(answers, printed, strict=True):
        assert expected is None or without_chance(answer) == expected


def test_readme_links_the_tutorial() -> None:
    assert "https://www.youtube.com/watch?v=0sOvCWFmrtA" in README.split("\n## ")[0]


def test_fetch_session_answers_as_printed(server: str) -> None:
    node = find_program("node")
    (_, script), (_, printed) = blocks("The same in JavaScript")

    assert run([node, "--input-type=module", "-"], script.replace(ADDRESS, server)) == printed

    (_, script), (_, printed) = blocks("Live votes")
    assert run([node, "--input-type=module", "-"], script.replace(ADDRESS, server)) == printed


def test_configuration_table_has_every_setting_with_its_default_and_meaning() -> None:
    table = re.findall(r"^\| `([A-Z0-9_]+)` \| (.*?) \| (.*) \|$", CONFIGURATION, re.MULTILINE)

    def shown(default: object) -> str:
        if default is None:
            return ""
        return f"`{str(default).lower() if isinstance(default, bool) else default}`"

    assert table == [
        (name.upper(), shown(field.default), field.description) for name, field in Settings.model_fields.items()
    ]


def test_table_of_differences_has_the_bounds_of_the_code() -> None:
    fields = PostIn.model_json_schema()["properties"]
    skip = PageParameters.model_json_schema()["properties"]["skip"]
    title, content = (f"{fields[name]['minLength']}–{fields[name]['maxLength']:_}" for name in ("title", "content"))

    for bounds in (
        f"a password has {Settings.model_fields['password_min_length'].default}–{MAX_PASSWORD_CODE_POINTS} characters",
        f"`limit` above {MAX_PAGE_SIZE} counts as {MAX_PAGE_SIZE}",
        f"`skip` above {skip['maximum']:_} is 422".replace("_", " "),
        f"a title has {title} characters and a content {content}".replace("_", " "),
        f"`SECRET_KEY` has at least {MINIMUM_SECRET_BYTES} bytes",
    ):
        assert bounds in DIFFERENCES


def test_table_of_differences_begins_with_what_one_setting_undoes() -> None:
    named = re.findall(r"^\| .* \| `([A-Z_]+)=([a-z0-9]+)`", DIFFERENCES, re.MULTILINE)

    assert dict(named[: len(TUTORIAL_DEFAULTS)]) == {
        name.upper(): str(value).lower() for name, value in TUTORIAL_DEFAULTS.items()
    }


@pytest.mark.parametrize(
    "words", ["users.noreply", "drafts", "Link", "search", "dir: -1", "CORS_ORIGINS", "429", "Unknown query parameters"]
)
def test_table_of_differences_names_what_clients_of_the_tutorial_meet(words: str) -> None:
    assert words in DIFFERENCES


def test_every_variable_it_names_is_a_setting() -> None:
    named = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)(?:=\S+)?`", PAGES))

    assert {"PASSWORD_MIN_LENGTH", "CORS_ORIGINS"} <= named
    assert named <= {name.upper() for name in Settings.model_fields} | {ENV_FILE_VARIABLE}


def test_every_make_target_it_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^|\d )make ([a-z-]+)", PAGES, re.MULTILINE))

    assert {"run", "test", "check"} <= named
    assert named <= targets


def test_every_command_it_names_exists() -> None:
    known = set(get_group(cli).commands)
    named = set(re.findall(r"python -m app (\w+)", PAGES))

    assert {"serve", "seed", "cleanup"} <= named
    assert named <= known


@pytest.mark.parametrize("path", LINKING, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_and_heading_that_a_page_links_to_exists(path: Path) -> None:
    missing = []
    for target, heading in re.findall(r"\]\((?!https?:|mailto:)([^)#]*)#?([^)]*)\)", prose(path)):
        file = path.parent / target if target else path
        if not file.is_file() or (heading and heading not in anchors(file)):
            missing.append(f"{target}#{heading}")

    assert missing == []


def prose(path: Path) -> str:
    """Return the text of a page without code."""
    return re.sub(r"^```.*?^```$|`[^`\n]*`", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings, in GitHub's spelling."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

"""`python -m app postman` has every operation. tests/clients runs the collection with newman."""

import json
from typing import Any

from app.cli.postman import FIRST_STEPS, collection
from app.main import app
from tests.conftest import ROOT

DOCUMENT: dict[str, Any] = app.api.openapi()
COLLECTION = collection(DOCUMENT)
FIRST, *FOLDERS = COLLECTION["item"]


def test_it_has_each_operation_once() -> None:
    sent = [item["request"] for folder in FOLDERS for item in folder["item"]]
    operations = [(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods]

    found = [(each["method"], each["url"]["raw"].removeprefix("{{base_url}}")) for each in sent]

    as_in_postman = [(method, path.replace("{", ":").replace("}", "")) for method, path in operations]
    assert sorted(found) == sorted(as_in_postman)
    for each in sent:
        placed = {part[1:] for part in each["url"]["path"] if part.startswith(":")}
        assert placed == {variable["key"] for variable in each["url"]["variable"]}
        assert all(query["disabled"] for query in each["url"]["query"])


def test_the_first_steps_sign_in_and_keep_the_token() -> None:
    assert len(FIRST["item"]) == len(FIRST_STEPS)
    _, login, *_ = FIRST["item"]
    assert login["request"]["auth"] == {"type": "noauth"}
    assert "collectionVariables.set('token'" in str(login["event"])
    assert COLLECTION["auth"]["bearer"][0]["value"] == "{{token}}"


def test_it_logs_in_with_the_account_of_the_readme() -> None:
    email, password = (each["value"] for each in COLLECTION["variable"] if each["key"] in {"email", "password"})

    assert f'{{"email": "{email}", "password": "{password}"}}' in (ROOT / "README.md").read_text()


def test_it_is_of_this_application_and_has_no_path_of_this_machine() -> None:
    text = json.dumps(COLLECTION)

    assert str(ROOT) not in text
    assert COLLECTION["info"]["name"] == DOCUMENT["info"]["title"]

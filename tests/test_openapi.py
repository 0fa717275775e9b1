"""The OpenAPI document says all that is true of every operation, and `openapi.json` is what the code says today."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from app.cli import cli
from app.errors import DomainError
from app.main import app
from app.problems import Problem, ValidationFailed
from app.schemas.post import PostChange, PostIn
from app.schemas.user import UserChange, UserIn
from app.schemas.vote import VoteIn

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT: dict[str, Any] = app.openapi()
OPERATIONS: dict[str, dict[str, Any]] = {
    f"{method.upper()} {path}": operation
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
}
PUBLIC = {
    "GET /", "GET /livez", "GET /readyz", "GET /users/{id}", "POST /users", "POST /login", "POST /token/refresh",
    "POST /password-reset", "POST /password-reset/confirm", "POST /email-verification/confirm",
}  # fmt: skip
VERBS = {
    "cast", "change", "confirm", "create", "delete", "end", "get", "list", "login", "logout", "refresh", "remove",
    "replace", "request", "set", "sign",
}  # fmt: skip


def test_openapi_json_is_current() -> None:
    printed = CliRunner().invoke(cli, ["openapi"])

    assert printed.exit_code == 0
    assert (ROOT / "openapi.json").read_text(encoding="utf-8") == printed.stdout, "run: make openapi"


def test_operation_ids_are_unique_and_begin_with_a_verb() -> None:
    ids = [operation["operationId"] for operation in OPERATIONS.values()]

    assert len(ids) == len(set(ids))
    for name in ids:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", name)
        assert name.split("_")[0] in VERBS


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_says_what_it_is(name: str) -> None:
    operation = OPERATIONS[name]

    assert operation["summary"]
    assert operation["description"].endswith(".")
    assert len(operation["tags"]) == 1
    for parameter in operation.get("parameters", []):
        if parameter["name"] not in {"limit", "skip"}:
            assert parameter["schema"]


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_declares_the_errors_it_can_give(name: str) -> None:
    operation = OPERATIONS[name]
    statuses = set(operation["responses"])
    expected = {"414", "431", "500"}
    if name not in PUBLIC:
        expected.add("401")
    if "requestBody" in operation:
        expected |= {"413", "422"}
    if operation.get("parameters"):
        expected.add("422")
    if name not in {"GET /", "GET /livez"}:
        expected.add("503")
    if "{id}" in name:
        expected.add("404")

    assert expected <= statuses
    assert len({status for status in statuses if status < "300"}) == 1
    if name in PUBLIC - {"POST /token/refresh"}:  # Whose credential is in its body.
        assert "401" not in statuses


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_error_has_the_shape_of_a_problem_and_an_example_of_each_code(name: str) -> None:
    for status, answer in OPERATIONS[name]["responses"].items():
        if status < "400":
            continue
        assert answer["description"].startswith("`")
        assert set(answer["content"]) == {"application/json", "application/problem+json"}
        schema = "ValidationFailed" if status == "422" else "Problem"
        codes = set(re.findall(r"(?:^|; )`([a-z_]+)`", answer["description"]))
        for content in answer["content"].values():
            assert content["schema"] == {"$ref": f"#/components/schemas/{schema}"}
            assert content["examples"] == {code: {"$ref": f"#/components/examples/{code}"} for code in codes}
        for code in codes:
            example = DOCUMENT["components"]["examples"][code]["value"]
            assert (example["code"], example["status"]) == (code, int(status))
            (ValidationFailed if status == "422" else Problem).model_validate(example)


def test_every_answer_names_the_headers_that_clients_need() -> None:
    named = {
        name: {status: set(answer.get("headers", ())) for status, answer in operation["responses"].items()}
        for name, operation in OPERATIONS.items()
    }

    assert named["GET /posts"]["200"] == named["GET /users/me/votes"]["304"] == {"ETag", "Link"}
    assert named["GET /users"]["200"] == named["GET /api-keys"]["200"] == {"Link"}
    assert named["POST /posts"]["201"] == named["POST /users"]["201"] | {"ETag"} == {"ETag", "Location"}
    assert all("ETag" in named[f"{method} /posts/{{id}}"]["200"] for method in ("GET", "PUT", "PATCH"))
    for answers in named.values():
        assert "Retry-After" in answers.get("503", {"Retry-After"}) & answers.get("429", {"Retry-After"})
        assert "WWW-Authenticate" in answers.get("401", {"WWW-Authenticate"})
    everything = {header for answers in named.values() for names in answers.values() for header in names}
    assert everything == set(DOCUMENT["components"]["headers"])


def test_every_code_of_the_catalogue_is_documented_and_every_documented_one_is_in_it() -> None:
    documented = {
        code
        for operation in OPERATIONS.values()
        for status, answer in operation["responses"].items()
        if status >= "400"
        for code in re.findall(r"`([a-z_]+)`:?", answer["description"])
        if "_" in code or code in {"unavailable", "overloaded"}
    } - {"current_password"}
    catalogue = {error.code for error in _subclasses(DomainError)}
    framework = {"validation_failed", "internal_error"}

    # That there is no such route is no operation's answer.
    assert documented == (catalogue - {"not_found"}) | framework


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_document_asks_for_a_token_where_the_server_does(name: str) -> None:
    security = OPERATIONS[name].get("security", [])

    credentials: list[dict[str, list[str]]] = [{"OAuth2PasswordBearer": []}, {"SessionCookie": []}]
    if name in PUBLIC:
        assert security in ([], [{}, *credentials])
    else:
        key: list[dict[str, list[str]]] = [{"ApiKey": []}]
        assert security in (credentials, [*credentials[:1], *key, *credentials[1:]])


def test_the_form_of_login_is_where_the_document_says() -> None:
    flow = DOCUMENT["components"]["securitySchemes"]["OAuth2PasswordBearer"]["flows"]["password"]

    assert flow["tokenUrl"] == "login"
    assert "application/x-www-form-urlencoded" in OPERATIONS["POST /login"]["requestBody"]["content"]


@pytest.mark.parametrize("schema", ["Profile", "NewUser", "Account"])
def test_an_email_address_is_always_there_and_typed_as_one(schema: str) -> None:
    described = DOCUMENT["components"]["schemas"][schema]

    assert "email" in described["required"]
    assert described["properties"]["email"]["type"] == "string"
    assert described["properties"]["email"]["format"] == "email"


def test_every_reference_leads_to_a_schema_and_every_schema_is_used() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    prefix = "#/components/schemas/"
    references = {each.removeprefix(prefix) for each in _references(DOCUMENT) if each.startswith(prefix)}

    assert references == set(schemas)


@pytest.mark.parametrize("model", [UserIn, PostIn, VoteIn, UserChange, PostChange])
def test_the_examples_of_a_body_make_a_body_that_is_accepted(model: type[BaseModel]) -> None:
    properties = DOCUMENT["components"]["schemas"][model.__name__]["properties"]
    example = {name: found for name, each in properties.items() if (found := _example(each)) is not None}

    assert set(DOCUMENT["components"]["schemas"][model.__name__].get("required", [])) <= set(example)
    model.model_validate(example)


def _example(schema: dict[str, Any]) -> object:
    for each in (schema, *schema.get("anyOf", [])):
        if "examples" in each:
            return each["examples"][0]
        if "enum" in each:
            return each["enum"][-1]
    return None


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from _references(each)


def _subclasses(error: type[DomainError]) -> Iterator[type[DomainError]]:
    for each in error.__subclasses__():
        yield each
        yield from _subclasses(each)

"""docs/http-contract.md equals the OpenAPI document in routes, codes and fields."""

import re
from typing import Any

import pytest

from app.main import app
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "http-contract.md").read_text()
DOCUMENT: dict[str, Any] = app.api.openapi()
SUCCESSES = re.compile(r"[23]\d\d")
# What the page states once, for all routes.
EVERYWHERE = {
    "invalid_host", "not_authenticated", "insufficient_scope", "cross_site_request", "body_too_large", "uri_too_long",
    "unsupported_encoding", "validation_failed", "constraint_violated",
    "rate_limited", "headers_too_large", "internal_error", "unavailable",
}  # fmt: skip


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading."""
    below = re.split(r"^#+ ", PAGE.split(f"# {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in below.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def names(cell: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", cell))


def schema_of(described: dict[str, Any]) -> str:
    """The name of the body's schema, with [] where it is a list."""
    (content, *_) = described["content"].values()
    schema = content["schema"]
    if schema.get("format") == "binary" or "properties" in schema:
        return "file"
    references = [choice["$ref"] for choice in schema.get("anyOf", [schema.get("items", schema)])]
    shown = " or ".join(reference.rpartition("/")[2] for reference in references)
    return f"[{shown}]" if schema.get("type") == "array" else shown


def access_of(operation: dict[str, Any]) -> str:
    schemes = [set(scheme) for scheme in operation["security"]]
    if not schemes:
        return "public"
    if set() in schemes:
        return "public, more with an account"
    return "account or key" if {"ApiKey"} in schemes else "account"


def codes_of(operation: dict[str, Any]) -> set[str]:
    """The codes of its errors, but those of all routes."""
    codes: set[str] = set()
    for response in operation["responses"].values():
        if "$ref" in response:
            shared = DOCUMENT["components"]["responses"][response["$ref"].rpartition("/")[2]]
            codes |= set(re.findall(r"`(\w+)`:", response.get("description") or shared["description"]))
    return codes - EVERYWHERE


OPERATIONS: dict[str, dict[str, Any]] = {
    f"{method.upper()} {path}": operation
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
}
ROUTES = {row[0].strip("`"): row[1:] for row in rows("Routes")}


def test_page_has_every_operation_and_no_other() -> None:
    assert ROUTES.keys() == OPERATIONS.keys()


@pytest.mark.parametrize("name", OPERATIONS)
def test_route_is_as_the_page_says(name: str) -> None:
    operation = OPERATIONS[name]
    access, request, success, errors = ROUTES[name]

    assert access == access_of(operation)
    assert names(request) == ({schema_of(operation["requestBody"])} if "requestBody" in operation else set())
    assert success.split()[0] == next(status for status in operation["responses"] if status.startswith("2"))
    responses = [response for status, response in operation["responses"].items() if SUCCESSES.fullmatch(status)]
    assert names(success) == {
        schema_of(response) for response in responses if "application/json" in response.get("content", {})
    }
    assert names(errors) == codes_of(operation)


def test_page_has_every_error_with_its_status() -> None:
    known = {
        (code, status)
        for operation in OPERATIONS.values()
        for status, response in operation["responses"].items()
        if "$ref" in response
        for code in re.findall(
            r"`(\w+)`:", DOCUMENT["components"]["responses"][response["$ref"].rpartition("/")[2]]["description"]
        )
    }
    listed = [(row[0].strip("`"), row[1]) for row in rows("Error codes")]

    # No operation has 405: it is what a method that is no operation gets.
    assert set(listed) == known | {("method_not_allowed", "405")}
    assert len(listed) == len(set(listed))
    assert {code for code, _, where, _ in rows("Error codes") if where == "every route"} == {
        f"`{code}`" for code in EVERYWHERE
    }


def test_page_has_every_field_of_every_shape() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    shapes = {name: [*schema["properties"]] for name, schema in schemas.items() if "properties" in schema}
    listed = {row[0].strip("`"): re.findall(r"`([^`]+)`", row[1]) for row in rows("Shapes")}

    assert listed == shapes

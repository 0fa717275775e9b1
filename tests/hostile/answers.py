"""Assertions that hold for every answer, for any request."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import jsonschema_rs

from app.main import app
from tests.contract.answers import PROBLEM_KEYS, operation_of, resolved

DOCUMENT: dict[str, Any] = app.api.openapi()
# What is answered where no operation is: no such route or method, or too much to look for one.
NO_OPERATION = {404, 405, 414, 431}


def assert_one_shape(method: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
    """Assert that it has a request id and, if it is an error, the usual keys and no echo of the request."""
    assert status < 500
    assert headers["x-request-id"]
    assert "x-injected" not in headers
    assert "location" not in headers or status == 201
    if status >= 400 and method != "HEAD":
        problem = json.loads(body.decode("utf-8"))
        assert set(problem) - {"errors"} == PROBLEM_KEYS, problem
        assert problem["status"] == status
        assert problem["request_id"] == headers["x-request-id"]
        assert headers["cache-control"] == "no-store"


def assert_declared(method: str, path: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
    """Assert that the document declares the status for this operation, and that its schema and code fit."""
    operation = operation_of(method, path)
    if operation is None:
        assert status in NO_OPERATION
        return
    found = operation["responses"].get(str(status))
    assert found is not None, f"{operation['operationId']} may not answer {status}"
    declared = resolved(found)
    if "content" not in declared:
        assert body == b""
        return
    media_type = headers["content-type"]
    if not media_type.endswith("json"):
        assert media_type.partition(";")[0] in declared["content"]
        return
    content = json.loads(body)
    if status >= 400:
        codes = declared["content"][media_type]["examples"]
        assert content["code"] in codes, f"{operation['operationId']} may not answer {status} {content['code']}"
    if isinstance(content, dict) and content.keys() == {"expires_in"}:
        # A sign-in by cookie, which the document describes in words only (docs/decisions/0025).
        assert "set-cookie" in headers
        assert operation["operationId"] in {"login", "refresh_token"}
        return
    _validator(operation["operationId"], str(status), media_type).validate(content)


@cache
def _validator(operation_id: str, status: str, media_type: str) -> Any:
    operations = [each for item in DOCUMENT["paths"].values() for each in item.values()]
    (operation,) = [each for each in operations if each["operationId"] == operation_id]
    schema = resolved(operation["responses"][status])["content"][media_type]["schema"]
    return jsonschema_rs.validator_for({**schema, "components": DOCUMENT["components"]})

"""`python -m app postman`: print a Postman collection, made from the OpenAPI document."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import typer

# https://schema.postman.com/collection/json/v2.1.0/draft-07/docs/index.html
SCHEMA = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"
VARIABLES = {
    "base_url": "http://127.0.0.1:8000",
    "email": "ada@example.com",
    "password": "correct horse battery",
    "token": "",
    "post_id": "1",
}
NO_SERVER_ERROR = "pm.test('no server error', () => pm.expect(pm.response.code).to.be.below(500));"
REMEMBER_LOGIN = "if (pm.response.code === 200) pm.collectionVariables.set('token', pm.response.json().access_token);"
REMEMBER_POST = "if (pm.response.code === 201) pm.collectionVariables.set('post_id', pm.response.json().id);"
# Operations of the first folder in their order, with their body and the status codes that the collection expects. An
# account that is there already is as good as a new one.
FIRST_STEPS: Sequence[tuple[str, dict[str, Any] | None, Sequence[int]]] = (
    ("sign_up", {"email": "{{email}}", "password": "{{password}}"}, (201, 409)),
    ("login", None, (200,)),
    ("create_post", {"title": "My first post", "content": "Written with Postman"}, (201,)),
    ("set_vote", None, (200,)),
    ("create_comment", {"content": "And my first comment"}, (201,)),
    ("get_post", None, (200,)),
    ("list_posts", None, (200,)),
)
SCRIPTS = {"login": REMEMBER_LOGIN, "create_post": REMEMBER_POST}

Item = dict[str, Any]


def postman() -> None:
    """Print a Postman collection that logs in and carries the token.

    Import it in Postman, or run it with newman. `Log in` keeps the token, which all other requests send. The variables
    of the collection have the address of the server, and the e-mail address and password of an account.
    """
    from app.main import app  # noqa: PLC0415 - importing it builds the application, also for --help.

    typer.echo(json.dumps(collection(app.api.openapi()), indent=2, ensure_ascii=False))


def collection(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the collection of an OpenAPI document: a folder with first steps, and one for each tag."""
    operations = {each["operationId"]: (method, path, each) for method, path, each in _operations(document)}
    first = []
    for name, body, codes in FIRST_STEPS:
        item = _item(*operations[name])
        if body is not None:
            item["request"]["body"] = _json_body(body)
        for variable in item["request"]["url"]["variable"]:
            variable["value"] = "{{post_id}}"
        expected = f"pm.test('{name}', () => pm.expect(pm.response.code).to.be.oneOf({json.dumps(codes)}));"
        first.append(item | {"event": [_script(expected, *filter(None, [SCRIPTS.get(name)]))]})
    folders: dict[str, list[Item]] = {"First steps": first}
    for method, path, operation in operations.values():
        folders.setdefault(_capitalized(operation["tags"][0]), []).append(_item(method, path, operation))
    return {
        "info": {"name": document["info"]["title"], "schema": SCHEMA, "description": document["info"]["summary"]},
        "auth": {"type": "bearer", "bearer": [{"key": "token", "value": "{{token}}", "type": "string"}]},
        "variable": [{"key": key, "value": value} for key, value in VARIABLES.items()],
        "event": [_script(NO_SERVER_ERROR)],
        "item": [{"name": name, "item": items} for name, items in folders.items()],
    }


def _capitalized(name: str) -> str:
    return name[0].upper() + name[1:]


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def _item(method: str, path: str, operation: Mapping[str, Any]) -> Item:
    parameters = operation.get("parameters", [])
    request: dict[str, Any] = {
        "method": method,
        "description": operation.get("description", ""),
        "url": {
            "raw": "{{base_url}}" + path.replace("{", ":").replace("}", ""),
            "host": ["{{base_url}}"],
            "path": [part.replace("{", ":").replace("}", "") for part in path.strip("/").split("/")],
            "variable": [_parameter(each) for each in parameters if each["in"] == "path"],
            # Not sent until they are ticked.
            "query": [_parameter(each) | {"disabled": True} for each in parameters if each["in"] == "query"],
        },
    }
    if not operation["security"]:
        request["auth"] = {"type": "noauth"}
    if content := operation.get("requestBody", {}).get("content"):
        request["body"] = _body(content)
    item: Item = {"name": operation["summary"], "request": request}
    if script := SCRIPTS.get(operation["operationId"]):
        item["event"] = [_script(script)]
    return item


def _parameter(parameter: Mapping[str, Any]) -> dict[str, Any]:
    schema = parameter.get("schema", {})
    example = parameter.get("example", next(iter(schema.get("examples", [])), schema.get("default", "")))
    return {"key": parameter["name"], "value": str(example), "description": parameter.get("description", "")}


def _body(content: Mapping[str, Any]) -> dict[str, Any]:
    ((kind, described),) = content.items()
    if kind == "application/json":
        return _json_body(described["example"])
    if kind == "multipart/form-data":
        return {"mode": "formdata", "formdata": [{"key": "file", "type": "file", "src": None}]}
    fields = {"username": "{{email}}", "password": "{{password}}"}
    return {"mode": "urlencoded", "urlencoded": [{"key": key, "value": value} for key, value in fields.items()]}


def _json_body(value: object) -> dict[str, Any]:
    raw = json.dumps(value, indent=2, ensure_ascii=False)
    return {"mode": "raw", "raw": raw, "options": {"raw": {"language": "json"}}}


def _script(*lines: str) -> dict[str, Any]:
    return {"listen": "test", "script": {"type": "text/javascript", "exec": [*lines]}}

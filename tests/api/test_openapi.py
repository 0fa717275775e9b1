"""The OpenAPI document describes every operation in full, and `openapi.json` is current."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from app.cli.commands import cli
from app.errors import DomainError
from app.main import app
from app.middleware.problem_details import Problem, ValidationProblem
from app.schemas.api_key import ApiKeyIn
from app.schemas.auth import RefreshIn
from app.schemas.comment import CommentChange, CommentIn
from app.schemas.email_verification import EmailVerification
from app.schemas.invite import InviteIn
from app.schemas.media import AvatarIn, MediaChange
from app.schemas.moderation import BanIn, RemovalIn, ReportIn, ResolutionIn
from app.schemas.notification import ReadUpTo
from app.schemas.password_reset import PasswordReset, PasswordResetRequest
from app.schemas.post import PostChange, PostIn
from app.schemas.totp import CodeIn, PasswordProof
from app.schemas.user import UserChange, UserIn
from app.schemas.vote import VoteIn
from app.schemas.webhook import WebhookIn, WebhookPatch
from tests.contract.answers import resolved

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT: dict[str, Any] = app.api.openapi()
OPERATIONS: dict[str, dict[str, Any]] = {
    f"{method.upper()} {path}": operation
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
}
PUBLIC = {
    "GET /", "GET /livez", "GET /readyz", "GET /users/{id}", "GET /users/by-username/{username}", "POST /users",
    "POST /login", "POST /token/refresh", "POST /password-reset", "POST /password-reset/confirm",
    "POST /email-verification/confirm", "GET /sign-up-challenge", "GET /media/files/{file_name}",
}  # fmt: skip
VERBS = {
    "ban", "cast", "change", "confirm", "create", "delete", "end", "export", "follow", "get", "list", "lock", "login",
    "logout", "mark", "redeliver", "refresh", "remove", "replace", "request", "resolve", "restore", "search", "set",
    "sign", "test", "unban", "unfollow", "unlock", "upload",
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
def test_operations_and_parameters_are_described(name: str) -> None:
    operation = OPERATIONS[name]

    assert operation["summary"]
    assert not operation["summary"].endswith(".")
    assert operation["description"].endswith(".")
    assert operation["summary"] not in operation["description"]
    successes = [answer["description"] for status, answer in operation["responses"].items() if status[0] == "2"]
    assert successes
    assert "Successful Response" not in successes
    assert operation["tags"] == [tag["name"] for tag in DOCUMENT["tags"] if tag["name"] in operation["tags"]]
    assert len(operation["tags"]) == 1
    for parameter in operation.get("parameters", []):
        assert parameter["description"].endswith(".")
        assert "description" not in parameter["schema"]
        assert {"type": "null"} not in parameter["schema"].get("anyOf", [])


def test_schemas_and_properties_and_tags_are_described() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    for name, schema in schemas.items():
        assert schema["description"], name
        assert "title" not in schema
        for field, described in schema.get("properties", {}).items():
            target = schemas[described["$ref"].rsplit("/", 1)[1]] if "$ref" in described else described
            assert {**target, **described}["description"].endswith("."), f"{name}.{field}"
            assert "title" not in described
    for tag in DOCUMENT["tags"]:
        assert tag["description"].endswith(".")


def test_readers_are_addressed_in_plain_english() -> None:
    text = json.dumps(DOCUMENT, ensure_ascii=False).lower()

    found = re.findall(r"\b(?:whoever|nobody|somebody|everybody|anybody|one's|one’s)\b", text)
    assert found == []


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
    if name not in {"GET /", "GET /livez", "GET /sign-up-challenge"}:
        expected.add("503")
    if "{id}" in name:
        expected.add("404")

    assert expected <= statuses
    assert len({status for status in statuses - {"206"} if status < "300"}) == 1
    if name in PUBLIC - {"POST /token/refresh"}:  # Whose credential is in its body.
        assert "401" not in statuses


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_error_refers_to_the_response_of_its_status(name: str) -> None:
    for status, answer in OPERATIONS[name]["responses"].items():
        if status < "400":
            assert "$ref" not in answer
            continue
        assert set(answer) <= {"$ref", "description"}
        (example, *_) = resolved(answer)["content"]["application/json"]["examples"]
        assert DOCUMENT["components"]["examples"][example]["value"]["status"] == int(status)
        if "description" in answer:  # It names only some of the codes.
            assert codes_of(answer) < codes_of(resolved({"$ref": answer["$ref"]}))


def codes_of(answer: dict[str, Any]) -> set[str]:
    return set(re.findall(r"(?:^|; )`([a-z_]+)`: ", answer["description"]))


@pytest.mark.parametrize("name", DOCUMENT["components"]["responses"])
def test_every_error_response_has_the_shape_of_a_problem_and_an_example_of_each_code(name: str) -> None:
    answer = DOCUMENT["components"]["responses"][name]
    schema = "ValidationProblem" if name == "UnprocessableContent" else "Problem"

    assert set(answer["content"]) == {"application/json", "application/problem+json"}
    for content in answer["content"].values():
        assert content["schema"] == {"$ref": f"#/components/schemas/{schema}"}
        assert content["examples"] == {code: {"$ref": f"#/components/examples/{code}"} for code in codes_of(answer)}
    examples = [DOCUMENT["components"]["examples"][code]["value"] for code in codes_of(answer)]
    assert len({example["status"] for example in examples}) == 1
    for example in examples:
        (ValidationProblem if schema == "ValidationProblem" else Problem).model_validate(example)


def test_the_document_is_small() -> None:
    """With 41 operations it had 247 kB, of which 73 % were repeated errors."""
    size = len(json.dumps(DOCUMENT, ensure_ascii=False, separators=(",", ":")).encode())
    assert size < 3_000 * len(OPERATIONS)


def test_every_answer_names_the_headers_that_clients_need() -> None:
    named = {
        name: {status: set(resolved(answer).get("headers", ())) for status, answer in operation["responses"].items()}
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
    answers = [answer for operation in OPERATIONS.values() for answer in operation["responses"].values()]
    of_operations = {code for answer in answers if "$ref" in answer for code in codes_of(resolved(answer))}
    of_responses = {code for answer in DOCUMENT["components"]["responses"].values() for code in codes_of(answer)}
    catalogue = {error.code for error in _subclasses(DomainError)}
    framework = {"validation_failed", "internal_error"}

    assert of_responses == catalogue | framework
    # `not_found` is there for names in paths that contain control characters, which no route has.
    assert of_operations == of_responses


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_document_requires_a_token_where_the_server_does(name: str) -> None:
    security = OPERATIONS[name]["security"]

    credentials: list[dict[str, list[str]]] = [{"OAuth2PasswordBearer": []}, {"SessionCookie": []}]
    # With a credential of the owner it has their e-mail address.
    if name in {"GET /users/{id}", "GET /users/by-username/{username}"}:
        assert security == [{}, *credentials]
    elif name in PUBLIC:
        assert security == []
    else:
        key: list[dict[str, list[str]]] = [{"ApiKey": []}]
        assert security in (credentials, [*credentials[:1], *key, *credentials[1:]])


def test_the_authorize_dialog_begins_with_the_password_form() -> None:
    assert list(DOCUMENT["components"]["securitySchemes"]) == ["OAuth2PasswordBearer", "ApiKey", "SessionCookie"]


def test_signing_in_has_one_answer_and_cookie_mode_is_described_in_words() -> None:
    login = OPERATIONS["POST /login"]

    assert login["responses"]["200"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/SignedIn"
    }
    assert "parameters" not in login
    assert "`POST /login?cookie=true`" in login["description"]
    assert "`POST /login?cookie=true`" in DOCUMENT["components"]["securitySchemes"]["SessionCookie"]["description"]


def test_every_field_of_a_response_is_required() -> None:
    """So clients in TypeScript need no check whether `token_type` is there."""
    schemas = DOCUMENT["components"]["schemas"]
    for operation in OPERATIONS.values():
        for answer in operation["responses"].values():
            schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
            if "$ref" in (schema := schema.get("items", schema)):
                described = schemas[schema["$ref"].rsplit("/", 1)[1]]
                assert set(described["required"]) == set(described["properties"])


def test_no_operation_has_a_fixed_idempotency_key() -> None:
    """Importers make up a value for each header parameter, and would send the same key with every request."""
    documented = {
        name for name, operation in OPERATIONS.items() if "`Idempotency-Key` header: " in operation["description"]
    }

    assert documented == {
        "POST /posts", "POST /users", "POST /vote", "POST /api-keys", "POST /users/me/totp/confirm",
        "POST /posts/{id}/comments", "POST /reports", "POST /invites", "POST /media",
        "POST /webhooks",
    }  # fmt: skip
    for operation in OPERATIONS.values():
        assert "idempotency-key" not in {parameter["name"].lower() for parameter in operation.get("parameters", [])}


def test_enumerations_have_names_and_their_members_too() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    named = {name for name, schema in schemas.items() if "enum" in schema}
    inline = [json.dumps(each["enum"]) for each in _nodes(DOCUMENT) if "enum" in each]

    assert named == {
        "CommentSort", "DeliveryStatus", "Event", "ModerationAction", "NotificationKind", "ReportAction",
        "ReportStatus", "Role", "Scope", "Sort", "TagSort", "VoteDirection", "WebhookEvent", "WebhookScope",
    }  # fmt: skip
    assert len(inline) == len(set(inline))
    for each in _nodes(DOCUMENT):
        values = each.get("enum", ())
        assert all(isinstance(value, str) for value in values) or len(each["x-enum-varnames"]) == len(values)


def test_a_vote_is_documented_by_either_name_of_its_direction() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    content = OPERATIONS["POST /vote"]["requestBody"]["content"]["application/json"]

    assert [each["$ref"].rsplit("/", 1)[1] for each in content["schema"]["anyOf"]] == ["VoteIn", "VoteInByDir"]
    assert set(schemas["VoteIn"]["required"]) == {"post_id", "vote_dir"}
    assert set(schemas["VoteInByDir"]["required"]) == {"post_id", "dir"}
    assert schemas["VoteDirection"]["examples"] == [1]
    assert content["example"] == {"post_id": 1, "vote_dir": 1}
    assert VoteIn.model_validate({"post_id": 1, "dir": 0}).vote_dir == 0


def test_the_form_of_login_is_where_the_document_says() -> None:
    flow = DOCUMENT["components"]["securitySchemes"]["OAuth2PasswordBearer"]["flows"]["password"]

    assert flow["tokenUrl"] == "login"
    assert "application/x-www-form-urlencoded" in OPERATIONS["POST /login"]["requestBody"]["content"]


@pytest.mark.parametrize("schema", ["Profile", "NewUser", "Account"])
def test_an_email_address_is_required_and_typed_as_one(schema: str) -> None:
    described = DOCUMENT["components"]["schemas"][schema]

    assert "email" in described["required"]
    assert described["properties"]["email"]["type"] == "string"
    assert described["properties"]["email"]["format"] == "email"


def test_every_reference_leads_to_a_schema_and_every_schema_is_used() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    prefix = "#/components/schemas/"
    references = {each.removeprefix(prefix) for each in _references(DOCUMENT) if each.startswith(prefix)}

    assert references == set(schemas)


BODIES: dict[str, type[BaseModel]] = {
    "sign_up": UserIn, "change_me": UserChange, "replace_me": UserChange, "change_user": UserChange,
    "replace_user": UserChange, "create_post": PostIn, "replace_post": PostIn, "change_post": PostChange,
    "cast_vote": VoteIn, "create_api_key": ApiKeyIn, "refresh_token": RefreshIn, "create_totp": PasswordProof,
    "delete_totp": PasswordProof, "confirm_totp": CodeIn, "request_password_reset": PasswordResetRequest,
    "confirm_password_reset": PasswordReset, "confirm_email_verification": EmailVerification,
    "create_comment": CommentIn, "change_comment": CommentChange, "mark_notifications_read": ReadUpTo,
    "ban_user": BanIn, "create_report": ReportIn, "resolve_report": ResolutionIn, "remove_post": RemovalIn,
    "remove_comment": RemovalIn,
    "create_invite": InviteIn,
    "change_media": MediaChange, "set_avatar": AvatarIn,
    "create_webhook": WebhookIn, "change_webhook": WebhookPatch,
}  # fmt: skip


def test_every_body_has_an_example_that_is_accepted() -> None:
    examples = {
        operation["operationId"]: content["example"]
        for operation in OPERATIONS.values()
        for kind, content in operation.get("requestBody", {}).get("content", {}).items()
        if kind != "multipart/form-data"
    }

    assert set(examples.pop("login")) == {"username", "password"}
    assert set(examples) == set(BODIES)
    for operation_id, example in examples.items():
        BODIES[operation_id].model_validate(example)


def _references(node: Any) -> Iterator[str]:
    return (each["$ref"] for each in _nodes(node) if isinstance(each.get("$ref"), str))


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Every object in the document."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from _nodes(each)


def _subclasses(error: type[DomainError]) -> Iterator[type[DomainError]]:
    for each in error.__subclasses__():
        yield each
        yield from _subclasses(each)

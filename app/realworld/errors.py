"""Errors as RealWorld has them: `{"errors": {"title": ["can't be blank"]}}`."""

from collections.abc import Mapping
from typing import Any

# Status, key and message by the code of the project's error. Other errors keep their status and sentence.
_ERRORS: Mapping[str, tuple[int, str, str]] = {
    "invalid_credentials": (401, "credentials", "invalid"),
    "post_not_found": (404, "article", "not found"),
    "comment_not_found": (404, "comment", "not found"),
    "user_not_found": (404, "profile", "not found"),
    "email_taken": (409, "email", "has already been taken"),
    "username_taken": (409, "username", "has already been taken"),
}


def translate(status: int, problem: Mapping[str, Any], *, path: str, has_token: bool) -> tuple[int, dict[str, Any]]:
    """Return the status and the body of a problem response.

    `path` says what a refusal is about, and `has_token` whether the request had a token.
    """
    code = str(problem.get("code"))
    # RFC 9457, for clients that accept it, has the list in `errors`.
    detail = problem.get("errors") or problem.get("detail")
    errors: dict[str, list[str]] = {}
    if isinstance(detail, list):
        for item in detail:
            # The last name: the field, without the index in a list.
            names = [part for part in item["loc"] if isinstance(part, str)]
            message = "can't be blank" if item["type"] == "missing" else str(item["msg"])
            errors.setdefault(names[-1], []).append(message)
    elif code == "not_authenticated":
        errors["token"] = ["is invalid" if has_token else "is missing"]
    elif code == "not_authorized":
        errors["comment" if "/comments/" in path else "article"] = ["forbidden"]
    elif code in _ERRORS:
        status, key, message = _ERRORS[code]
        errors[key] = [message]
    else:
        errors["server" if status >= 500 else "message"] = [str(detail)]
    return status, {"errors": errors}

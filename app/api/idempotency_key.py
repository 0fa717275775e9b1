"""The `Idempotency-Key` header, and stored responses over HTTP."""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

from fastapi import Depends, Header
from pydantic import BaseModel
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from app.api.responses import relative_location
from app.config import get_settings
from app.middleware.path_aliases import VERSION_PREFIX
from app.security import encryption
from app.services import idempotency

KeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="A value that you choose for this request, such as a UUID. Repeated within 24 hours with the same "
        "key and body, the request gets the same response and has no second effect.",
    ),
]


async def idempotent_request(request: Request, key: KeyHeader = None) -> idempotency.Request | None:
    """Return the idempotency key with fingerprints of the request, if it has a key.

    The fingerprints are keyed hashes, because a body may contain a password.
    """
    if key is None:
        return None
    route = request.scope["route"].name
    # The path of most creates has no parameters.
    path = f"{request.path_params}:" if request.path_params else ""
    content = f"idempotency:{route}:{path}".encode() + await request.body()
    secrets = get_settings().accepted_secrets
    return idempotency.Request(key, [hmac.digest(secret.encode(), content, hashlib.sha256) for secret in secrets])


IdempotentRequest = Annotated[idempotency.Request | None, Depends(idempotent_request)]


def respond_once(
    db: Session,
    request: idempotency.Request | None,
    user_id: int | None,
    create: Callable[[], tuple[BaseModel, str | None]],
    *,
    http_request: Request | None = None,
    status: int = 201,
    is_secret: bool = False,
) -> Response:
    """Respond with the result and location of `create`, or with the stored response.

    A secret response is stored encrypted. The location is a path of this API, such as `/posts/7`. The `Location` header
    is relative to the `http_request`.
    """

    def effect() -> idempotency.StoredResponse:
        created, location = create()
        body = created.model_dump_json().encode()
        return idempotency.StoredResponse(status, encryption.encrypt(body) if is_secret else body, location)

    stored = idempotency.run_once(db, request and request.of(user_id), effect)
    if stored.location is not None and http_request is not None:
        # The previous release stored `/v1/posts/7`.
        location = relative_location(http_request, stored.location.removeprefix(VERSION_PREFIX))
        stored = replace(stored, location=location)
    if is_secret:
        body, _ = encryption.decrypt(stored.body)
        stored = replace(stored, body=body)
    return respond_with(stored)


def respond_with(stored: idempotency.StoredResponse) -> Response:
    """Return the HTTP response; a replay has the header `Idempotency-Replayed`."""
    headers = {}
    if stored.location is not None:
        headers["Location"] = stored.location
    if stored.is_replay:
        headers["Idempotency-Replayed"] = "true"
    return Response(stored.body, status_code=stored.status, headers=headers, media_type="application/json")

"""`/webhooks`: create, list, change, test and delete the caller's webhooks, and see their deliveries."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from app.api.authentication import CurrentUser
from app.api.idempotency_key import IdempotentRequest, respond_once
from app.api.pagination import cut_and_link
from app.api.route import Route
from app.database.sessions import SessionDep
from app.errors import (
    DeliveryNotFound,
    IdempotencyInProgress,
    IdempotencyMismatch,
    MalformedCursor,
    NotAuthenticated,
    NotAuthorized,
    QuotaExceeded,
    TooManyTries,
    WebhookDisabled,
    WebhookNotFound,
)
from app.middleware.problem_details import headers, responses
from app.schemas.page import page_of
from app.schemas.types import Cursor, Id, Limit
from app.schemas.webhook import DeliveryOut, NewWebhook, WebhookIn, WebhookOut, WebhookPatch
from app.security import attempt_limits
from app.services import webhook

router = APIRouter(prefix="/webhooks", tags=["webhooks"], route_class=Route)

WebhookId = Annotated[Id, Path(alias="id")]


@router.post(
    "",
    status_code=201,
    response_model=NewWebhook,
    responses={
        201: headers("Location"),
        **responses(NotAuthenticated, NotAuthorized, QuotaExceeded, IdempotencyInProgress, IdempotencyMismatch),
    },
)
def create_webhook(
    new: WebhookIn, caller: CurrentUser, db: SessionDep, idempotent: IdempotentRequest, request: Request
) -> Response:
    """Create a webhook. Its secret is returned only in this response."""

    def create() -> tuple[NewWebhook, str]:
        made = webhook.create(db, caller.id, new)
        return made, f"/webhooks/{made.id}"

    return respond_once(db, idempotent, caller.id, create, http_request=request, is_secret=True)


@router.get("", response_model=list[WebhookOut], responses=responses(NotAuthenticated, MalformedCursor))
def list_webhooks(
    caller: CurrentUser,
    db: SessionDep,
    response: Response,
    limit: Annotated[Limit, Query()] = 10,
    cursor: Annotated[Cursor | None, Query()] = None,
) -> Sequence[WebhookOut]:
    """List your webhooks by ascending id. Disabled ones are listed, too."""
    page = page_of("webhooks", limit=limit, cursor=cursor)
    return cut_and_link(response, page, webhook.list_own(db, caller.id, page))


@router.get("/{id}", response_model=WebhookOut, responses=responses(NotAuthenticated, WebhookNotFound))
def get_webhook(webhook_id: WebhookId, caller: CurrentUser, db: SessionDep) -> WebhookOut:
    """Get one of your webhooks. Its secret is shown only once, when it is created."""
    return webhook.get(db, caller.id, webhook_id)


@router.patch("/{id}", response_model=WebhookOut, responses=responses(NotAuthenticated, WebhookNotFound))
def change_webhook(webhook_id: WebhookId, patch: WebhookPatch, caller: CurrentUser, db: SessionDep) -> WebhookOut:
    """Change a webhook, disable it, or enable it again. What waited when it was disabled is not sent later."""
    return webhook.change(db, caller.id, webhook_id, patch)


@router.delete("/{id}", status_code=204, responses=responses(NotAuthenticated, WebhookNotFound))
def delete_webhook(webhook_id: WebhookId, caller: CurrentUser, db: SessionDep) -> None:
    """Delete a webhook. What waits for it is not sent any more."""
    webhook.remove(db, caller.id, webhook_id)


@router.post(
    "/{id}/test",
    status_code=202,
    response_model=DeliveryOut,
    responses=responses(NotAuthenticated, WebhookNotFound, WebhookDisabled, TooManyTries),
)
def test_webhook(webhook_id: WebhookId, caller: CurrentUser, db: SessionDep) -> DeliveryOut:
    """Queue a delivery of the kind `test`. It is sent within seconds; within five minutes after failures.

    The list of deliveries has its outcome.
    """
    webhook.get(db, caller.id, webhook_id)
    attempt_limits.spend(attempt_limits.WEBHOOK_TEST_OF_ACCOUNT, str(caller.id))
    return webhook.test(db, caller.id, webhook_id)


@router.get(
    "/{id}/deliveries",
    response_model=list[DeliveryOut],
    responses=responses(NotAuthenticated, WebhookNotFound, MalformedCursor),
)
def list_deliveries(
    webhook_id: WebhookId,
    caller: CurrentUser,
    db: SessionDep,
    response: Response,
    limit: Annotated[Limit, Query()] = 10,
    cursor: Annotated[Cursor | None, Query()] = None,
) -> Sequence[DeliveryOut]:
    """List the deliveries of a webhook, newest first. Besides those that wait, the newest 1,000 are kept."""
    page = page_of("deliveries", limit=limit, cursor=cursor)
    return cut_and_link(response, page, webhook.list_deliveries(db, caller.id, webhook_id, page))


@router.post(
    "/{id}/deliveries/{delivery_id}/redeliver",
    status_code=202,
    response_model=DeliveryOut,
    responses=responses(NotAuthenticated, WebhookNotFound, DeliveryNotFound, WebhookDisabled, TooManyTries),
)
def redeliver(
    webhook_id: WebhookId, delivery_id: Annotated[Id, Path()], caller: CurrentUser, db: SessionDep
) -> DeliveryOut:
    """Queue a delivery again. It is sent with the same `webhook-id`, also if it succeeded before."""
    webhook.get(db, caller.id, webhook_id)
    attempt_limits.spend(attempt_limits.WEBHOOK_TEST_OF_ACCOUNT, str(caller.id))
    return webhook.redeliver(db, caller.id, webhook_id, delivery_id)

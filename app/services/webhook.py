"""Webhooks: create, list, change, test and delete them, and list their deliveries."""

from collections.abc import Sequence

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session

from app import models
from app.config import get_settings
from app.errors import (
    DeliveryNotFound,
    NotAuthenticated,
    NotAuthorized,
    QuotaExceeded,
    WebhookDisabled,
    WebhookNotFound,
)
from app.models.security_event import Event
from app.schemas.page import KeysetPage
from app.schemas.webhook import DeliveryOut, NewWebhook, WebhookIn, WebhookOut, WebhookPatch
from app.security import audit_log, encryption
from app.webhooks import queue, signatures


def create(db: Session, user_id: int, new: WebhookIn) -> NewWebhook:
    """Create a webhook of the caller.

    The lock serializes the creation, so that each counts those before, and waits for a change of the role. Raises
    `NotAuthorized` for the scope `all` of others than admins, and `QuotaExceeded` past `WEBHOOKS_MAX`.
    """
    account = select(models.User.role).where(models.User.id == user_id, models.User.is_active, ~models.User.is_banned())
    role = db.scalar(account.with_for_update(key_share=True))
    if role is None:
        raise NotAuthenticated
    if new.scope == "all" and role != "admin":
        raise NotAuthorized
    maximum = get_settings().webhooks_max
    own = select(func.count()).where(models.Webhook.owner_id == user_id)
    if (db.scalar(own) or 0) >= maximum:
        raise QuotaExceeded(maximum, "webhooks")
    queue.begin(db)
    secret = signatures.make_secret()
    values = new.model_dump() | {"owner_id": user_id, "secret": encryption.encrypt(secret.encode())}
    made = db.scalars(insert(models.Webhook).values(values).returning(models.Webhook)).one()
    audit_log.record(db, Event.WEBHOOK_CREATED, user_id, webhook_id=made.id, scope=made.scope)
    return NewWebhook(**WebhookOut.model_validate(made).model_dump(), secret=secret)


# Not `due_at`, which psycopg2 cannot read where it is `infinity`.
_SHOWN = (
    models.Webhook.id, models.Webhook.url, models.Webhook.events, models.Webhook.scope, models.Webhook.created_at,
    models.Webhook.failing_since, models.Webhook.disabled_at, models.Webhook.disabled_at.is_(None).label("enabled"),
)  # fmt: skip


def list_own(db: Session, user_id: int, page: KeysetPage) -> list[WebhookOut]:
    """Return the user's webhooks by ascending id."""
    own = select(*_SHOWN).where(models.Webhook.owner_id == user_id)
    return [WebhookOut.model_validate(row) for row in db.execute(page.select(own, models.Webhook.id))]


def get(db: Session, user_id: int, webhook_id: int) -> WebhookOut:
    """Return one of the user's webhooks. Raises `WebhookNotFound`."""
    own = select(*_SHOWN).where(models.Webhook.id == webhook_id, models.Webhook.owner_id == user_id)
    row = db.execute(own).one_or_none()
    if row is None:
        raise WebhookNotFound(webhook_id)
    return WebhookOut.model_validate(row)


def _lock(db: Session, user_id: int, webhook_id: int) -> bool:
    """Lock one of the user's webhooks; return whether it is enabled. Raises `WebhookNotFound`."""
    own = select(models.Webhook.disabled_at.is_(None))
    own = own.where(models.Webhook.id == webhook_id, models.Webhook.owner_id == user_id)
    is_enabled = db.scalar(own.with_for_update(key_share=True))
    if is_enabled is None:
        raise WebhookNotFound(webhook_id)
    return is_enabled


def change(db: Session, user_id: int, webhook_id: int, patch: WebhookPatch) -> WebhookOut:
    """Change the URL or the kinds of events, or disable or enable the webhook. Raises `WebhookNotFound`."""
    is_enabled = _lock(db, user_id, webhook_id)
    changes = patch.model_dump(exclude_none=True)
    enabled = changes.pop("enabled", is_enabled)
    if enabled and not is_enabled:
        changes |= {"enabled_at": func.now(), "disabled_at": None, "failing_since": None, "failure_count": 0}
    if changes:
        db.execute(update(models.Webhook).where(models.Webhook.id == webhook_id).values(changes))
    if is_enabled and not enabled:
        queue.disable(db, webhook_id, "its owner disabled it")
    return get(db, user_id, webhook_id)


def remove(db: Session, user_id: int, webhook_id: int) -> None:
    """Delete one of the user's webhooks. Cleanup removes its deliveries. Raises `WebhookNotFound`."""
    _lock(db, user_id, webhook_id)
    db.execute(delete(models.Webhook).where(models.Webhook.id == webhook_id))
    audit_log.record(db, Event.WEBHOOK_DELETED, user_id, webhook_id=webhook_id)


def test(db: Session, user_id: int, webhook_id: int) -> DeliveryOut:
    """Queue a delivery of the kind `test`. Raises `WebhookNotFound` and `WebhookDisabled`."""
    if not _lock(db, user_id, webhook_id):
        raise WebhookDisabled
    return _shown(queue.add_test(db, webhook_id))


def list_deliveries(db: Session, user_id: int, webhook_id: int, page: KeysetPage) -> Sequence[DeliveryOut]:
    """Return the deliveries of one of the user's webhooks, newest first. Raises `WebhookNotFound`."""
    get(db, user_id, webhook_id)
    rows = select(models.WebhookDelivery).where(models.WebhookDelivery.webhook_id == webhook_id)
    return [_shown(row) for row in db.scalars(page.select(rows, models.WebhookDelivery.id, is_descending=True))]


def redeliver(db: Session, user_id: int, webhook_id: int, delivery_id: int) -> DeliveryOut:
    """Queue a delivery again, with the same `webhook-id`. What waits becomes due at once.

    Raises `WebhookNotFound`, `DeliveryNotFound` and `WebhookDisabled`.
    """
    if not _lock(db, user_id, webhook_id):
        raise WebhookDisabled
    queue.wake(db, webhook_id)  # Before the delivery changes: a webhook that waits for it is due when it is.
    delivery = models.WebhookDelivery
    again = (
        update(delivery)
        .where(delivery.id == delivery_id, delivery.webhook_id == webhook_id)
        .values(status="waiting", due_at=func.now())
    )
    found = db.scalars(again.returning(delivery)).one_or_none()
    if found is None:
        raise DeliveryNotFound(delivery_id)
    return _shown(found)


def _shown(delivery: models.WebhookDelivery) -> DeliveryOut:
    shown = DeliveryOut.model_validate(delivery)
    return shown if shown.status == "waiting" else shown.model_copy(update={"due_at": None})

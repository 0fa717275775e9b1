"""What happened to accounts, as rows that their owners can read and lines that operators can.

A row is written in the transaction of what it tells of; so it is there exactly when that happened.
"""

import logging
from enum import StrEnum

from sqlalchemy import Connection
from sqlalchemy.orm import Session

logger = logging.getLogger("app.audit")


class Event(StrEnum):
    """Everything that is told."""

    SIGNED_UP = "signed_up"
    SIGNED_IN = "signed_in"
    SIGN_IN_FAILED = "sign_in_failed"
    SIGNED_OUT = "signed_out"
    SESSION_ENDED = "session_ended"
    REFRESH_REPLAYED = "refresh_replayed"
    PASSWORD_CHANGED = "password_changed"  # noqa: S105
    PASSWORD_RESET_REQUESTED = "password_reset_requested"  # noqa: S105
    PASSWORD_RESET = "password_reset"  # noqa: S105
    EMAIL_CHANGED = "email_changed"
    EMAIL_VERIFIED = "email_verified"
    ROLE_CHANGED = "role_changed"
    ACCOUNT_DISABLED = "account_disabled"
    ACCOUNT_ENABLED = "account_enabled"
    ACCOUNT_DELETED = "account_deleted"
    TOTP_ENABLED = "totp_enabled"
    TOTP_DISABLED = "totp_disabled"
    TOTP_FAILED = "totp_failed"
    RECOVERY_CODE_USED = "recovery_code_used"
    API_KEY_CREATED = "api_key_created"
    API_KEY_DELETED = "api_key_deleted"
    LIMIT_REACHED = "limit_reached"
    NOT_AUTHORIZED = "not_authorized"


def record(db: Session | Connection | None, event: Event, user_id: int | None, **details: str | int | None) -> None:
    """Tell of an event, with the request's id and address (`app.context`) and such details as hold no secret.

    With `db` a row is added to its transaction; None for what has no account, or was rolled back: only the log has it.
    """
    logger.info("%s user=%s %s", event, user_id, details)

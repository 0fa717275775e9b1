"""The tables, all importable from here, such as `models.Post`."""

from app.config import Role
from app.models.api_key import ApiKey, Scope
from app.models.attempt_counter import AttemptCounter
from app.models.base import Base
from app.models.block import Block
from app.models.bookmark import Bookmark
from app.models.comment import Comment, CommentStats, CommentVote
from app.models.deletion import Deletion
from app.models.event import Event, EventKind
from app.models.follow import Follow
from app.models.idempotency_key import IdempotencyKey
from app.models.invite import Invite
from app.models.mail_token import MailToken, MailTokenPurpose
from app.models.media import Media, MediaRemoval
from app.models.moderation import ModerationAction, ModerationEntry, Report, ReportAction
from app.models.notification import NOTIFICATION_KINDS, Notification, NotificationKind, PostMute
from app.models.outgoing_mail import MailKind, OutgoingMail
from app.models.post import Post, PostStats
from app.models.post_stats_history import PostStatsHistory
from app.models.schedule import Schedule
from app.models.security_event import SecurityEvent
from app.models.session import Session, SessionKind
from app.models.tag import PostTag, Tag, TagFollow, TagStats
from app.models.totp import RecoveryCode, Totp
from app.models.user import User, UserStats
from app.models.vote import Vote
from app.models.webhook import DeliveryStatus, EventPosition, Webhook, WebhookDelivery, WebhookScope

__all__ = [
    "NOTIFICATION_KINDS",
    "ApiKey",
    "AttemptCounter",
    "Base",
    "Block",
    "Bookmark",
    "Comment",
    "CommentStats",
    "CommentVote",
    "Deletion",
    "DeliveryStatus",
    "Event",
    "EventKind",
    "EventPosition",
    "Follow",
    "IdempotencyKey",
    "Invite",
    "MailKind",
    "MailToken",
    "MailTokenPurpose",
    "Media",
    "MediaRemoval",
    "ModerationAction",
    "ModerationEntry",
    "Notification",
    "NotificationKind",
    "OutgoingMail",
    "Post",
    "PostMute",
    "PostStats",
    "PostStatsHistory",
    "PostTag",
    "RecoveryCode",
    "Report",
    "ReportAction",
    "Role",
    "Schedule",
    "Scope",
    "SecurityEvent",
    "Session",
    "SessionKind",
    "Tag",
    "TagFollow",
    "TagStats",
    "Totp",
    "User",
    "UserStats",
    "Vote",
    "Webhook",
    "WebhookDelivery",
    "WebhookScope",
]  # fmt: skip

"""The tables. `models.Post` works from anywhere."""

from app.models.allowance import Allowance
from app.models.base import Base
from app.models.idempotency_key import IdempotencyKey
from app.models.post import Post, PostStats, PostStatsHistory
from app.models.session import Session
from app.models.user import Role, User
from app.models.vote import Vote

__all__ = [
    "Allowance", "Base", "IdempotencyKey", "Post", "PostStats", "PostStatsHistory", "Role", "Session", "User", "Vote",
]  # fmt: skip

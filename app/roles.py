"""What an account may be. By itself, because the command line knows it before anything else is imported."""

from typing import Literal

Role = Literal["user", "moderator", "admin"]

# They see drafts of others and delete posts of others.
MODERATING: frozenset[Role] = frozenset({"moderator", "admin"})

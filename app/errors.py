"""The catalogue of everything that can go wrong by design, and what a broken constraint means; imports nothing of ours.

DomainError
├── NotAuthenticated            401   no valid token, or its session has ended
├── InvalidCredentials          403   wrong e-mail, username or password at sign-in
├── WrongPassword               403   `current_password` is missing or wrong
├── NotAuthorized               403   somebody else's
├── InvalidToken                403   a token from a mail that is wrong, used, replaced or expired
├── NotFound, PostNotFound, VotedPostNotFound, VoteNotFound, UserNotFound   404
├── EmailTaken, UsernameTaken, AlreadyVoted, IdempotencyInProgress   409
├── PreconditionFailed          412   it changed meanwhile
├── BodyTooLarge                413
├── IdempotencyMismatch, MalformedCursor   422
├── TooManyTries                429   a limit on guessing
├── Overloaded                  503   too many wait already
├── Unavailable                 503   the database does not answer
└── NotReady                    503   stopping, or not migrated

A class's docstring is the message that clients read, and the text in OpenAPI.
"""

from collections.abc import Mapping
from typing import ClassVar


class DomainError(Exception):
    """Something that a client can meet: an HTTP status, a code that stays the same, and a sentence."""

    status: ClassVar[int]
    code: ClassVar[str]
    headers: ClassVar[Mapping[str, str]] = {}

    def __init__(self, detail: str | None = None) -> None:
        self.detail = detail or (type(self).__doc__ or "")
        super().__init__(self.detail)


class NotAuthenticated(DomainError):
    """Could not validate credentials"""

    status = 401
    code = "not_authenticated"
    headers: ClassVar[Mapping[str, str]] = {"WWW-Authenticate": "Bearer"}


class InvalidCredentials(DomainError):
    """Invalid Credentials"""

    status = 403
    code = "invalid_credentials"


class WrongPassword(DomainError):
    """current_password is missing or wrong"""

    status = 403
    code = "wrong_password"


class NotAuthorized(DomainError):
    """Not authorized to perform requested action"""

    status = 403
    code = "not_authorized"


class InvalidToken(DomainError):
    """The token is wrong, was used, was replaced by a newer one, or has expired"""

    status = 403
    code = "invalid_token"


class NotFound(DomainError):
    """Not Found"""

    status = 404
    code = "not_found"


class PostNotFound(DomainError):
    """There is no such post, or it is somebody else's draft"""

    status = 404
    code = "post_not_found"

    def __init__(self, post_id: int) -> None:
        super().__init__(f"post with id: {_shown(post_id)} was not found")


class VotedPostNotFound(PostNotFound):
    """The post to vote on does not exist, or is a draft"""

    def __init__(self, post_id: int) -> None:
        DomainError.__init__(self, f"Post with id: {_shown(post_id)} does not exist")


class VoteNotFound(DomainError):
    """Vote does not exist"""

    status = 404
    code = "vote_not_found"


class UserNotFound(DomainError):
    """There is no such user"""

    status = 404
    code = "user_not_found"

    def __init__(self, user_id: int) -> None:
        super().__init__(f"User with id: {_shown(user_id)} does not exist")


class EmailTaken(DomainError):
    """A user with this email already exists"""

    status = 409
    code = "email_taken"


class UsernameTaken(DomainError):
    """This username is taken"""

    status = 409
    code = "username_taken"


class AlreadyVoted(DomainError):
    """The caller has already voted on this post"""

    status = 409
    code = "already_voted"

    def __init__(self, user_id: int, post_id: int) -> None:
        super().__init__(f"user {user_id} has already voted on post {post_id}")


class IdempotencyInProgress(DomainError):
    """A request with this Idempotency-Key is still running; try again in a moment"""

    status = 409
    code = "idempotency_in_progress"
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "1"}


class PreconditionFailed(DomainError):
    """The post was changed meanwhile; read it again"""

    status = 412
    code = "precondition_failed"


class BodyTooLarge(DomainError):
    """The request body is too large"""

    status = 413
    code = "body_too_large"


class IdempotencyMismatch(DomainError):
    """This Idempotency-Key was used for a different request"""

    status = 422
    code = "idempotency_mismatch"


class MalformedCursor(DomainError):
    """The cursor is not one that this API gave for this list"""

    status = 422
    code = "malformed_cursor"


class TooManyTries(DomainError):
    """Too many tries; wait for as long as Retry-After says"""

    status = 429
    code = "too_many_tries"


class Overloaded(DomainError):
    """Too many requests are waiting; try again in a moment"""

    status = 503
    code = "overloaded"
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "1"}


class Unavailable(DomainError):
    """The database does not answer; try again in a moment"""

    status = 503
    code = "unavailable"
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "1"}


class NotReady(DomainError):
    """The server is not ready for requests"""

    status = 503
    code = "not_ready"
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "1"}


# What it means when PostgreSQL refuses a row. A constraint that is not named here stays a 500: it is our bug.
BROKEN_CONSTRAINTS: Mapping[str, type[DomainError]] = {
    "users_email_canonical_key": EmailTaken,
    "users_username_key": UsernameTaken,
    # The account was deleted between the check of its session and the write.
    "posts_users_fkey": NotAuthenticated,
    "sessions_users_fkey": InvalidCredentials,
    "idempotency_keys_users_fkey": NotAuthenticated,
}


def _shown(number: int) -> str:
    """Ids past int8 can have thousands of digits, which no message needs."""
    return str(number) if -(2**63) <= number < 2**63 else "out of range"

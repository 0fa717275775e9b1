"""The catalogue of domain errors, and the error of each broken constraint.

Imports no other module of the project.

DomainError
├── InvalidHost                 400   no `Host`, or two
├── NotAuthenticated            401   no valid token, or its session has ended
│   └── CredentialMissing       401   no credential at all
├── InvalidCredentials          403   wrong e-mail, username or password at sign-in
├── Banned                      403   the password is correct, but a moderator has banned the account
├── OtpRequired                 403   the password is correct, but a second factor is required
├── WrongPassword               403   `current_password` is missing or wrong
├── WrongCode                   403   the authenticator's code is wrong or expired
├── InsufficientScope           403   the API key lacks the scope, or the route is closed to keys
├── NotAuthorized               403   the resource belongs to another user, or the route needs a role
├── Blocked                     403   one of the two users has blocked the other
├── Removed                     403   a moderator has removed the post to publish
├── CrossSiteRequest            403   the session cookie came with a request from another site
├── InvalidToken                403   a mailed token is wrong, used, replaced or expired
├── InvalidInvite               403   the invite is missing, wrong, used up or expired
├── InvalidProof                403   the proof of work is missing, wrong, expired or used
├── RegistrationClosed          403   the server accepts no new accounts
├── NotFound, PostNotFound, VotedPostNotFound, VoteNotFound, CommentNotFound, UserNotFound   404
├── SessionNotFound, ApiKeyNotFound, TotpNotFound, InviteNotFound   404
├── ReportNotFound, MediaNotFound, WebhookNotFound, DeliveryNotFound   404
├── UploadTimeout               408   an upload took too long to arrive
├── AlreadyReported, AlreadyResolved, WebhookDisabled   409
├── EmailTaken, UsernameTaken, AlreadyVoted, TotpEnabled, IdempotencyInProgress   409
├── ExportInProgress            409   another export of the account is running
├── QuotaExceeded               409   the account has the maximum number of API keys, drafts, follows and the like
├── MediaInUse                  409   another post, or the profile, uses the picture
├── LastAdmin                   409   no active admin would remain
├── StillReferenced             409   rows of a table outside this project refer to it
├── ConstraintViolated          409   a constraint outside this project forbids the write
├── PreconditionFailed          412   the resource has changed since it was read
├── BodyTooLarge                413
├── UriTooLong                  414
├── UnsupportedEncoding         415   a compressed body
├── UnsupportedMedia            415   the upload is no picture of a supported format
├── IdempotencyMismatch, MalformedCursor, RepliesTooDeep   422
├── NotRemovable                422   a report of an account, which can only be banned
├── PictureTooLarge, PictureDamaged   422   the upload cannot be decoded within the limits, or at all
├── NotYourself                 422   the caller's own account, where only another one is possible
├── TooManyTries                429   too many attempts to sign in, to sign up, with a code, or for a mail
├── RateLimited                 429   too many requests of any kind
├── TooManyStreams              429   the account has too many live streams
├── HeadersTooLarge             431
├── Overloaded                  503   too many requests are waiting
├── Unavailable                 503   the database does not answer
├── MediaUnavailable            503   pictures cannot be decoded or stored
└── NotReady                    503   stopping, or not migrated

A class's docstring is the message that clients read, and the text in OpenAPI.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import ClassVar


class DomainError(Exception):
    """An error that clients can receive: an HTTP status, a stable code and a sentence."""

    status: ClassVar[int]
    code: ClassVar[str]
    headers: Mapping[str, str] = {}

    def __init__(self, detail: str | None = None) -> None:
        self.detail = detail or (type(self).__doc__ or "")
        super().__init__(self.detail)


class InvalidHost(DomainError):
    """The request must have exactly one Host header"""

    status = 400
    code = "invalid_host"


class NotAuthenticated(DomainError):
    """Could not validate credentials"""

    status = 401
    code = "not_authenticated"
    headers: Mapping[str, str] = {"WWW-Authenticate": "Bearer"}


class CredentialMissing(NotAuthenticated):
    """Not authenticated"""


class InvalidCredentials(DomainError):
    """Invalid Credentials"""

    status = 403
    code = "invalid_credentials"


class Banned(DomainError):
    """A moderator has banned your account"""

    status = 403
    code = "banned"

    def __init__(self, reason: str = "", until: datetime | None = None) -> None:
        end = "" if until is None else f" until {until.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        super().__init__(f"A moderator has banned your account{end}: {reason}")


class OtpRequired(DomainError):
    """Two-factor authentication is enabled: send a code or a recovery code as `otp`"""

    status = 403
    code = "otp_required"


class WrongPassword(DomainError):
    """current_password is missing or wrong"""

    status = 403
    code = "wrong_password"


class WrongCode(DomainError):
    """The code is wrong or has expired"""

    status = 403
    code = "wrong_code"


class InsufficientScope(DomainError):
    """The API key does not allow this"""

    status = 403
    code = "insufficient_scope"
    headers: Mapping[str, str] = {"WWW-Authenticate": 'Bearer error="insufficient_scope"'}


class NotAuthorized(DomainError):
    """Not authorized to perform requested action"""

    status = 403
    code = "not_authorized"


class Blocked(DomainError):
    """You have blocked this user, or they have blocked you"""

    status = 403
    code = "blocked"


class Locked(DomainError):
    """A moderator has locked this post, so it accepts no comments"""

    status = 403
    code = "locked"


class Removed(DomainError):
    """A moderator has removed this post, so it cannot be published"""

    status = 403
    code = "removed"


class CrossSiteRequest(DomainError):
    """The session cookie only works for pages of the API's own origin; send `Authorization: Bearer …`"""

    status = 403
    code = "cross_site_request"


class InvalidToken(DomainError):
    """The token is wrong, used, replaced by a newer one, or expired"""

    status = 403
    code = "invalid_token"


class InvalidInvite(DomainError):
    """Signing up needs an invite, and this one is missing, wrong, used up or expired"""

    status = 403
    code = "invalid_invite"


class InvalidProof(DomainError):
    """Signing up needs a new solution of GET /sign-up-challenge as proof_of_work"""

    status = 403
    code = "invalid_proof"


class RegistrationClosed(DomainError):
    """This server accepts no new accounts"""

    status = 403
    code = "registration_closed"


class NotFound(DomainError):
    """Not Found"""

    status = 404
    code = "not_found"


class PostNotFound(DomainError):
    """The post does not exist, or is another user's draft"""

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


class CommentNotFound(DomainError):
    """The comment does not exist, is deleted, or is on a post that you cannot see"""

    status = 404
    code = "comment_not_found"

    def __init__(self, comment_id: int) -> None:
        super().__init__(f"comment with id: {_shown(comment_id)} was not found")


class UserNotFound(DomainError):
    """The user does not exist"""

    status = 404
    code = "user_not_found"

    def __init__(self, user: int | str) -> None:
        which = f"username: {user}" if isinstance(user, str) else f"id: {_shown(user)}"
        super().__init__(f"User with {which} does not exist")


class SessionNotFound(DomainError):
    """You have no such session"""

    status = 404
    code = "session_not_found"

    def __init__(self, session_id: int) -> None:
        super().__init__(f"session with id: {_shown(session_id)} was not found")


class ApiKeyNotFound(DomainError):
    """You have no such API key"""

    status = 404
    code = "api_key_not_found"


class TotpNotFound(DomainError):
    """Two-factor authentication is not set up"""

    status = 404
    code = "totp_not_found"


class ReportNotFound(DomainError):
    """The report does not exist"""

    status = 404
    code = "report_not_found"

    def __init__(self, report_id: int) -> None:
        super().__init__(f"report with id: {_shown(report_id)} was not found")


class WebhookNotFound(DomainError):
    """You have no such webhook"""

    status = 404
    code = "webhook_not_found"

    def __init__(self, webhook_id: int) -> None:
        super().__init__(f"webhook with id: {_shown(webhook_id)} was not found")


class DeliveryNotFound(DomainError):
    """The webhook has no such delivery"""

    status = 404
    code = "delivery_not_found"

    def __init__(self, delivery_id: int) -> None:
        super().__init__(f"delivery with id: {_shown(delivery_id)} was not found")


class InviteNotFound(DomainError):
    """You have no such invite"""

    status = 404
    code = "invite_not_found"

    def __init__(self, invite_id: int) -> None:
        super().__init__(f"invite with id: {_shown(invite_id)} was not found")


class MediaNotFound(DomainError):
    """This picture does not exist, or is not yours"""

    status = 404
    code = "media_not_found"


class UploadTimeout(DomainError):
    """The upload took too long to arrive"""

    status = 408
    code = "upload_timeout"


class EmailTaken(DomainError):
    """A user with this email already exists"""

    status = 409
    code = "email_taken"


class UsernameTaken(DomainError):
    """This username is taken"""

    status = 409
    code = "username_taken"


class AlreadyVoted(DomainError):
    """You have already voted for this post"""

    status = 409
    code = "already_voted"

    def __init__(self, user_id: int, post_id: int) -> None:
        super().__init__(f"user {user_id} has already voted on post {post_id}")


class AlreadyReported(DomainError):
    """You have already reported this, and no moderator has resolved it yet"""

    status = 409
    code = "already_reported"


class WebhookDisabled(DomainError):
    """The webhook is disabled; enable it first"""

    status = 409
    code = "webhook_disabled"


class AlreadyResolved(DomainError):
    """The report is already resolved"""

    status = 409
    code = "already_resolved"


class TotpEnabled(DomainError):
    """Two-factor authentication is already enabled; disable it first"""

    status = 409
    code = "totp_enabled"


class QuotaExceeded(DomainError):
    """The account has the maximum number of such items; delete one first"""

    status = 409
    code = "quota_exceeded"

    def __init__(self, maximum: int, things: str, remedy: str = "delete one first") -> None:
        super().__init__(f"Your account has the maximum of {maximum} {things}; {remedy}")


class MediaInUse(DomainError):
    """Another post or your profile uses this picture; upload it again to use it twice"""

    status = 409
    code = "media_in_use"


class IdempotencyInProgress(DomainError):
    """A request with this Idempotency-Key is still running; try again in a moment"""

    status = 409
    code = "idempotency_in_progress"
    headers: Mapping[str, str] = {"Retry-After": "1"}


class ExportInProgress(DomainError):
    """Another export of your account is running; try again when it has ended"""

    status = 409
    code = "export_in_progress"
    headers: Mapping[str, str] = {"Retry-After": "10"}


class LastAdmin(DomainError):
    """This is the last active admin; appoint another one first"""

    status = 409
    code = "last_admin"


class StillReferenced(DomainError):
    """Other data on this server refers to it, so it cannot be deleted; ask the operator"""

    status = 409
    code = "still_referenced"


class ConstraintViolated(DomainError):
    """A rule of this server's database forbids this; ask the operator"""

    status = 409
    code = "constraint_violated"


class PreconditionFailed(DomainError):
    """The resource has changed since you read it; read it again"""

    status = 412
    code = "precondition_failed"


class BodyTooLarge(DomainError):
    """The request body is too large"""

    status = 413
    code = "body_too_large"


class UriTooLong(DomainError):
    """The path and query are longer than 16 KB"""

    status = 414
    code = "uri_too_long"


class UnsupportedMedia(DomainError):
    """The file is no picture in JPEG, PNG, WebP or GIF"""

    status = 415
    code = "unsupported_media"


class UnsupportedEncoding(DomainError):
    """The request body is compressed; send it without Content-Encoding"""

    status = 415
    code = "unsupported_encoding"
    headers: Mapping[str, str] = {"Accept-Encoding": "identity"}


class IdempotencyMismatch(DomainError):
    """This Idempotency-Key was used for a different request"""

    status = 422
    code = "idempotency_mismatch"


class MalformedCursor(DomainError):
    """The cursor is not one that this API gave for this list"""

    status = 422
    code = "malformed_cursor"


class RepliesTooDeep(DomainError):
    """Replies can be nested at most 32 deep; reply to a comment further up"""

    status = 422
    code = "replies_too_deep"


class NotRemovable(DomainError):
    """An account cannot be removed; ban it, or dismiss the report"""

    status = 422
    code = "not_removable"


class PictureTooLarge(DomainError):
    """The picture has too many pixels, is wider or higher than 16383, or takes too long to decode"""

    status = 422
    code = "picture_too_large"


class PictureDamaged(DomainError):
    """The picture is incomplete or damaged"""

    status = 422
    code = "picture_damaged"


class NotYourself(DomainError):
    """You cannot follow or block yourself"""

    status = 422
    code = "not_yourself"


class TooManyTries(DomainError):
    """Too many tries; wait before the next one"""

    status = 429
    code = "too_many_tries"

    def __init__(self, seconds: int) -> None:
        super().__init__()
        self.headers = {"Retry-After": str(seconds)}


class RateLimited(DomainError):
    """Too many requests; wait before the next one"""

    status = 429
    code = "rate_limited"

    def __init__(self, seconds: int) -> None:
        super().__init__()
        self.headers = {"Retry-After": str(seconds)}


class TooManyStreams(DomainError):
    """Your account has too many live streams; close one first"""

    status = 429
    code = "too_many_streams"
    headers: Mapping[str, str] = {"Retry-After": "10"}

    def __init__(self, maximum: int) -> None:
        super().__init__(f"Your account has the maximum of {maximum} live streams; close one first")


class HeadersTooLarge(DomainError):
    """The headers are larger than 32 KB"""

    status = 431
    code = "headers_too_large"


class Overloaded(DomainError):
    """Too many requests are waiting; try again in a moment"""

    status = 503
    code = "overloaded"
    headers: Mapping[str, str] = {"Retry-After": "1"}


class Unavailable(DomainError):
    """The database does not answer; try again in a moment"""

    status = 503
    code = "unavailable"
    headers: Mapping[str, str] = {"Retry-After": "1"}


class MediaUnavailable(DomainError):
    """Pictures cannot be stored at the moment; try again later"""

    status = 503
    code = "media_unavailable"
    headers: Mapping[str, str] = {"Retry-After": "30"}


class NotReady(DomainError):
    """The server is not ready for requests"""

    status = 503
    code = "not_ready"
    headers: Mapping[str, str] = {"Retry-After": "1"}


# The error of each constraint that a row can break. A constraint of this project that is not listed stays a 500,
# because it is our bug. Other constraints are `ConstraintViolated`, or `StillReferenced` for a deletion
# (app/middleware/problem_details.py).
BROKEN_CONSTRAINTS: Mapping[str, type[DomainError]] = {
    "users_email_canonical_key": EmailTaken,
    "users_username_key": UsernameTaken,
    # The account was deleted between the check of its session and the write.
    "posts_users_fkey": NotAuthenticated,
    "sessions_users_fkey": InvalidCredentials,
    "idempotency_keys_users_fkey": NotAuthenticated,
    "tag_follows_users_fkey": NotAuthenticated,
    "bookmarks_users_fkey": NotAuthenticated,
    "reports_post_id_comment_id_user_id_reporter_id_key": AlreadyReported,
    # Its author publishes a post that a moderator has removed.
    "posts_removed_check": Removed,
    "media_users_fkey": NotAuthenticated,
    "webhooks_users_fkey": NotAuthenticated,
}


def _shown(number: int) -> str:
    """The id as text.

    Ids past int8 are not shown, because they can have thousands of digits.
    """
    return str(number) if -(2**63) <= number < 2**63 else "out of range"

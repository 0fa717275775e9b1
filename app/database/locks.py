"""Lock order of rows, and advisory locks.

Every transaction that locks several rows, by SELECT … FOR, by a write or by the trigger of a write, takes them in this
order, so that no two wait for each other:

1. `deletions`, by the background removal of an account (`services.deletion`)
2. `users`
3. sessions, second factors, mail tokens and other rows of an account
4. `posts`
5. `comments`, each after its ancestors, which have smaller ids
6. `user_stats`
7. `post_stats`
8. `comment_stats`
9. `votes`, `comment_votes`, `follows`, `blocks`, `bookmarks` and `post_mutes`, then `notifications`
10. `tags` and `tag_follows`
11. `tag_stats`: late, because all writers of posts with a popular tag share its row, and hold it until their commit
12. `reports`, which are resolved after what they are about

Rows of one table are locked by ascending id, and new tags by name. PostgreSQL locks a referenced row FOR KEY SHARE when
a row with a foreign key is inserted, so inserts count, too. Jobs with SKIP LOCKED wait for no row.

A sign-up locks its invite before it inserts the account. It may deadlock with the deletion of the inviter's account, if
it asks for the same name; then it runs again.

Three places differ, and say why: a moderator's account is locked after what they delete (`security.moderators`), the
account of an acting admin after the changed one (`services.user`), and a refresh begins with the session
(`services.session`).
A deadlock is no error for clients, because the request runs again (`api.route`, `database.batcher`).

Advisory locks:

- `MIGRATION_LOCK` is held while migrating.
- `DELETION_LOCK` is held by one batch of the background removal and the pause before it, before any row is locked.
- An idempotency key has one (`services.idempotency`). It is tried before any row is locked, and never waited for.
"""

from collections.abc import Collection

from sqlalchemy import Connection, select
from sqlalchemy.orm import Session

from app.errors import NotAuthenticated, NotYourself, PostNotFound, UserNotFound
from app.models import Post, User, UserStats

# Any number that no other program locks in this database will do: "posts" in ASCII.
MIGRATION_LOCK = 0x706F737473
# Held by a batch of `services/deletion.py` and the pause before it: "delete" in ASCII.
DELETION_LOCK = 0x64656C657465


def lock_user_counts(db: Session | Connection, user_ids: Collection[int]) -> None:
    """Lock the counts of accounts until the transaction ends.

    It is for transactions that change them only after a row that comes later in the order.
    """
    counts = select(UserStats.user_id).where(UserStats.user_id.in_(user_ids)).order_by(UserStats.user_id)
    db.execute(counts.with_for_update(key_share=True))


def lock_pair(db: Session, caller_id: int, user_id: int) -> None:
    """Lock the accounts of the caller and of another user until the transaction ends.

    It serializes what two users do to each other, such as follows and blocks, and what one does to several. It also
    waits for a deletion of either account. Raises `NotYourself`, `NotAuthenticated` and `UserNotFound`.
    """
    if caller_id == user_id:
        raise NotYourself
    accounts = select(User.id, User.is_active).where(User.id.in_([caller_id, user_id]), ~User.is_deleted)
    found = {row.id: row.is_active for row in db.execute(accounts.order_by(User.id).with_for_update(key_share=True))}
    if not found.get(caller_id):
        raise NotAuthenticated
    if user_id not in found:
        raise UserNotFound(user_id)


def lock_caller_and_post(db: Session, caller: User, post_id: int) -> None:
    """Lock the caller's account and a published post until the transaction ends.

    It serializes what the caller does to several posts, and waits for a deletion of either.
    Raises `NotAuthenticated`, and `PostNotFound` (also for drafts).
    """
    account = select(User.id).where(User.id == caller.id, User.is_active).with_for_update(key_share=True)
    if db.scalar(account) is None:
        raise NotAuthenticated
    post = select(Post.id).where(Post.id == post_id, Post.published, Post.visible_to(caller))
    if db.scalar(post.with_for_update(read=True, key_share=True)) is None:
        raise PostNotFound(post_id)

"""Which notifications their recipient may see now."""

from app.models import NOTIFICATION_KINDS

# Of the newest unread notifications of a user, so many are counted, and so many become read by one request.
MAX_UNREAD = 1_000

# A condition on the notification `n`. Scalar subqueries are looked up row by row: joins might read whole tables. A
# newer release may have written other kinds.
IS_SHOWN = f"""
    n.kind IN {NOTIFICATION_KINDS}
    AND (
        n.actor_id IS NULL
        OR coalesce((SELECT is_active AND NOT is_deleted FROM users WHERE users.id = n.actor_id), false)
    )
    AND NOT coalesce((SELECT true FROM blocks WHERE blocker_id = :user_id AND blocked_id = n.actor_id), false)
    AND NOT coalesce((SELECT true FROM blocks WHERE blocker_id = n.actor_id AND blocked_id = :user_id), false)
    AND (
        n.post_id IS NULL
        OR coalesce((
            SELECT (published OR owner_id = :user_id) AND (SELECT NOT is_deleted FROM users WHERE users.id = owner_id)
            FROM posts WHERE posts.id = n.post_id
        ), false)
    )
    AND (
        n.comment_id IS NULL
        OR coalesce((
            SELECT deleted_at IS NULL AND (removal_reason IS NULL OR owner_id = :user_id)
            FROM comments WHERE comments.id = n.comment_id
        ), false)
    )
"""

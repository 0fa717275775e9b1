"""SQL of the peers that send one prepared statement per request: asyncpg_raw, go_pgx and fastify_pg.

Each statement checks session and account, reads the rows with the caller's votes, and builds the JSON of the response.
`LIMIT` is a literal, so that the planner knows it. Every statement has one generic plan (`SETTINGS`), because planning
takes longer than running it. The first parameters are always $1 session and $2 user.
"""

import json
from pathlib import Path

from app.services.feed.home import home_list

SQL = Path(__file__).resolve().parent / "sql"
# More matches than this come from a scan of the sorted list; fewer are sorted (as in app/services/feed/search.py).
MAX_MATCHES = 2000
# Server settings of the peers' connections.
SETTINGS = {"plan_cache_mode": "force_generic_plan", "jit": "off"}
# Replaced by a number.
LIMIT = "{limit}"

_ITEM = """
    json_build_object(
        'Post', json_build_object(
            'id', post.id, 'title', post.title, 'content', post.content, 'published', post.published,
            'created_at', post.created_at, 'updated_at', post.updated_at,
            'published_at', coalesce(post.first_published_at, CASE WHEN post.published THEN post.created_at END),
            'owner_id', post.owner_id,
            'owner', json_build_object(
                'id', owner.id, 'username', owner.username, 'created_at', owner.created_at,
                'email', CASE WHEN owner.id = $2 THEN owner.email
                    ELSE owner.username || '@users.noreply.example.com' END
            ),
            'tags', post.tags,
            'locked', post.locked,
            'removal_reason', post.removal_reason
        ),
        'votes', stats.votes,
        'comments', stats.comments,
        'voted', EXISTS (SELECT FROM votes WHERE votes.post_id = post.id AND votes.user_id = $2),
        'bookmarked', EXISTS (SELECT FROM bookmarks WHERE bookmarks.post_id = post.id AND bookmarks.user_id = $2)
    )
"""
_OWNERS_AND_VOTES = """
    JOIN users AS owner ON owner.id = post.owner_id JOIN post_stats AS stats ON stats.post_id = post.id
"""
_IS_VALID = """
    FROM sessions JOIN users ON users.id = sessions.user_id
    WHERE sessions.id = $1 AND users.id = $2 AND sessions.expires_at > now() AND users.is_active
"""
_BY_TIME = f"ORDER BY created_at DESC, id DESC LIMIT {LIMIT}"


def _page(posts: str, order: str = "post.created_at DESC, post.id DESC") -> str:
    """Return the statement for these posts. No row: the session is invalid."""
    return f"""
        SELECT (
            SELECT coalesce(json_agg({_ITEM} ORDER BY {order}), '[]')::text FROM {posts} {_OWNERS_AND_VOTES}
        ) AS body {_IS_VALID}
    """


def _by_votes(column: str, condition: str) -> str:
    """Return the page of posts sorted by `votes` or `hot`.

    The places come from the index alone.
    """
    places = f"""
        SELECT post_id, {column} FROM post_stats WHERE published {condition}
        ORDER BY {column} DESC, post_id DESC LIMIT {LIMIT}
    """
    return _page(
        f"({places} {'' if condition else 'OFFSET $3'}) AS place JOIN posts AS post ON post.id = place.post_id",
        f"place.{column} DESC, post.id DESC",
    )


# One statement for what the application does in two: whether few or many posts match decides where they are read.
_SEARCHED = f"""
    WITH words AS MATERIALIZED (SELECT search_query($3, false) AS query),
    few AS MATERIALIZED (
        SELECT id, created_at FROM posts WHERE published AND search @@ (SELECT query FROM words)
        LIMIT {MAX_MATCHES + 1}
    ), matches AS MATERIALIZED (SELECT count(*) AS count FROM few)
    (SELECT id FROM few WHERE (SELECT count FROM matches) <= {MAX_MATCHES} {_BY_TIME})
    UNION ALL
    (
        SELECT id FROM posts
        WHERE (SELECT count FROM matches) > {MAX_MATCHES} AND published AND search @@ (SELECT query FROM words)
        {_BY_TIME}
    )
"""

# The application's own list, for one reader.
_HOME = home_list(direction="DESC", has_cursor=False, reach=11, is_visible="true", is_tagged_visible="true")
_AT_HOME = f"""
    SELECT list.post_id AS id FROM (SELECT $2::bigint AS reader_id, {LIMIT} AS rows) AS asked
    CROSS JOIN LATERAL ({_HOME}) AS list ORDER BY list.sort_value DESC, list.post_id DESC LIMIT {LIMIT}
"""

STATEMENTS = {
    "new": _page(f"(SELECT * FROM posts WHERE published {_BY_TIME}) AS post"),
    # The index alone gives the ids, so that skipping reads no posts.
    "new_skip": _page(
        f"(SELECT id FROM posts WHERE published {_BY_TIME} OFFSET $3) AS place JOIN posts AS post USING (id)"
    ),
    "new_after": _page(f"(SELECT * FROM posts WHERE published AND (created_at, id) < ($3, $4) {_BY_TIME}) AS post"),
    "top_skip": _by_votes("votes", ""),
    "top_after": _by_votes("votes", "AND (votes, post_id) < ($3, $4)"),
    "hot_skip": _by_votes("hot", ""),
    "hot_after": _by_votes("hot", "AND (hot, post_id) < ($3, $4)"),
    "owner": _page(f"(SELECT * FROM posts WHERE owner_id = $3 AND published {_BY_TIME} OFFSET $4) AS post"),
    "home": _page(f"({_AT_HOME}) AS place JOIN posts AS post USING (id)"),
    "tag": _page(f"""
        (
            SELECT post_id, created_at FROM post_tags
            WHERE tag_id = (SELECT tags.id FROM tags WHERE tags.name = $3) AND published
            ORDER BY created_at DESC, post_id DESC LIMIT {LIMIT} OFFSET $4
        ) AS place JOIN posts AS post ON post.id = place.post_id
    """),
    "search": _page(f"({_SEARCHED}) AS place JOIN posts AS post USING (id)"),
    "post": f"""
        SELECT (
            SELECT {_ITEM}::text FROM posts AS post {_OWNERS_AND_VOTES}
            WHERE post.id = $3 AND (post.published OR post.owner_id = $2)
        ) AS body {_IS_VALID}
    """,
    "cast": (SQL / "cast.sql").read_text(),
    "retract": (SQL / "retract.sql").read_text(),
}


def write(path: Path) -> None:
    """Write the statements and settings for peers in other languages."""
    path.write_text(json.dumps({"settings": SETTINGS, "statements": STATEMENTS}))

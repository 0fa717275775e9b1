"""The list of a home page: posts of followed users and tags, and the reader's own, newest first.

No list is stored for a reader. Those who follow few look up the newest posts of each followed user and tag, by index.
Those who follow many find a page among the newest posts of the site, unless what they follow posts rarely.
docs/decisions/0037-read-home-pages-from-the-posts.md has the figures.
"""

# Up to this number of followed users and tags, looking up each costs less than reading the newest posts of the site.
MAX_LOOKED_UP = 200
# How many of the site's newest posts are read for a reader who follows more.
MAX_WALKED = 500

# A walk that ends before the page is full is complete if it has read all posts of the site. Otherwise, each followed
# user and tag is looked up. Of the authors, only those with the newest posts are read: the first n posts are of the n
# authors whose newest ones are the newest. The same holds for tags, several of which may have one newest post. UNION
# leaves each post once. Scalar subqueries are looked up row by row, for any statistics. PostgreSQL plans for the limits
# that are numbers.
_LIST = """
    WITH followed AS MATERIALIZED (
        SELECT count(*) > {max_looked_up} AS are_many,
            (SELECT true FROM tag_follows WHERE user_id = asked.reader_id ORDER BY tag_id LIMIT 1) AS have_tags
        FROM (
            SELECT FROM follows WHERE follower_id = asked.reader_id
            UNION ALL SELECT FROM tag_follows WHERE user_id = asked.reader_id
            LIMIT {max_looked_up} + 1
        ) AS source
    ), walked AS MATERIALIZED (
        SELECT posts.id, posts.created_at FROM (
            SELECT posts.id, posts.created_at, posts.owner_id, posts.tags FROM posts
            WHERE (SELECT are_many FROM followed) AND posts.published {after}
            ORDER BY posts.created_at {direction}, posts.id {direction} LIMIT {max_walked}
        ) AS posts
        WHERE {is_visible} AND (
            posts.owner_id = asked.reader_id
            OR (SELECT true FROM follows WHERE follower_id = asked.reader_id AND followee_id = posts.owner_id)
            OR (SELECT have_tags FROM followed) AND posts.tags <> '{{}}' AND (
                SELECT true FROM post_tags CROSS JOIN LATERAL (
                    SELECT FROM tag_follows WHERE user_id = asked.reader_id AND tag_id = post_tags.tag_id LIMIT 1
                ) AS followed_tag WHERE post_tags.post_id = posts.id LIMIT 1
            )
        )
        ORDER BY posts.created_at {direction}, posts.id {direction} LIMIT asked.rows
    ), way AS MATERIALIZED (
        SELECT (SELECT count(*) FROM walked) < asked.rows AND (
            (SELECT NOT are_many FROM followed) OR EXISTS (
                SELECT FROM posts WHERE posts.published {after}
                ORDER BY posts.created_at {direction}, posts.id {direction} OFFSET {max_walked} LIMIT 1
            )
        ) AS looks_up
    )
    SELECT id AS post_id, created_at AS sort_value, NULL AS began_at FROM walked
    WHERE (SELECT NOT looks_up FROM way)
    UNION ALL
    SELECT id, created_at, NULL FROM (
        SELECT post.id, post.created_at FROM (
            SELECT author.id FROM (
                SELECT asked.reader_id AS id
                UNION ALL SELECT followee_id FROM follows WHERE follower_id = asked.reader_id AND (
                    (SELECT NOT EXISTS (SELECT FROM deletions))
                    OR NOT (SELECT users.is_deleted FROM users WHERE users.id = followee_id)
                )
            ) AS author CROSS JOIN LATERAL ({newest_of_author} LIMIT 1) AS newest
            ORDER BY newest.created_at {direction}, newest.id {direction} LIMIT asked.rows
        ) AS author CROSS JOIN LATERAL (
            SELECT * FROM ({newest_of_author} LIMIT {reach}) AS listed LIMIT asked.rows
        ) AS post
        UNION
        SELECT post.id, post.created_at FROM (
            SELECT tag.id, dense_rank() OVER (ORDER BY newest.created_at {direction}, newest.id {direction}) AS place
            FROM (SELECT tag_id AS id FROM tag_follows WHERE user_id = asked.reader_id) AS tag
            CROSS JOIN LATERAL ({newest_of_tag} LIMIT 1) AS newest
        ) AS tag CROSS JOIN LATERAL (
            SELECT * FROM ({newest_of_tag} LIMIT {reach}) AS listed LIMIT asked.rows
        ) AS post
        WHERE tag.place <= asked.rows
    ) AS post
    WHERE (SELECT looks_up FROM way)
    ORDER BY sort_value {direction}, post_id {direction} LIMIT {reach}
"""
_NEWEST_OF_AUTHOR = """
    SELECT posts.id, posts.created_at FROM posts WHERE posts.owner_id = author.id AND posts.published {after}
    ORDER BY posts.created_at {direction}, posts.id {direction}
"""
_NEWEST_OF_TAG = """
    SELECT post_tags.post_id AS id, post_tags.created_at FROM post_tags
    WHERE post_tags.tag_id = tag.id AND post_tags.published AND {is_tagged_visible} {after}
    ORDER BY post_tags.created_at {direction}, post_tags.post_id {direction}
"""
_AFTER = "AND ({columns}) {sign} (asked.value::timestamptz, asked.post_id)"


def home_list(*, direction: str, has_cursor: bool, reach: int, is_visible: str, is_tagged_visible: str) -> str:
    """Return the list as SQL, for the row `asked` of a page.

    `is_visible` is a condition on `posts`, and `is_tagged_visible` one on `post_tags`.
    """
    sign = ">" if direction == "ASC" else "<"

    def after(columns: str) -> str:
        return _AFTER.format(columns=columns, sign=sign) if has_cursor else ""

    after_post, after_tagged = after("posts.created_at, posts.id"), after("post_tags.created_at, post_tags.post_id")
    return _LIST.format(
        max_looked_up=MAX_LOOKED_UP,
        max_walked=MAX_WALKED,
        after=after_post,
        direction=direction,
        reach=reach,
        is_visible=is_visible,
        newest_of_author=_NEWEST_OF_AUTHOR.format(after=after_post, direction=direction),
        newest_of_tag=_NEWEST_OF_TAG.format(
            is_tagged_visible=is_tagged_visible, after=after_tagged, direction=direction
        ),
    )

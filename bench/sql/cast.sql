-- $1 session, $2 user, $3 post: cast one vote and read all data of the API's response, in one statement.
WITH caller AS (
    SELECT users.id FROM sessions JOIN users ON users.id = sessions.user_id
    WHERE sessions.id = $1 AND users.id = $2 AND sessions.expires_at > now() AND users.is_active
), added AS (
    INSERT INTO votes (post_id, user_id)
    SELECT posts.id, caller.id FROM posts, caller WHERE posts.id = $3 AND posts.published
    ON CONFLICT DO NOTHING RETURNING post_id
)
SELECT EXISTS (SELECT FROM caller) AS is_alive,
    EXISTS (SELECT FROM added) AS changed,
    (SELECT votes FROM post_stats WHERE post_id = $3 AND published) + (SELECT count(*) FROM added) AS votes

-- $1 session, $2 user, $3 post: retract one vote, in one statement.
WITH caller AS (
    SELECT users.id FROM sessions JOIN users ON users.id = sessions.user_id
    WHERE sessions.id = $1 AND users.id = $2 AND sessions.expires_at > now() AND users.is_active
), removed AS (
    DELETE FROM votes USING caller
    WHERE votes.post_id = $3 AND votes.user_id = caller.id
    RETURNING post_id
)
SELECT EXISTS (SELECT FROM caller) AS is_alive,
    EXISTS (SELECT FROM removed) AS changed,
    (SELECT votes FROM post_stats WHERE post_id = $3 AND published) - (SELECT count(*) FROM removed) AS votes

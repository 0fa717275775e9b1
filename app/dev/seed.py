"""Sample data: realistic users, posts, votes, comments and follows for development and benchmarks.

Set-based statements add chunks of rows, each in its own transaction. So an interrupted run leaves consistent data, in
which every count equals its rows. The data depend only on the seed, times also on the current date.
"""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, text

from app.database.watchdog import lift_limit

# This password is public. `app seed` uses a random one in production.
PASSWORD = "correct horse battery staple"  # noqa: S105

# Each chunk takes a second or two, which is how long Ctrl-C waits.
CHUNK_PEOPLE = 20_000
CHUNK_POSTS = 5_000
CHUNK_VOTES = 200_000
CHUNK_COMMENTS = 10_000
CHUNK_FOLLOWS = 50_000
SENTENCES = 20_000
TITLE_STARTS = 400
TITLE_ENDS = 4_000
# The most popular post has votes of at most half of the users.
MAX_VOTES_SHARE = 0.5
MAX_ROUNDS = 20
# The most active user follows at most half of the others, and no more than the default of `FOLLOWS_MAX`.
MAX_FOLLOWS_SHARE = 0.5
MAX_FOLLOWS = 5_000

STEPS = ("people", "posts", "votes", "comments", "follows", "statistics")
Report = Callable[[str, int, int], None]


class CannotSeed(Exception):
    """The requested data cannot be generated. The message is one line."""


@dataclass(frozen=True, slots=True)
class Amounts:
    """Numbers of rows to add."""

    users: int
    posts: int
    votes: int
    comments: int = 0
    follows: int = 0


def fill(engine: Engine, wanted: Amounts, *, seed: int, password_hash: str, report: Report) -> None:
    """Add users, posts, votes, comments and follows to the database, then run VACUUM ANALYZE.

    All users vote for and comment on all published posts, existing ones included. Comments get some votes, too. Follows
    that exist already are not replaced by others. After each commit, `report` gets the step (one of `STEPS`), the rows
    done and the rows wanted. Needs a direct connection, for temporary tables.
    Raises `CannotSeed`.
    """
    with engine.connect() as connection:
        connection.detach()  # Its settings and temporary tables must not return to the pool.
        _prepare(connection)
        _add_people(connection, wanted.users, seed, password_hash, report)
        if wanted.posts:
            _add_posts(connection, wanted.posts, seed, report)
        if wanted.votes:
            _add_votes(connection, wanted.votes, seed, report)
        if wanted.comments:
            _add_comments(connection, wanted.comments, seed, report)
        if wanted.follows:
            _add_follows(connection, wanted.follows, seed, report)
    tables = ["users", "posts", "post_stats", "votes", "tags", "post_tags", "tag_stats", "user_stats", "follows"]
    if wanted.comments:
        tables += ["comments", "comment_stats", "comment_votes"]
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        lift_limit(connection, "SESSION")
        for done, table in enumerate(tables, 1):
            # VACUUM too, to flush the search index's pending list and to mark pages as all-visible.
            connection.execute(text(f"VACUUM (ANALYZE) {table}"))
            report("statistics", done, len(tables))


def newest_address(engine: Engine) -> str:
    """Return the e-mail address of the newest user."""
    with engine.connect() as connection:
        return str(connection.scalar(text("SELECT email FROM users ORDER BY id DESC LIMIT 1")))


def _prepare(connection: Connection) -> None:
    lift_limit(connection, "SESSION")
    connection.execute(text("SET work_mem = '128MB'"))
    # Write new words to the search index in large sorted batches.
    connection.execute(text("SET gin_pending_list_limit = '64MB'"))
    # A crash of the machine may lose the last chunks, but only whole ones.
    connection.execute(text("SET synchronous_commit = off"))
    connection.commit()


def _chunks(amount: int, size: int) -> Iterator[dict[str, Any]]:
    for first in range(1, amount + 1, size):
        yield {"first": first, "last": min(first + size - 1, amount)}


def _dice(salt: int, key: str = "n", seed: str = ":seed") -> str:
    """SQL for a pseudorandom number in [0, 1).

    It depends only on the key, the seed and the salt.
    """
    return f"((hashint8extended({key}, {seed} + {salt}) & 9007199254740991) / 9007199254740992.0::double precision)"


def _pick(salt: int, words: str) -> str:
    """SQL for a pseudorandom word of a parameter."""
    array = f"CAST(:{words} AS text[])"
    return f"({array})[1 + floor({_dice(salt)} * cardinality({array}))::int]"


def _add_people(connection: Connection, amount: int, seed: int, password_hash: str, report: Report) -> None:
    taken = connection.scalar(text("SELECT coalesce(max(id), 0) FROM users")) or 0
    connection.rollback()
    # Numbers above every id make addresses and names unique, also in later runs.
    statement = text(f"""
        INSERT INTO users (email, email_canonical, username, password_hash, created_at)
        SELECT
            first_name || '.' || last_name || '.' || number || '@example.com',
            first_name || '.' || last_name || '.' || number || '@example.com',
            CASE WHEN {_dice(3)} < 0.8 THEN first_name || '_' || last_name || number END,
            :password_hash,
            now() - interval '2 years' - interval '1 year' * {_dice(4)}
        FROM (
            SELECT
                {_pick(1, "first_names")} AS first_name, {_pick(2, "last_names")} AS last_name, n, :taken + n AS number
            FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS n
        ) AS person
        ON CONFLICT DO NOTHING
    """)
    names = {"first_names": FIRST_NAMES.split(), "last_names": LAST_NAMES.split()}
    done = 0
    for chunk in _chunks(amount, CHUNK_PEOPLE):
        done += connection.execute(
            statement, {**chunk, **names, "seed": seed, "taken": taken, "password_hash": password_hash}
        ).rowcount
        connection.commit()
        report("people", done, amount)
    # The active users first, in an order that is independent of their ids.
    connection.execute(
        text(f"""
            CREATE TEMPORARY TABLE people AS
            SELECT (row_number() OVER (ORDER BY {_dice(5)}, n) - 1)::int AS rank, id
            FROM (SELECT row_number() OVER (ORDER BY id) AS n, id FROM users) AS numbered
        """),
        {"seed": seed},
    )
    connection.execute(text("ALTER TABLE people ADD PRIMARY KEY (rank)"))
    connection.execute(text("ANALYZE people"))
    connection.commit()


def _add_posts(connection: Connection, amount: int, seed: int, report: Report) -> None:
    people = connection.scalar(text("SELECT count(*) FROM people")) or 0
    if not people:
        raise CannotSeed("posts need users, and there are none: pass --users too")
    words = _Words(seed)
    _write_sentences(connection, words)
    # Mostly two or three sentences, rarely forty. The square makes some sentences common and most rare.
    statement = text(f"""
        INSERT INTO posts (title, content, published, created_at, updated_at, owner_id, tags)
        SELECT
            {_pick(1, "title_starts")} || ' ' || {_pick(2, "title_ends")},
            (
                SELECT string_agg(words, CASE WHEN k % 5 = 0 THEN E'\\n\\n' ELSE ' ' END ORDER BY k)
                FROM generate_series(1, least(40, floor(1.3 * power(1 - {_dice(3)}, -0.7)))::int) AS k
                JOIN sentences ON sentences.n = 1 + floor({SENTENCES} * power({_dice(4, "k", "post.key")}, 2))::int
            ) || CASE WHEN {_dice(5)} < 0.05 THEN ' #' || {_rare_word()} ELSE '' END,
            {_dice(10)} >= 0.03,
            written_at,
            written_at,
            (SELECT id FROM people WHERE rank = floor(:people * power({_dice(11)}, 2))::int),
            ARRAY(
                SELECT DISTINCT {_tag()} FROM generate_series(1, floor(6 * {_dice(13)})::int) AS k
            )
        FROM (
            SELECT n, hashint8extended(n, :seed) AS key,
                now() - interval '2 years' * ((:amount - n + {_dice(12)}) / :amount) AS written_at
            FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS n
        ) AS post
    """)
    constants = {
        "seed": seed,
        "people": people,
        "amount": float(amount),
        "title_starts": [words.title_start() for _ in range(TITLE_STARTS)],
        "title_ends": [words.title_end() for _ in range(TITLE_ENDS)],
        "syllables": SYLLABLES.split(),
        "tags": words.tags(),
    }
    for chunk in _chunks(amount, CHUNK_POSTS):
        connection.execute(statement, {**chunk, **constants})
        connection.commit()
        report("posts", chunk["last"], amount)


def _write_sentences(connection: Connection, words: "_Words") -> None:
    connection.execute(text("CREATE TEMPORARY TABLE sentences (n int PRIMARY KEY, words text NOT NULL)"))
    connection.execute(
        text("INSERT INTO sentences SELECT n, words FROM unnest(CAST(:s AS text[])) WITH ORDINALITY AS s (words, n)"),
        {"s": [words.sentence() for _ in range(SENTENCES)]},
    )
    connection.execute(text("ANALYZE sentences"))
    connection.commit()


def _tag() -> str:
    """SQL for a tag of the `k`-th place of a post.

    Half of the tags are one of the first 22 words. Of the others, most are rare.
    """
    words = "CAST(:tags AS text[])"
    rank = f"floor(power(cardinality({words}) + 1, {_dice(14, 'k', 'post.key')}))::int"
    return f"({words})[{rank}]"


def _rare_word() -> str:
    return " || ".join(_pick(salt, "syllables") for salt in (6, 7, 8, 9))


def _add_votes(connection: Connection, amount: int, seed: int, report: Report) -> None:
    """Cast the votes in rounds.

    Votes that exist already are replaced by others in the next round.
    """
    done = 0
    for vote_round in range(MAX_ROUNDS):
        if done < amount:
            done = _cast_round(connection, amount, done, seed + 1000 * (vote_round + 1), report)
    if done < amount:
        raise CannotSeed(f"only {done:,} of {amount:,} votes were added: the others existed already")


def _cast_round(connection: Connection, amount: int, done: int, seed: int, report: Report) -> int:
    people = connection.scalar(text("SELECT count(*) FROM people")) or 0
    posts = connection.scalar(text("SELECT count(*) FROM posts WHERE published")) or 0
    missing = amount - done
    most = people * posts // 2
    if amount > most:
        raise CannotSeed(f"{people:,} people and {posts:,} published posts allow {most:,} votes, not {amount:,}")
    flatness = _flatness(missing, posts, max(1, int(people * MAX_VOTES_SHARE)))
    # Popularity is independent of the id. Differences of a rounded running sum add up to exactly the total.
    connection.execute(
        text(f"""
            CREATE TEMPORARY TABLE plan AS
            SELECT id AS post_id, created_at, hashint8extended(n, :seed) AS key, votes,
                floor((sum(votes) OVER (ORDER BY id) - 1) / :chunk_votes)::int AS chunk
            FROM (
                SELECT id, created_at, n, least(:people, {_share("rank")} - {_share("rank - 1")}) AS votes
                FROM (
                    SELECT id, created_at, n, row_number() OVER (ORDER BY {_dice(1)}, n) AS rank
                    FROM (
                        SELECT id, created_at, row_number() OVER (ORDER BY id) AS n FROM posts WHERE published
                    ) AS numbered
                ) AS ranked
            ) AS shared
            WHERE votes > 0
        """),
        {
            "seed": seed,
            "people": people,
            "posts": posts,
            "votes": missing,
            "flatness": flatness,
            "chunk_votes": max(CHUNK_VOTES, people),
        },
    )
    connection.execute(text("CREATE INDEX ON plan (chunk)"))
    connection.execute(text("ANALYZE plan"))
    connection.commit()
    for chunk in range((connection.scalar(text("SELECT max(chunk) FROM plan")) or 0) + 1):
        done += _cast_chunk(connection, chunk, people)
        connection.commit()
        report("votes", done, amount)
    connection.execute(text("DROP TABLE plan"))
    connection.commit()
    return done


def _share(rank: str) -> str:
    """SQL for the total votes of the posts up to this rank.

    They follow Zipf's law, flattened at the top.
    """
    flatness = "CAST(:flatness AS double precision)"
    # The summand keeps rounding from losing the last vote.
    return (
        f"floor(1e-6 + :votes * ln(({rank} + {flatness}) / {flatness}) / ln((:posts + {flatness}) / {flatness}))::int"
    )


def _flatness(votes: int, posts: int, most: int) -> float:
    """Return the offset of ranks that limits the most popular post's votes.

    It is the minimum offset of all ranks with which that post gets at most `most` votes.
    """
    low, high = 0.5, 1e9
    for _ in range(60):
        middle = math.sqrt(low * high)
        if votes * math.log1p(1 / middle) / math.log1p(posts / middle) > most:
            low = middle
        else:
            high = middle
    return high


# The j-th of a post's v voters has rank j + (u - v) x², with x in the j-th of v equal parts of [0, 1). Ranks ascend
# strictly, so no user votes twice. They are dense among active users, and in the order of the primary key's pages.
_CAST = f"""
    INSERT INTO votes (post_id, user_id, created_at)
    SELECT posts.id, users.id, plan.created_at + (now() - plan.created_at) * power({_dice(2, "j", "plan.key")}, 3)
    FROM plan
    CROSS JOIN generate_series(0, plan.votes - 1) AS j
    JOIN people ON people.rank = j + floor(
        (:people - plan.votes) * power((j + {_dice(1, "j", "plan.key")}) / plan.votes, 2)
    )::int
    JOIN posts ON posts.id = plan.post_id
    JOIN users ON users.id = people.id
    WHERE plan.chunk = :chunk
    ORDER BY posts.id, users.id
    ON CONFLICT DO NOTHING
"""
# Does the trigger's work by calling its function.
_CAST_AND_COUNT = f"""
    WITH added AS ({_CAST} RETURNING post_id)
    SELECT sum(n), change_vote_counts(array_agg(post_id), array_agg(n))
    FROM (SELECT post_id, count(*) AS n FROM added GROUP BY post_id) AS change
"""


def _cast_chunk(connection: Connection, chunk: int, people: int) -> int:
    """Cast and count the votes of the chunk in this transaction.

    Return how many were new. If the role may, disable triggers, because foreign key checks per row take more than half
    of the time. Take their locks at once instead, in the order of `app.database.locks`. The setting ends with the
    transaction, so that no trigger stays disabled.
    """
    values = {"chunk": chunk, "people": people}
    if connection.scalar(text("SELECT has_parameter_privilege('session_replication_role', 'SET')")):
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("SELECT count(*) FROM (SELECT FROM users ORDER BY id FOR KEY SHARE) AS kept"))
        connection.execute(
            text("""
                SELECT count(*) FROM (
                    SELECT FROM posts WHERE id IN (SELECT post_id FROM plan WHERE chunk = :chunk)
                    ORDER BY id FOR KEY SHARE
                ) AS kept
            """),
            values,
        )
        done = int(connection.execute(text(_CAST_AND_COUNT), values).one()[0] or 0)
    else:
        done = connection.execute(text(_CAST), values).rowcount
    return done


# Few posts get most comments. Two of three reply to an earlier comment of the chunk on the same post, and old ones have
# more replies, which makes trees some 15 deep. Times ascend, so that a reply is newer than its parent.
_COMMENT = f"""
    WITH RECURSIVE drawn AS MATERIALIZED (
        SELECT n, hashint8extended(n, :seed) AS key, nextval(pg_get_serial_sequence('comments', 'id')) AS id,
            floor(:posts * power({_dice(1)}, 3))::int AS rank
        FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS n
    ), placed AS MATERIALIZED (
        SELECT drawn.*, commented.id AS post_id, commented.created_at AS posted_at,
            row_number() OVER (PARTITION BY rank ORDER BY n) - 1 AS place, count(*) OVER (PARTITION BY rank) AS total
        FROM drawn JOIN commented USING (rank)
    ), chosen AS MATERIALIZED (
        SELECT *, CASE WHEN place > 0 AND {_dice(2)} < 0.65 THEN floor(place * {_dice(3)})::bigint END AS parent_place
        FROM placed
    ), tree AS (
        SELECT chosen.*, CAST(NULL AS bigint) AS parent_id, 0 AS depth FROM chosen WHERE parent_place IS NULL
        UNION ALL
        SELECT reply.*, tree.id, tree.depth + 1 FROM tree
        JOIN chosen AS reply ON reply.rank = tree.rank AND reply.parent_place = tree.place WHERE tree.depth < 32
    )
    INSERT INTO comments (id, post_id, parent_id, owner_id, content, depth, created_at, updated_at)
    SELECT tree.id, post_id, parent_id,
        (SELECT people.id FROM people WHERE people.rank = floor(:people * power({_dice(4)}, 2))::int),
        (
            SELECT string_agg(words, ' ' ORDER BY k)
            FROM generate_series(1, least(20, floor(power(1 - {_dice(5)}, -0.6)))::int) AS k
            JOIN sentences ON sentences.n = 1 + floor({SENTENCES} * power({_dice(6, "k", "tree.key")}, 2))::int
        ), depth, written_at, written_at
    FROM tree CROSS JOIN LATERAL (
        SELECT posted_at + (now() - posted_at) * power((place + {_dice(7)}) / total, 3) AS written_at
    ) AS time
    ORDER BY tree.id
    RETURNING id
"""
# Most have none, few have many. The voters of one comment are consecutive by rank, so none votes twice.
_VOTE_FOR_COMMENTS = f"""
    INSERT INTO comment_votes (comment_id, user_id)
    SELECT liked.id, people.id
    FROM (
        SELECT n AS id, least(:people, 100, floor(power(1 - {_dice(8)}, -0.8)) - 1)::int AS votes,
            floor(:people * {_dice(9)})::int AS first
        FROM unnest(CAST(:ids AS bigint[])) AS n
    ) AS liked
    CROSS JOIN generate_series(0, liked.votes - 1) AS j
    JOIN people ON people.rank = (liked.first + j) % CAST(:people AS int)
    ORDER BY 1, 2
"""


def _add_comments(connection: Connection, amount: int, seed: int, report: Report) -> None:
    people = connection.scalar(text("SELECT count(*) FROM people")) or 0
    connection.execute(
        text(f"""
            CREATE TEMPORARY TABLE commented AS
            SELECT (row_number() OVER (ORDER BY {_dice(2)}, n) - 1)::int AS rank, id, created_at
            FROM (SELECT row_number() OVER (ORDER BY id) AS n, id, created_at FROM posts WHERE published) AS numbered
        """),
        {"seed": seed},
    )
    posts = connection.scalar(text("SELECT count(*) FROM commented")) or 0
    if not people or not posts:
        raise CannotSeed("comments need users and published posts, and there are none: pass --users and --posts too")
    connection.execute(text("ALTER TABLE commented ADD PRIMARY KEY (rank)"))
    connection.execute(text("ANALYZE commented"))
    if connection.scalar(text("SELECT to_regclass('pg_temp.sentences')")) is None:
        _write_sentences(connection, _Words(seed))
    values = {"seed": seed, "people": people, "posts": posts}
    done = 0
    for chunk in _chunks(amount, CHUNK_COMMENTS):
        ids = connection.scalars(text(_COMMENT), {**chunk, **values}).all()
        connection.execute(text(_VOTE_FOR_COMMENTS), {"ids": ids, "seed": seed, "people": people})
        connection.commit()
        done += len(ids)
        report("comments", done, amount)


# The user of rank r follows the users of the first `follows` ranks but r's own, spread as the voters of a post are: the
# users who write most are followed most.
_FOLLOW = text(f"""
    INSERT INTO follows (follower_id, followee_id, created_at)
    SELECT follower.id, followee.id, now() - interval '1 year' * {_dice(2, "j", "plan.key")}
    FROM plan
    JOIN people AS follower ON follower.rank = plan.rank
    CROSS JOIN generate_series(0, plan.follows - 1) AS j
    CROSS JOIN LATERAL (
        SELECT j + floor(
            (:people - 1 - plan.follows) * power((j + {_dice(1, "j", "plan.key")}) / plan.follows, 2)
        )::int AS place
    ) AS drawn
    JOIN people AS followee ON followee.rank = drawn.place + (drawn.place >= plan.rank)::int
    WHERE plan.chunk = :chunk
    ORDER BY follower.id, followee.id
    ON CONFLICT DO NOTHING
""")


def _add_follows(connection: Connection, amount: int, seed: int, report: Report) -> None:
    """Let users follow each other.

    How many each follows is by Zipf's law, as votes are, in an order of its own.
    """
    people = connection.scalar(text("SELECT count(*) FROM people")) or 0
    most = min(int(people * MAX_FOLLOWS_SHARE), MAX_FOLLOWS)
    if amount > people * most // 2:
        raise CannotSeed(f"{people:,} people allow {people * most // 2:,} follows, not {amount:,}")
    connection.execute(
        text(f"""
            CREATE TEMPORARY TABLE plan AS
            SELECT rank, hashint8extended(rank, :seed) AS key, follows,
                floor((sum(follows) OVER (ORDER BY rank) - 1) / :chunk_follows)::int AS chunk
            FROM (
                SELECT rank, least(:most, {_share("place")} - {_share("place - 1")}) AS follows
                FROM (SELECT rank, row_number() OVER (ORDER BY {_dice(7, "rank")}, rank) AS place FROM people) AS placed
            ) AS shared
            WHERE follows > 0
        """),
        {
            "seed": seed,
            "most": most,
            "posts": people,
            "votes": amount,
            "flatness": _flatness(amount, people, most),
            "chunk_follows": CHUNK_FOLLOWS,
        },
    )
    connection.execute(text("ANALYZE plan"))
    connection.commit()
    done = 0
    for chunk in range((connection.scalar(text("SELECT max(chunk) FROM plan")) or 0) + 1):
        done += connection.execute(_FOLLOW, {"chunk": chunk, "people": people}).rowcount
        connection.commit()
        report("follows", done, amount)
    connection.execute(text("DROP TABLE plan"))
    connection.commit()


class _Words:
    """Generator of sentences and titles.

    Few words are common and many are rare.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - nothing here is secret.
        self._lists = {name: words.split() for name, words in WORDS.items()}
        self._weights = {name: [1 / (n + 2) for n in range(len(words))] for name, words in self._lists.items()}

    def sentence(self) -> str:
        made = self._made(self._random.choice(SENTENCE_SHAPES))
        return made[0].upper() + made[1:] + self._random.choice("......!?")

    def title_start(self) -> str:
        made = self._made(self._random.choice(TITLE_START_SHAPES))
        return made[0].upper() + made[1:]

    def title_end(self) -> str:
        return self._made(self._random.choice(TITLE_END_SHAPES))

    def tags(self) -> list[str]:
        """Return topics and nouns, the most frequent ones first."""
        nouns = self._lists["NOUN"]
        return [*self._lists["TOPIC"], *nouns, *(f"{a}-{b}" for a in self._lists["ADJECTIVE"] for b in nouns)]

    def _made(self, shape: str) -> str:
        return " ".join(
            self._random.choices(self._lists[word], self._weights[word])[0] if word in self._lists else word
            for word in shape.split()
        ).replace("_", " ")


FIRST_NAMES = """
    ada alan alice amara amir ana anders anna anton aisha beatriz ben boris carla carlos chen chloe clara dana daniel
    david diego dina elena eli elias emil emma erik esther eva fatima felix fiona frida gabriel george grace hana hassan
    helen hugo ida igor ines ingrid isaac ivan jack jamal jana jin joao jonas jose julia kai karim kate kenji lars laura
    lea leo lina linus lucia luis maja marco maria marie mark marta max maya mei mia milan mina mira nadia nina noah
    nora oleg olga oscar otto pablo paul pedro petra priya ravi rosa ruth sam sara sofia stefan sven tara thomas tim
    tomas vera viktor wei will xin yara yuki yusuf zoe
"""
LAST_NAMES = """
    abe adams ahmed ali allen almeida andersen baker bauer becker berg brown carter castro chan chen clark cohen costa
    cruz davis diaz dubois evans fischer fox garcia green gruber gupta haas hall hansen harris hill hoffman hughes
    ivanov jackson jansen jensen johnson jones kaya keller khan kim klein kovacs kowalski kumar lang larsen lee lewis
    li lim lin lopez maier martin meyer miller moore mori moreno morris muller murphy nagy nguyen novak nunez okafor
    olsen ortiz park patel perez peters petrov popov price ramos reed reyes rossi roy ruiz russo sato schmidt silva
    singh smith sousa suzuki tanaka taylor torres tran vega vogel wagner walker wang ward weber white wilson wolf wong
    wood wright yamada yang young zhang ziegler
"""
SYLLABLES = "ba be bo da do fa fi ga go ha ka ki la lo ma mi mo na ni no pa po ra ri ro sa so ta ti to va vo za zi zu"
WORDS = {
    "NOUN": """
        day time people way work place house year book city thing morning weekend friend food team game photo project
        coffee music garden kitchen train phone dog cat recipe trip beach film river summer winter bike market code
        museum mountain lake bread school office library festival camera song bridge forest village idea kettle harbour
        island novel painting guitar storm lantern ladder orchard compass telescope mushroom violin lighthouse umbrella
        pottery chess mosaic glacier tramway saffron canal sourdough meadow workshop cathedral synthesizer quilt
        reservoir observatory kayak parchment peninsula sundial marmalade archipelago caravan typewriter waterfall
        bicycle harmonica zeppelin tapestry greenhouse avalanche accordion vineyard
    """,
    "ADJECTIVE": """
        good new old great small long quiet best little favourite cheap early warm simple green strange perfect slow
        cold late bright local honest wild empty crowded hidden sunny rainy wooden ancient gentle stubborn spicy dusty
        narrow salty curious rusty elegant foggy modest remarkable handmade crooked luminous forgotten velvet meticulous
        windswept improbable sleepy opulent
    """,
    "VERB": """
        love need found made tried visited want saw lost bought built finished started recommend remember enjoyed missed
        fixed painted shared borrowed cooked planted photographed learned explored repaired discovered sketched
        postponed mended restored misplaced celebrated dismantled
    """,
    "TIME": """
        today yesterday again lately tonight tomorrow now this_week last_summer on_Sunday before_work after_lunch
    """,
    "TOPIC": """
        cooking travel photography cycling gardening programming reading hiking music history astronomy chess pottery
        sailing birdwatching typography beekeeping calligraphy fermentation cartography bookbinding origami
    """,
}
SENTENCE_SHAPES = (
    "I VERB the ADJECTIVE NOUN and the NOUN",
    "the NOUN is ADJECTIVE TIME",
    "we VERB a ADJECTIVE NOUN near the NOUN",
    "do you know a ADJECTIVE NOUN for TOPIC",
    "my NOUN was more ADJECTIVE than the NOUN",
    "TIME I VERB my NOUN and it was ADJECTIVE",
    "nothing is as ADJECTIVE as a NOUN in the NOUN",
    "it is the ADJECTIVE NOUN that I VERB and not the NOUN",
    "you need a NOUN and a ADJECTIVE NOUN for TOPIC",
    "after TOPIC the NOUN and the NOUN are ADJECTIVE",
)
TITLE_START_SHAPES = (
    "a ADJECTIVE NOUN", "the ADJECTIVE NOUN", "how I VERB a NOUN", "why we VERB the NOUN", "my ADJECTIVE NOUN",
    "NOUN and NOUN", "looking for a NOUN", "what I learned about TOPIC",
)  # fmt: skip
TITLE_END_SHAPES = (
    "for TOPIC", "in the ADJECTIVE NOUN", "and a NOUN", "near the NOUN", "without a NOUN", "before the NOUN",
    "from a ADJECTIVE NOUN", "with my NOUN", "by the NOUN and the NOUN",
)  # fmt: skip

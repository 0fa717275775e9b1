"""Rows that violate our constraints.

They are repaired if nothing is lost. Otherwise they are a reason to refuse.
"""

import re
from collections import defaultdict

from sqlalchemy import text

from app.adoption.choices import Choices
from app.adoption.names import TEXT, table_options
from app.adoption.plan import MAX_NAMED_ROWS, Findings, Plan, counted, map_option, some
from app.adoption.shape import quoted
from app.adoption.target import INTEGERS
from app.security.email_addresses import canonical_email

# `.invalid` is reserved for domains that do not exist.
PLACEHOLDER_EMAIL = "nobody@adopted.invalid"
MAX_TITLE_CHARACTERS = 100_000
READ_ROWS = 10_000
# Usual names of a vote's direction. Our votes are always in favour.
DIRECTIONS = ("dir", "vote_dir", "direction", "value", "vote", "upvote", "is_upvote")
# Names of columns that may be a direction if votes differ in it.
LIKE_DIRECTION = re.compile(r"dir|type|kind|value|vote|like|sign|score|weight|status|is_", re.IGNORECASE)
BCRYPT = r"^\$2[aby]\$[0-9]{2}\$.{53}$"


def repair(found: Findings, choices: Choices, plan: Plan) -> None:
    """Check the rows of the three tables."""
    _require_people(found, plan)
    _ids(found, plan)
    if found.has("users", "email") and found.has("users", "id"):
        _addresses(found, plan)
    if found.has("votes", "user_id") and found.has("votes", "post_id"):
        _votes(found, choices, plan)
    if found.has("posts", "id"):  # After the votes, because the new account may get the id of a missing one.
        _owners(found, plan)
    if found.has("posts", "title"):
        title = found.name("posts", "title")
        if too_long := found.count("posts", f"length({title}) > {MAX_TITLE_CHARACTERS}"):
            plan.refuse(f"{counted(too_long, 'title')} of more than {MAX_TITLE_CHARACTERS:,} characters: shorten them")


def describe(found: Findings, plan: Plan) -> None:
    """Note facts about rows, even if other checks refuse."""
    if found.has("users", "password") and TEXT.match(found.columns["users"]["password"].type):
        column = found.name("users", "password")
        if odd := found.count("users", f"coalesce({column}, '') !~ '{BCRYPT}'"):
            plan.note(
                f"{counted(odd, 'user')} without a password that bcrypt hashed: they cannot sign in until they choose a"
                " new one"
            )
    if found.has("posts", "published"):
        column, kind = found.name("posts", "published"), found.columns["posts"]["published"].type
        if kind != "boolean" and kind not in INTEGERS:
            return
        is_draft = f"NOT {column}" if kind == "boolean" else f"{column} = 0"
        if count := found.count("posts", is_draft):
            which = ""
            if found.has("posts", "id"):
                key = found.name("posts", "id")
                some_drafts = f"{found.name('posts')} WHERE {is_draft} ORDER BY {key} LIMIT {MAX_NAMED_ROWS + 1}"
                which = f" ({some(found.connection.scalars(text(f'SELECT {key} FROM {some_drafts}')))})"
            have, them = ("has", "its owner") if count == 1 else ("have", "their owners")
            plan.note(
                f"{counted(count, 'post')} {have} {found.columns['posts']['published'].name} ="
                f" {'false' if kind == 'boolean' else '0'}: only {them} and moderators will see"
                f" {'it' if count == 1 else 'them'}{which}"
            )


def _require_people(found: Findings, plan: Plan) -> None:
    """Refuse if posts or votes refer to users and there is no table of users."""
    if "users" in found.tables:
        return
    options = table_options(found.shape, [table.name for table in found.tables.values()], "users")
    for table, column in (("posts", "owner_id"), ("votes", "user_id")):
        if found.has(table, column) and found.count(table, f"{found.name(table, column)} IS NOT NULL"):
            plan.refuse(
                f"{found.tables[table].name}.{found.columns[table][column].name} refers to users, but no table has"
                f" their e-mail addresses and passwords: {options} says which it is"
            )


def _ids(found: Findings, plan: Plan) -> None:
    """Refuse ids below 1.

    The API returns 404 for them, so such rows could not be read, changed or deleted.
    """
    for table in ("users", "posts"):
        if not found.has(table, "id"):
            continue
        name, key = found.name(table), found.name(table, "id")
        if count := found.count(table, f"{key} < 1"):
            statement = text(f"SELECT {key} FROM {name} WHERE {key} < 1 ORDER BY {key} DESC LIMIT {MAX_NAMED_ROWS + 1}")
            plan.refuse(
                f"{counted(count, table[:-1])} with an id below 1, which the API cannot serve:"
                f" {some(found.connection.scalars(statement))}: give each a free id above 0, also in what refers to it"
            )


def _addresses(found: Findings, plan: Plan) -> None:
    """Resolve e-mail addresses that are equal except for case.

    Refuse if two such accounts have content.
    """
    contested: dict[str, list[int]] = defaultdict(list)
    without_at: list[int] = []
    seen: dict[str, int] = {}
    rows = found.connection.execute(
        text(f"SELECT {found.name('users', 'id')}, {found.name('users', 'email')} FROM {found.name('users')}"),
        execution_options={"yield_per": READ_ROWS},
    )
    for user_id, email in rows:
        canonical = canonical_email(email)
        if "@" not in email:
            without_at.append(user_id)
        first = seen.setdefault(canonical, user_id)
        if first != user_id:
            contested[canonical] = contested[canonical] or [first]
            contested[canonical].append(user_id)
    if without_at:
        plan.note(
            f"{counted(len(without_at), 'user')} with an e-mail address without @: they sign in with it as it is, but"
            f" get no mail: {some(sorted(without_at))}"
        )
    if not contested:
        return
    busy = _with_content(found, [user_id for ids in contested.values() for user_id in ids])
    unclear = []
    moved: list[int] = []
    for ids in contested.values():
        with_content = sorted(set(ids) & busy)
        if len(with_content) > 1:
            unclear.append(with_content)
        else:
            moved += set(ids) - {with_content[0] if with_content else min(ids)}
    for ids in unclear[:MAX_NAMED_ROWS]:
        plan.refuse(
            f"users {', '.join(map(str, ids))} have the same e-mail address, but for its case, and each has content:"
            " change the address of all but one, or delete them"
        )
    if len(unclear) > MAX_NAMED_ROWS:
        plan.refuse(f"… and {len(unclear) - MAX_NAMED_ROWS:,} more such addresses")
    if moved:
        plan.do(
            f"put `duplicate<id>+` before the address of {counted(len(moved), 'user')} without content, because an"
            f" address is another's but for its case: {some(sorted(moved))}",
            "UPDATE users SET email = 'duplicate' || id || '+' || email"
            f" WHERE id = ANY ('{{{','.join(map(str, moved))}}}')",
        )


def _with_content(found: Findings, ids: list[int]) -> set[int]:
    """Return the users that any other row refers to.

    Such a row is a post, a vote or a row of an unknown table.
    """
    references = {
        (key.table, key.columns[0])
        for key in found.shape.references_to(found.tables["users"].name)
        if len(key.columns) == 1
    }
    for table, column in (("posts", "owner_id"), ("votes", "user_id")):
        if found.has(table, column):
            references.add((found.name(table), found.columns[table][column].name))
    used: set[int] = set()
    for table, column in references:
        used |= set(
            found.connection.scalars(
                text(f"SELECT DISTINCT {quoted(column)} FROM {table} WHERE {quoted(column)} = ANY (:ids)"),
                {"ids": ids},
            )
        )
    return used


def _owners(found: Findings, plan: Plan) -> None:
    """Give posts without an existing owner to an account without a password.

    `former_owners` keeps the old ids.
    """
    has_owner = found.has("posts", "owner_id")
    ownerless = found.count("posts", f"NOT {_exists(found, 'users', 'posts', 'owner_id')}" if has_owner else "true")
    if ownerless:
        if found.has("users", "email") and found.count(
            "users", f"{found.name('users', 'email')} = '{PLACEHOLDER_EMAIL}'"
        ):
            plan.refuse(f"a user has the address {PLACEHOLDER_EMAIL}, which posts without an owner need: change it")
        if "former_owners" in found.shape.relations:
            plan.refuse("there is a table former_owners already: rename it")
        is_ownerless = "NOT EXISTS (SELECT FROM users WHERE users.id = posts.owner_id)"
        keep = f"CREATE TABLE former_owners AS SELECT id AS post_id, owner_id FROM posts WHERE {is_ownerless}"
        next_id = found.next_id.get("users")
        plan.do(
            f"give {counted(ownerless, 'post')} without an owner to {PLACEHOLDER_EMAIL}, an account without a password"
            + ("; former_owners keeps who it was" if has_owner else ""),
            *([keep] if has_owner else []),
            # Unlike nextval, this is undone with the transaction.
            *([f"ALTER SEQUENCE users_id_seq RESTART WITH {next_id}"] if next_id is not None else []),
            f"""
                WITH placeholder AS (
                    INSERT INTO users (email, password) VALUES ('{PLACEHOLDER_EMAIL}', '') RETURNING id
                )
                UPDATE posts SET owner_id = placeholder.id FROM placeholder WHERE {is_ownerless}
            """,
        )
    if not has_owner or not found.columns["posts"]["owner_id"].is_required:
        plan.do("require posts.owner_id", "ALTER TABLE posts ALTER owner_id SET NOT NULL")


def _exists(found: Findings, referred: str, table: str, column: str) -> str:
    """Return SQL that is true if the row of `t` refers to an existing row."""
    if referred not in found.tables:
        return "false"
    return (
        f"EXISTS (SELECT FROM {found.name(referred)} AS r"
        f" WHERE r.{found.name(referred, 'id')} = t.{found.name(table, column)})"
    )


def _votes(found: Findings, choices: Choices, plan: Plan) -> None:
    """Move votes that cannot stay, so that nothing is lost.

    These are duplicate votes, votes without user or post, and votes against.
    """
    conditions = {
        "of missing users or posts": (
            f"NOT {_exists(found, 'users', 'votes', 'user_id')} OR NOT {_exists(found, 'posts', 'votes', 'post_id')}",
            "NOT EXISTS (SELECT FROM users WHERE users.id = votes.user_id)"
            " OR NOT EXISTS (SELECT FROM posts WHERE posts.id = votes.post_id)",
        ),
    }
    matched = {column.name for column in found.columns["votes"].values()}
    for name, column in found.tables["votes"].columns.items():
        meaning = choices.meaning("votes", found.tables["votes"], name)
        theirs = f"{found.tables['votes'].name}.{name}"
        if name in matched or meaning == "ignore":
            continue
        is_number = column.type in INTEGERS or column.type == "boolean"
        if meaning != "direction" and not (name in DIRECTIONS and is_number):
            differs = f"{quoted(name)}::text <> (SELECT min({quoted(name)}::text) FROM {found.name('votes')})"
            if LIKE_DIRECTION.search(name) and found.count("votes", differs):
                plan.refuse(
                    f"{theirs} may say which votes are against: {map_option(theirs, 'direction')} takes those of 0,"
                    f" false or less for that, {map_option(theirs, 'ignore')} takes all for votes in favour"
                )
            continue
        if not is_number:
            plan.refuse(f"{map_option(theirs, 'direction')}: its type is {column.type}, not integer or boolean")
            continue
        zero = "0" if column.type in INTEGERS else "false"
        former = quoted(found.former.get(("votes", name), name))
        conditions["not in favour"] = (f"{quoted(name)} <= {zero}", f"{former} <= {zero}")
    if not found.has("posts", "id") or not found.has("users", "id"):
        return
    keys = tuple(found.columns["votes"][name].name for name in ("user_id", "post_id"))
    if not any(sorted(key.columns) == sorted(keys) for key in found.tables["votes"].constraints if key.kind in "pu"):
        conditions["cast before"] = (
            _repeated(found.name("votes"), f"{quoted(keys[0])}, {quoted(keys[1])}"),
            _repeated("votes", "user_id, post_id"),
        )
    _move(found, plan, conditions)
    for name in ("user_id", "post_id"):
        if not found.columns["votes"][name].is_required:
            plan.do(f"require votes.{name}", f"ALTER TABLE votes ALTER {name} SET NOT NULL")


def _repeated(table: str, pair: str) -> str:
    """Return SQL that is true for rows whose pair occurs in an earlier row."""
    numbered = f"SELECT ctid, row_number() OVER (PARTITION BY {pair} ORDER BY ctid) AS n FROM {table}"
    return f"ctid IN (SELECT ctid FROM ({numbered}) AS numbered WHERE n > 1)"


def _move(found: Findings, plan: Plan, conditions: dict[str, tuple[str, str]]) -> None:
    """Move the votes.

    Each condition has two forms, with the names before and after renaming.
    """
    is_moved = False
    for what, (here, then) in conditions.items():
        if number := found.count("votes", here):
            if not is_moved and "former_votes" in found.shape.relations:
                plan.refuse("there is a table former_votes already: rename it")
            make = [] if is_moved else ["CREATE TABLE former_votes (LIKE votes)"]
            is_moved = True
            plan.do(
                f"move {counted(number, 'vote')} {what} to a table former_votes",
                *make,
                f"WITH moved AS (DELETE FROM votes WHERE {then} RETURNING *)"
                " INSERT INTO former_votes SELECT * FROM moved",
            )

"""Databases of generated descendants: names, keys, missing constraints, own tables and columns, odd rows."""

import random
from dataclasses import dataclass, field

from sqlalchemy import Connection

from tests.migrations.descendants import make

# Of columns of their own. Some are needed by later migrations.
ODD_NAMES = ("select", "per%cent", 'quo"ted', "Größe", "username", "role", "version", "updated_at", "search")


@dataclass
class Descendant:
    """Statements that make it, the options that it is adopted with, and where its accounts are."""

    seed: int
    statements: list[str] = field(default_factory=list)
    maps: list[str] = field(default_factory=list)
    on_delete: list[str] = field(default_factory=list)
    users: str | None = None
    posts: str = ""
    votes: str | None = None
    # Their names of the columns, by table and the tutorial's name.
    columns: dict[tuple[str, str], str] = field(default_factory=dict)
    # The columns of `users` that lock an account out when true, by the option given.
    blocking: list[str] = field(default_factory=list)

    def create(self, connection: Connection) -> None:
        make(connection, ";\n".join(self.statements))


def quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class _Generator:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.made = Descendant(seed)
        self.after: list[str] = []

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def generate(self) -> Descendant:
        choose = self.random.choice
        made = self.made
        made.posts = choose(["posts", "posts", "post", "Post"])
        if self.chance(0.9):
            made.users = choose(["users", "users", "user", "User", "accounts", "members", "people"])
        if made.users and self.chance(0.85):
            made.votes = choose(["votes", "votes", "vote", "Votes", "likes"])
        self.user_ids = sorted(self.random.sample(range(1, 40), self.random.randint(1, 6))) if made.users else []
        self.post_ids = sorted(self.random.sample(range(1, 60), self.random.randint(1, 8)))
        self.has_user_key = self.chance(0.9)
        self.has_post_key = self.chance(0.9)
        if made.users:
            self.users(made.users)
        self.posts()
        if made.votes:
            self.votes(made.votes)
        self.own_tables()
        if made.users in {"accounts", "members", "people"} and self.chance(0.4):
            made.maps.append(f"{made.users}=users")
        if made.votes == "likes":
            made.maps.append(f"likes={choose(['votes', 'votes', 'ignore'])}")
            if made.maps[-1] == "likes=ignore":
                made.votes = None
        if self.chance(0.3):
            self.after.append("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
            self.after.append(f"INSERT INTO alembic_version VALUES ('{choose(['0006', '0012', 'a1b2', 'ffff'])}')")
        if self.chance(0.03):
            self.after.append(f"CREATE VIEW newest AS SELECT * FROM {quote(made.posts)}")
        made.statements += self.after
        return made

    def name(self, table: str, column: str, *names: str) -> str:
        chosen = self.random.choice([column, *names])
        self.made.columns[table, column] = chosen
        return chosen

    def key(self, table: str, name: str, ids: list[int], *, has_key: bool) -> str:
        """Define the column of the ids, and have its sequence follow them or not."""
        kind = self.random.choice(["serial", "serial", "bigserial", "always", "by default", "plain"])
        type_ = self.random.choice(["integer", "bigint"])
        if kind in {"serial", "bigserial"}:
            definition = kind
        elif kind == "plain":
            definition = f"{type_} NOT NULL" if self.chance(0.8) else type_
        else:
            definition = f"{type_} GENERATED {kind.upper()} AS IDENTITY"
        if kind != "plain" and self.chance(0.8):
            highest = max(ids, default=0) + self.random.randint(1, 9)
            self.after.append(f"SELECT setval(pg_get_serial_sequence('{quote(table)}', '{name}'), {highest})")
        return f"{quote(name)} {definition}" + (" PRIMARY KEY" if has_key else "")

    def time(self, name: str, *, is_filled: bool = False) -> str:
        type_ = self.random.choice(["timestamptz", "timestamptz", "timestamp", "date"])
        default = self.random.choice(["NOT NULL DEFAULT now()", "DEFAULT now()", "DEFAULT now()" if is_filled else ""])
        return f"{quote(name)} {type_} {default}"

    def extra_columns(self, table: str) -> list[tuple[str, str, list[str]]]:
        """Columns of their own: name, definition, values in SQL."""
        columns = []
        for name in self.random.sample(ODD_NAMES, self.random.randint(0, 3)):
            if name == "updated_at":
                columns.append((name, "timestamptz", ["'2020-02-03 04:05Z'", "NULL"]))
            elif name == "version":
                columns.append((name, "integer NOT NULL", ["1", "7"]))
            else:
                required = "NOT NULL" if self.chance(0.5) else ""
                columns.append((name, f"varchar(90) {required}", [f"'{table} one'", "'two''s'", "'admin'"]))
        return columns

    def table(self, table: str, columns: dict[str, str], rows: list[dict[str, str]], constraints: list[str]) -> None:
        order = list(columns)
        self.random.shuffle(order)
        definition = ", ".join([*(columns[name] for name in order), *constraints])
        self.made.statements.append(f"CREATE TABLE {quote(table)} ({definition})")
        for row in rows:
            names = ", ".join(quote(name) for name in row)
            self.made.statements.append(
                f"INSERT INTO {quote(table)} ({names}) OVERRIDING SYSTEM VALUE VALUES ({', '.join(row.values())})"
            )

    def users(self, table: str) -> None:
        made, choose = self.made, self.random.choice
        key = self.name("users", "id", "id", "user_id", "uid" if self.has_user_key else "id")
        email = self.name("users", "email", "email", "email_address", "mail", "e_mail", "user_email")
        password = self.name("users", "password", "password", "hashed_password", "pwd", "password_hash")
        columns = {
            key: self.key(table, key, self.user_ids, has_key=self.has_user_key),
            email: f"{quote(email)} {choose(['varchar', 'text', 'varchar(200)'])} NOT NULL",
            password: f"{quote(password)} varchar {choose(['NOT NULL', ''])}",
        }
        if self.chance(0.8):
            created = self.name("users", "created_at", "created_at", "created_on")
            columns[created] = self.time(created)
        is_unique = self.chance(0.7)
        rows = []
        for number, user_id in enumerate(self.user_ids):
            address = f"'Person{user_id}@Example.com'"
            if number == 1 and self.chance(0.25):
                first = self.user_ids[0]
                address = f"'person{first}@example.com'" if is_unique else f"'Person{first}@Example.com'"
            elif self.chance(0.08):
                address = f"'person{user_id}'"
            hashed = "NULL" if "NOT NULL" not in columns[password] and self.chance(0.1) else "'HASH'"
            rows.append({key: str(user_id), email: address, password: hashed})
        extras = self.extra_columns("users")
        if self.chance(0.35):
            flag = choose(["is_blocked", "banned", "is_active", "disabled", "deleted_at", "is_deleted", "locked"])
            kind, values = {
                "deleted_at": ("timestamptz", ["NULL", "NULL", "'2021-01-01Z'"]),
                "is_active": ("boolean", ["true", "true", "false", "NULL"]),
            }.get(flag, choose([("boolean", ["false", "false", "true"]), ("integer", ["0", "0", "1"])]))
            extras.append((flag, kind, values))
            said = choose(["inactive", "inactive", "ignore", ""])
            if said:
                made.maps.append(f"{table}.{flag}={said}")
            if said == "inactive":
                now = quote(flag)
                made.blocking.append({
                    "deleted_at": f"{now} IS NOT NULL", "is_active": f"NOT {now}",
                }.get(flag, now if kind == "boolean" else f"{now} = 1"))  # fmt: skip
        for name, definition, values in extras:
            if name in columns:
                continue
            columns[name] = f"{quote(name)} {definition}"
            for row in rows:
                row[name] = choose(values)
        self.table(table, columns, rows, [f"UNIQUE ({quote(email)})"] if is_unique else [])

    def owner_key(self, *, is_certain: bool = False) -> str:
        """A foreign key to the users, or none."""
        if self.made.users is None or not self.has_user_key or not (is_certain or self.chance(0.7)):
            return ""
        action = self.random.choice(["", "ON DELETE CASCADE", "ON DELETE CASCADE", "ON DELETE SET NULL"])
        deferred = " DEFERRABLE INITIALLY DEFERRED" if self.chance(0.1) else ""
        return f" REFERENCES {quote(self.made.users)} {action}{deferred}"

    def posts(self) -> None:  # noqa: PLR0912 - one branch for each thing that may be missing.
        made, choose = self.made, self.random.choice
        key = self.name("posts", "id", "id", "id", "post_id")
        title = self.name("posts", "title", "title")
        columns = {
            key: self.key(made.posts, key, self.post_ids, has_key=self.has_post_key),
            title: f"title {choose(['varchar NOT NULL', 'text', 'varchar(150) NOT NULL'])}",
        }
        rows = [{key: str(post_id), title: f"'title {post_id}'"} for post_id in self.post_ids]
        if self.chance(0.9):
            content = self.name("posts", "content", "content", "content", "body", "text", "message")
            columns[content] = f"{quote(content)} text"
            if content == "message" and self.chance(0.8):
                made.maps.append(f"{made.posts}.message=content")
            for row in rows:
                row[content] = "NULL" if self.chance(0.1) else f"'content of {row[key]}'"
        if self.chance(0.8):
            published = self.name("posts", "published", "published", "is_published")
            kind, values = choose([("boolean", ["true", "false", "NULL"]), ("integer", ["1", "1", "0"])])
            columns[published] = f"{quote(published)} {kind} DEFAULT {values[0]}"
            for row in rows:
                row[published] = choose(values)
        if self.chance(0.8):
            created = self.name("posts", "created_at", "created_at", "created_on", "created")
            columns[created] = self.time(created)
        if made.users and self.chance(0.9):
            owner = self.name("posts", "owner_id", "owner_id", "user_id", "author_id", "creator_id", "written_by")
            reference = self.owner_key(is_certain=owner == "written_by" and self.chance(0.5))
            if owner == "written_by" and not reference and self.chance(0.7):
                made.maps.append(f"{made.posts}.written_by=owner_id")
            columns[owner] = f"{quote(owner)} {choose(['integer', 'bigint'])}{reference}"
            for row in rows:
                row[owner] = str(choose(self.user_ids))
                if self.chance(0.12):
                    row[owner] = "NULL" if reference or self.chance(0.5) else str(100 + self.random.randint(0, 5))
        for name, definition, values in self.extra_columns("posts"):
            if name not in columns:
                columns[name] = f"{quote(name)} {definition}"
                for row in rows:
                    row[name] = choose(values)
        if made.users and self.has_user_key and self.chance(0.15):
            columns["editor_id"] = f"editor_id integer REFERENCES {quote(made.users)}"
            if ("posts", "owner_id") not in made.columns and self.chance(0.7):
                made.maps.append(f"{made.posts}.editor_id=ignore")
        checks = ["CONSTRAINT posts_users_fkey CHECK (length(title) > 2)"] if self.chance(0.1) else []
        self.table(made.posts, columns, rows, checks)

    def votes(self, table: str) -> None:  # noqa: PLR0912
        choose = self.random.choice
        user = self.name("votes", "user_id", "user_id", "user_id", "voter_id", "owner_id")
        post = self.name("votes", "post_id", "post_id", "post_id", "postid")
        reference = self.owner_key(is_certain=table == "likes")
        post_reference = ""
        if self.has_post_key and (table == "likes" or self.chance(0.7)):
            post_reference = f" REFERENCES {quote(self.made.posts)} {choose(['', 'ON DELETE CASCADE'])}"
        columns = {user: f"{quote(user)} integer{reference}", post: f"{quote(post)} bigint{post_reference}"}
        key = choose(["pair", "pair", "own", "own without default", "none", "unique"])
        if table == "likes" and key == "none":
            key = "pair"
        rows: list[dict[str, str]] = []
        for _ in range(self.random.randint(0, 12)):
            row = {user: str(choose(self.user_ids)), post: str(choose(self.post_ids))}
            if self.chance(0.1) and not reference:
                row[user] = str(100 + self.random.randint(0, 5))
            if self.chance(0.1) and not post_reference:
                row[post] = "77"
            if self.chance(0.05) and key in {"none", "own"}:
                row[self.random.choice([user, post])] = "NULL"
            if key in {"pair", "unique"} and row in rows:
                continue
            rows.append(row)
        constraints = []
        if key in {"pair", "unique"}:
            kind = "PRIMARY KEY" if key == "pair" else "UNIQUE"
            pair = [quote(user), quote(post)]
            self.random.shuffle(pair)
            constraints.append(f"{kind} ({', '.join(pair)})")
        elif key != "none":
            columns["id"] = "id serial PRIMARY KEY" if key == "own" else "id integer PRIMARY KEY"
            for number, row in enumerate(rows):
                row["id"] = str(number + 1)
        if self.chance(0.3):
            direction = choose(["dir", "vote_type", "value"])
            kind, values = (
                ("varchar", ["'up'", "'down'"]) if direction == "vote_type" else ("integer", ["1", "1", "-1"])
            )
            columns[direction] = f"{quote(direction)} {kind} {choose(['', 'NOT NULL'])}"
            for row in rows:
                row[direction] = choose(values)
            if direction == "vote_type" and self.chance(0.8):
                self.made.maps.append(f"{table}.vote_type=ignore")
        self.table(table, columns, rows, constraints)

    def own_tables(self) -> None:
        made, choose = self.made, self.random.choice
        if self.has_post_key and self.chance(0.5):
            action = choose(["", "", "ON DELETE CASCADE", "ON DELETE SET NULL", "ON DELETE RESTRICT"])
            owner = f", user_id integer {self.owner_key()}" if made.users else ""
            self.after.append(
                f"CREATE TABLE comments (id serial PRIMARY KEY, body text, post_id bigint"
                f" CONSTRAINT c_post REFERENCES {quote(made.posts)} {action}{owner})"
            )
            for post_id in self.random.sample(self.post_ids, 1):
                self.after.append(f"INSERT INTO comments (body, post_id) VALUES ('of {post_id}', {post_id})")
                if made.users:
                    user = f"SELECT 'me too', {post_id}, {choose(self.user_ids)}"
                    self.after.append(f"INSERT INTO comments (body, post_id, user_id) {user}")
            if self.chance(0.6):
                made.on_delete.append(f"comments.post_id={choose(['cascade', 'set-null'])}")
        if made.users and self.chance(0.5):
            self.pairs()
        if self.chance(0.3):
            self.after.append("CREATE TABLE sessions (id serial PRIMARY KEY, data text)")
            self.after.append("INSERT INTO sessions (data) VALUES ('theirs')")
        if self.chance(0.15):
            self.after.append("CREATE TABLE admins (id serial, email text, password text)")
            if self.chance(0.7):
                made.maps.append("admins=ignore")

    def pairs(self) -> None:
        """Follows, bookmarks and tags, some of rows that do not exist."""
        choose = self.random.choice
        columns = choose(["follower_id int, followed_id int", '"followerId" bigint, "userId" bigint'])
        self.after += [
            f"CREATE TABLE follows ({columns}, id serial PRIMARY KEY)",
            f"CREATE TABLE bookmarks (user_id int{self.owner_key()}, post_id bigint)",
            "CREATE TABLE tags (id int PRIMARY KEY, name text)",
            "CREATE TABLE post_tags (post_id int, tag_id int REFERENCES tags)",
            "INSERT INTO tags VALUES (1, 'One'), (2, 'one'), (3, 'no tag'), (4, 'four')",
        ]
        for _ in range(6):
            follower, followed = choose([*self.user_ids, 99]), choose([*self.user_ids, 99])
            self.after.append(f"INSERT INTO follows VALUES ({follower}, {followed})")
            self.after.append(f"INSERT INTO bookmarks VALUES ({choose(self.user_ids)}, {choose([*self.post_ids, 77])})")
            tag_id = self.random.randint(1, 4)
            self.after.append(f"INSERT INTO post_tags VALUES ({choose([*self.post_ids, 77])}, {tag_id})")


def generate(seed: int) -> Descendant:
    """The descendant of this number, always the same."""
    return _Generator(seed).generate()

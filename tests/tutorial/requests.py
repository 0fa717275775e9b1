"""Requests that both applications get, each with the row of docs/differences.md that explains a difference."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Request:
    """One request of ADA, unless `token` is given, and the row ("about") that explains what differs.

    `row` holds with TUTORIAL_DEFAULTS=true. `default_row` is the row that explains what our defaults answer instead.
    `token` is a name of `PEOPLE`, `TOKENS` or `NOT_SIGNED`; None sends none.
    """

    name: str
    method: str
    path: str
    body: Any = None
    row: str | None = None
    default_row: str | None = None
    token: str | None = "ada"
    form: Mapping[str, str] | None = None
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


# Accounts that exist before the first request, in both databases. Ids of what the requests create are not compared.
PASSWORD = "correct horse battery"
ADA, BOB, CAROL = 1, 2, 3
PEOPLE = {"ada": ADA, "bob": BOB, "carol": CAROL}
GONE = 900  # No user, no post.
# Tokens signed with the SECRET_KEY of both: claims, and seconds until `exp`. People get theirs from /login.
TOKENS: dict[str, tuple[dict[str, Any], int | None]] = {
    "expired": ({"user_id": ADA}, -60),
    "minted": ({"user_id": ADA}, 600),
    "endless": ({"user_id": ADA}, None),
    "missing account": ({"user_id": GONE}, 600),
    "user_id in text": ({"user_id": str(ADA)}, 600),
    "without user_id": ({"id": ADA}, 600),
}
NOT_SIGNED = {"garbage": "garbage", "garbage in three parts": "a.b.c"}

# (id, owner, title, content, published, has a vote of ADA)
POSTS: list[tuple[int, int, str, str, bool, bool]] = [
    (1, ADA, "First beaches in Florida", "white sand", True, False),
    (2, ADA, "Tallest skyscrapers", "made of steel", True, False),
    (3, BOB, "Bread of Bob", "flour", True, True),
    (6, ADA, "To be put", "old", True, False),
    (7, ADA, "To be deleted", "old", True, False),
    (8, ADA, "To be deleted, but commented", "old", True, False),
    (9, BOB, "To be voted for", "please", True, False),
    (10, BOB, "To be voted against", "please", True, True),
    (12, ADA, "C# or F#?", "both", True, False),
    (13, BOB, "To be voted for in text", "please", True, False),
    (14, BOB, "To be voted for with true", "please", True, False),
    (15, BOB, "To be voted for with more fields", "please", True, False),
]
FILLERS = range(16, 136)  # Posts of CAROL: more than one page of 100.
# After all others, so that they are not in the first pages of the tutorial's lists.
BOBS_DRAFT, ADAS_DRAFT, TO_BE_PUBLISHED = 201, 202, 203
DRAFTS = [
    (BOBS_DRAFT, BOB, "A draft of Bob", "unfinished", False, False),
    (ADAS_DRAFT, ADA, "A draft of Ada", "unfinished, too", False, False),
    (TO_BE_PUBLISHED, ADA, "To be published", "at last", False, False),
]
COMMENTED_POST = 8  # By an additional table, without ON DELETE.

PUT = {"title": "put", "content": "new"}
WRITTEN = {"title": "written", "content": "new"}
JSON = {"Content-Type": "application/json"}
ANY_ORIGIN = "https://app.example"


def login(name: str, username: str | None, password: str | None, row: str | None = None, **more: str) -> Request:
    form = {"username": username, "password": password, **more}
    form = {key: value for key, value in form.items() if value is not None}
    return Request(name, "POST", "/login", row=row, token=None, form=form)  # type: ignore[arg-type]


def sign_up(name: str, row: str | None = None, default_row: str | None = None, **body: Any) -> Request:
    return Request(name, "POST", "/users/", body, row, default_row, token=None)


def preflight(name: str, origin: str, row: str | None) -> Request:
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-mine"}
    return Request(name, "OPTIONS", "/posts/", row=row, token=None, headers=asked)


READING = [
    Request("greeting", "GET", "/", row="greeting", token=None),
    Request("documentation", "GET", "/docs", token=None),
    Request("other documentation", "GET", "/redoc", token=None),
    Request("OpenAPI document", "GET", "/openapi.json", row="other routes", token=None),
    Request("path in the other case", "GET", "/Posts/"),
    Request("unknown route", "GET", "/nowhere", token=None),
    Request("unknown route below a known one", "GET", "/posts/1/nowhere"),
    # Lists
    Request("list", "GET", "/posts/", default_row="order"),
    Request("list, without the final slash", "GET", "/posts", row="slashes", default_row="order"),
    Request("list without a token", "GET", "/posts/", token=None),
    Request("list, limit and skip", "GET", "/posts/?limit=3&skip=2", default_row="order"),
    Request("list, limit 100", "GET", "/posts/?limit=100", default_row="order"),
    Request("list, limit 0", "GET", "/posts/?limit=0", default_row="limit"),
    Request("list, limit 1000", "GET", "/posts/?limit=1000", row="limit", default_row="order"),
    Request("list, limit -1", "GET", "/posts/?limit=-1", row="former 500"),
    Request("list, limit past 64 bits", "GET", "/posts/?limit=99999999999999999999", row="limit", default_row="order"),
    Request("list, limit twice", "GET", "/posts/?limit=1&limit=2", default_row="order"),
    Request("list, limit no number", "GET", "/posts/?limit=x"),
    Request("list, skip past the end", "GET", "/posts/?skip=5000"),
    Request("list, skip 20000", "GET", "/posts/?skip=20000", default_row="skip"),
    Request("list, skip -1", "GET", "/posts/?skip=-1", row="former 500"),
    Request("list, unknown parameter", "GET", "/posts/?limit=2&colour=red", default_row="order"),
    Request("search a word", "GET", "/posts/?search=beaches"),
    Request("search two words", "GET", "/posts/?search=First%20beaches"),
    Request("search the beginning of a word", "GET", "/posts/?search=Flor"),
    Request("search nothing", "GET", "/posts/?search=&limit=2", default_row="order"),
    Request("search what is not there", "GET", "/posts/?search=zebra"),
    Request("search inside a word", "GET", "/posts/?search=scrap"),
    Request("search two letters inside a word", "GET", "/posts/?search=ys", default_row="search"),
    Request("search over the end of a word", "GET", "/posts/?search=t%20sky", default_row="search"),
    Request("search in the other case", "GET", "/posts/?search=BEACHES", row="search"),
    Request("search the content", "GET", "/posts/?search=steel", row="search"),
    Request("search punctuation", "GET", "/posts/?search=%23%3F", default_row="punctuation"),
    Request("search a space", "GET", "/posts/?search=%20&limit=2", default_row="punctuation"),
    Request("search NUL", "GET", "/posts/?search=a%00b", row="former 500"),
    Request("search 501 characters", "GET", f"/posts/?search={'x' * 501}", row="punctuation"),
    Request("search a wildcard", "GET", "/posts/?search=%25&limit=2", row="punctuation"),
    # One post
    Request("own post", "GET", "/posts/1"),
    Request("post with a vote", "GET", "/posts/3", default_row="e-mail addresses of others"),
    Request("post, with a final slash", "GET", "/posts/1/", row="slashes"),
    Request("own draft", "GET", f"/posts/{ADAS_DRAFT}"),
    Request("draft of another", "GET", f"/posts/{BOBS_DRAFT}", row="drafts"),
    Request("drafts in lists", "GET", "/posts/?search=draft", row="drafts"),
    Request("missing post", "GET", f"/posts/{GONE}"),
    Request("post, id 0", "GET", "/posts/0"),
    Request("post, id -1", "GET", "/posts/-1"),
    Request("post, id too large", "GET", "/posts/99999999999999999999", row="messages"),
    Request("post, id no number", "GET", "/posts/x"),
    Request("post without a token", "GET", "/posts/1", token=None),
    Request("HEAD", "HEAD", "/posts/", row="other routes"),
    # Users
    Request("own profile", "GET", f"/users/{ADA}", default_row="e-mail addresses of others", token=None),
    Request("profile of another", "GET", f"/users/{BOB}", default_row="e-mail addresses of others"),
    Request("missing user", "GET", f"/users/{GONE}", token=None),
    Request("user, id no number", "GET", "/users/x", token=None),
    Request("OPTIONS", "OPTIONS", "/posts/", row="other routes"),
    Request("all users", "GET", "/users/", row="other routes"),
    # Tokens
    *(Request(f"token, {name}", "GET", "/posts/?limit=1", token=name) for name in (*NOT_SIGNED, "expired")),
    Request("token with only user_id and exp", "GET", "/posts/?search=beaches", default_row="tokens", token="minted"),
    Request("token without exp", "GET", "/posts/?search=beaches", row="tokens", token="endless"),
    Request("token of a deleted account", "GET", "/posts/?search=beaches", row="tokens", token="missing account"),
    Request("token with user_id in text", "GET", "/posts/?search=beaches", row="tokens", token="user_id in text"),
    Request("scheme in lower case", "GET", "/posts/1", token=None, headers={"Authorization": "bearer {ada}"}),
    Request("token without user_id", "GET", "/posts/", token="without user_id"),
    Request("empty token", "GET", "/posts/", token=None, headers={"Authorization": "Bearer"}),
    Request("another scheme", "GET", "/posts/", token=None, headers={"Authorization": "Basic YTpi"}),
    # Browsers
    preflight("preflight from any origin", ANY_ORIGIN, "origins"),
    preflight("preflight from localhost", "http://localhost:3000", None),
    Request("page of any origin", "GET", "/posts/1", row="origins", headers={"Origin": ANY_ORIGIN}),
    Request("page of localhost", "GET", "/posts/1", headers={"Origin": "http://localhost:3000"}),
]  # fmt: skip

ACCOUNTS = [
    sign_up("sign-up", email="new@example.com", password=PASSWORD),
    Request("sign-up, without the final slash", "POST", "/users", {"email": "n2@example.com", "password": PASSWORD},
            row="slashes", token=None),
    sign_up("sign-up, a taken address", "former 500", email="ada@example.com", password=PASSWORD),
    sign_up("sign-up, a taken address in capitals", "e-mail addresses", email="ADA@example.com", password=PASSWORD),
    sign_up("sign-up, no address", email="nonsense", password=PASSWORD),
    sign_up("sign-up, empty address", email="", password=PASSWORD),
    sign_up("sign-up, null address", email=None, password=PASSWORD),
    sign_up("sign-up without a password", email="n3@example.com"),
    sign_up("sign-up, short password", None, "passwords", email="n4@example.com", password="1234"),
    sign_up("sign-up, common password", None, "common passwords", email="n5@example.com", password="password123"),
    sign_up("sign-up, empty password", "passwords", email="n6@example.com", password=""),
    sign_up("sign-up, long password", "passwords", email="n7@example.com", password="long " * 40),
    sign_up(
        "sign-up, password a number", default_row="numbers as text", email="n8@example.com", password=12341234
    ),
    sign_up("sign-up, a placeholder", "e-mail addresses of others", email="ada@users.noreply.example.com",
            password=PASSWORD),
    sign_up("sign-up, domain in capitals", "e-mail addresses", email="N9@EXAMPLE.COM", password=PASSWORD),
    sign_up("sign-up, address with a name", "e-mail addresses", email="Ada <n13@example.com>", password=PASSWORD),
    sign_up("sign-up, address with spaces", "e-mail addresses", email=" n14@example.com ", password=PASSWORD),
    sign_up("sign-up, a domain for tests", email="n10@mail.test", password=PASSWORD),
    sign_up("sign-up, more fields", email="n11@example.com", password=PASSWORD, id=77, is_admin=True, created_at="x"),
    Request("sign-up without a body", "POST", "/users/", token=None),
    Request("sign-up, a form", "POST", "/users/", token=None, form={"email": "n12@example.com", "password": PASSWORD}),
    login("login", "ada@example.com", PASSWORD),
    login("login, just signed up", "new@example.com", PASSWORD),
    sign_up("sign-up, password of 80 bytes", email="n15@example.com", password="x" * 80),
    login("login, the first 72 bytes of a password", "n15@example.com", "x" * 72, "passwords"),
    login("login, long name", "x" * 321, PASSWORD, "login"),
    login("login, wrong password", "ada@example.com", "wrong password"),
    login("login, unknown address", "unknown@example.com", PASSWORD),
    login("login, address in capitals", "ADA@EXAMPLE.COM", PASSWORD, "e-mail addresses"),
    login("login without a password", "ada@example.com", None),
    login("login without a name", None, PASSWORD),
    login("login, empty name", "", PASSWORD),
    login("login with more fields", "ada@example.com", PASSWORD, grant_type="password", scope="", client_id="x"),
    login("login, another grant", "ada@example.com", PASSWORD, "login", grant_type="client_credentials"),
    Request("login, JSON", "POST", "/login", {"username": "ada@example.com", "password": PASSWORD}, token=None),
    Request("login, with a final slash", "POST", "/login/", row="slashes", token=None,
            form={"username": "ada@example.com", "password": PASSWORD}),
    Request("login, GET", "GET", "/login", token=None),
]  # fmt: skip

WRITING = [
    Request("write", "POST", "/posts/", WRITTEN),
    Request("write, without the final slash", "POST", "/posts", WRITTEN, row="slashes"),
    Request("write, other letters", "POST", "/posts/", {"title": " <b>Füße 🐌</b> ", "content": "مرحبا\r\n\tまた"}),
    Request("write a draft", "POST", "/posts/", {**WRITTEN, "published": False}),
    Request("write, published in words", "POST", "/posts/", {**WRITTEN, "published": "yes"}),
    Request("write, published null", "POST", "/posts/", {**WRITTEN, "published": None}),
    Request("write, more fields", "POST", "/posts/", {**WRITTEN, "id": 5, "owner_id": BOB, "rating": 4}),
    Request("write without a token", "POST", "/posts/", WRITTEN, token=None),
    Request("write without a title", "POST", "/posts/", {"content": "new"}),
    Request("write, null title", "POST", "/posts/", {**WRITTEN, "title": None}),
    Request("write, empty title", "POST", "/posts/", {**WRITTEN, "title": ""}, row="texts"),
    Request("write, empty content", "POST", "/posts/", {**WRITTEN, "content": ""}, row="texts"),
    Request("write, only spaces", "POST", "/posts/", {**WRITTEN, "title": "  "}, row="texts"),
    Request("write, long title", "POST", "/posts/", {**WRITTEN, "title": "x" * 301}, row="texts"),
    Request("write, long content", "POST", "/posts/", {**WRITTEN, "content": "x " * 20_001}, row="texts"),
    Request("write, a body of 1.1 MB", "POST", "/posts/", {**WRITTEN, "more": "x" * 1_100_000}, row="texts"),
    Request("write, NUL", "POST", "/posts/", {**WRITTEN, "content": "a\0b"}, row="former 500"),
    Request("write, half a surrogate pair", "POST", "/posts/", content=b'{"title": "\\ud800", "content": "b"}',
            headers=JSON, row="former 500"),
    Request("write, NaN", "POST", "/posts/", content=b'{"title": "a", "content": "b", "rating": NaN}', headers=JSON,
            row="JSON"),
    Request("write, JSON of another type", "POST", "/posts/", content=b'{"title": "a", "content": "b"}',
            headers={"Content-Type": "application/vnd.api+json"}),
    Request("write, JSON as plain text", "POST", "/posts/", content=b'{"title": "a", "content": "b"}',
            headers={"Content-Type": "text/plain"}),
    Request("write, title a number", "POST", "/posts/", {**WRITTEN, "title": 1984}, default_row="numbers as text"),
    Request("write, title a list", "POST", "/posts/", {**WRITTEN, "title": ["a"]}),
    Request("write, no JSON", "POST", "/posts/", content=b"{'title': 1}", headers=JSON),
    Request("write, no JSON, without a token", "POST", "/posts/", content=b"{", headers=JSON, token=None, row="tokens"),
    Request("write, an array", "POST", "/posts/", []),
    Request("write without a body", "POST", "/posts/"),
    Request("write, JSON without its type", "POST", "/posts/", content=b'{"title": "a", "content": "b"}',
            row="JSON"),
    Request("write, a form", "POST", "/posts/", form=WRITTEN),
    Request("put", "PUT", "/posts/6", {**PUT, "published": False}),
    Request("put without published", "PUT", "/posts/6", PUT),
    Request("put without content", "PUT", "/posts/6", {"title": "put"}),
    Request("put, more fields", "PUT", "/posts/6", {**PUT, "id": 1, "owner_id": BOB}),
    Request("put of another's", "PUT", "/posts/3", PUT),
    Request("put of another's draft", "PUT", f"/posts/{BOBS_DRAFT}", PUT, row="drafts"),
    Request("put of what is missing", "PUT", f"/posts/{GONE}", PUT, row="messages"),
    Request("put without a token", "PUT", "/posts/6", PUT, token=None),
    Request("put publishes", "PUT", f"/posts/{TO_BE_PUBLISHED}", {**PUT, "published": True}, row="publication"),
    Request("put without an id", "PUT", "/posts/", PUT),
    Request("patch", "PATCH", "/posts/6", {"title": "patched"}, row="other routes"),
    Request("vote", "POST", "/vote/", {"post_id": 9, "dir": 1}),
    Request("vote, without the final slash", "POST", "/vote", {"post_id": 1, "dir": 1}, row="slashes"),
    Request("vote twice", "POST", "/vote/", {"post_id": 9, "dir": 1}, row="messages"),
    Request("vote, seen in the post", "GET", "/posts/9", default_row="e-mail addresses of others"),
    Request("vote taken back", "POST", "/vote/", {"post_id": 9, "dir": 0}),
    Request("vote taken back twice", "POST", "/vote/", {"post_id": 9, "dir": 0}),
    Request("vote for an own post", "POST", "/vote/", {"post_id": 2, "dir": 1}),
    Request("vote for no number", "POST", "/vote/", {"post_id": "x", "dir": 1}),
    Request("vote, dir -1", "POST", "/vote/", {"post_id": 10, "dir": -1}, default_row="dir"),
    Request("vote, dir 2", "POST", "/vote/", {"post_id": 9, "dir": 2}),
    Request("vote, dir in text", "POST", "/vote/", {"post_id": "13", "dir": "1"}),
    Request("vote, dir true", "POST", "/vote/", {"post_id": 14, "dir": True}),
    Request("vote, dir null", "POST", "/vote/", {"post_id": 9, "dir": None}),
    Request("vote without dir", "POST", "/vote/", {"post_id": 9}, row="texts of a 422"),
    Request("vote, more fields", "POST", "/vote/", {"post_id": 15, "dir": 1, "user_id": BOB}),
    Request("vote for what is missing", "POST", "/vote/", {"post_id": GONE, "dir": 1}),
    Request("vote for a draft", "POST", "/vote/", {"post_id": BOBS_DRAFT, "dir": 1}, row="drafts"),
    Request("vote without a token", "POST", "/vote/", {"post_id": 9, "dir": 1}, token=None),
    Request("vote, GET", "GET", "/vote/"),
    Request("delete", "DELETE", "/posts/7"),
    Request("delete twice", "DELETE", "/posts/7", row="messages"),
    Request("delete another's", "DELETE", "/posts/3"),
    Request("delete a post that an own table refers to", "DELETE", f"/posts/{COMMENTED_POST}", row="own tables"),
    Request("delete without a token", "DELETE", "/posts/1", token=None),
    Request("delete, id no number", "DELETE", "/posts/x"),
    Request("delete all", "DELETE", "/posts/"),
    Request("delete oneself", "DELETE", f"/users/{CAROL}", token="carol", row="other routes"),
]  # fmt: skip

REQUESTS = [*READING, *ACCOUNTS, *WRITING]

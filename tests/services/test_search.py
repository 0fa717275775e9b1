"""Search finds every script in every database locale, at a bounded cost."""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import Connection, Engine, create_engine, make_url, text
from sqlalchemy.pool import NullPool
from starlette.testclient import TestClient

from alembic import command
from app.security import access_tokens
from app.services.feed import search
from tests.conftest import administration
from tests.fixtures import Person, _server
from tests.migrations.conftest import address, config_for

# The text of a post, the search, and whether the post is found.
CASES = (
    # Markup and code.
    ("returns Vec<String> by value", "Vec<String>", True),
    ("returns Vec<String> by value", "string", True),
    ("returns Vec<String> by value", "Vec<Str", True),
    ("the <script> element", "script", True),
    ("the <script> element", "<script>", True),
    ("a <b>bold</b> claim", "bold", True),
    ("std::move(x)", "move", True),
    ("written in C++ and more", "c++", True),
    ("written in C++17", "c++17", True),
    ("written in C", "c++", False),
    ("I like C#, really", "c#", True),
    ("I like C", "c#", False),
    ("about .NET", ".net", True),
    ("node.js rocks", "node.js", True),
    ("snake_case_name here", "case", True),
    ("snake_case_name here", "snake_case", True),
    # Addresses.
    ("see https://www.example.com/a/beach-guide?page=2#top", "example", True),
    ("see https://www.example.com/a/beach-guide?page=2#top", "example.com", True),
    ("see https://www.example.com/a/beach-guide?page=2#top", "beach", True),
    ("see https://www.example.com/a/beach-guide?page=2#top", "https://www.example.com/a/beach-guide?page=2#top", True),
    ("see https://www.example.com/a/beach-guide?page=2#top", "https://www.example.com/b", False),
    ("write to bob@example.com", "bob@example", True),
    ("write to bob@example.com", "bob@example.com", True),
    ("write to bob@example.com", "bob@ex", True),
    ("write to bob@example.com", "bob", True),
    ("write to bob@example.com", "eve@example.com", False),
    # Numbers and hyphens.
    ("covid-19 cases", "covid-19", True),
    ("covid-19 cases", "covid-1", True),
    ("covid-19 cases", "covid", True),
    ("covid-19 cases", "19", True),
    ("covid19 cases", "covid-19", True),
    ("covid-20 cases", "covid-19", False),
    ("it is -40 outside", "-40", True),
    ("it is -40 outside", "40", True),
    ("call 555-0199 now", "555-0199", True),
    ("call 555-0199 now", "555-01", True),
    ("call 555-0199 now", "0199", True),
    ("pi is 3.14159", "3.14", True),
    ("costs $1,299.00", "1,299.00", True),
    ("free wi-fi here", "wi-f", True),
    ("free wi-fi here", "wifi", True),
    ("free wi-fi here", "fi", True),
    ("free wi-fi here", "-wi-fi free", False),
    ("it's raining", "it's", True),
    ("it’s raining", "it's", True),
    ("it's raining", "its", True),
    # Scripts without spaces.
    ("我爱北京天安门", "北京", True),
    ("我爱北京天安门", "天安门", True),
    ("我爱北京天安门", "门", True),
    ("我爱北京天安门", "京", True),
    ("我爱北京天安门", "京北", False),
    ("我爱北京天安门", "北京 天安", True),
    ("我爱北京天安门", "北京\u3000天安", True),
    ("我爱北京天安门", "-北京 天安", False),
    ("東京タワーに行きました", "タワー", True),
    ("東京タワーに行きました", "東京タワー", True),
    ("東京タワーに行きました", "京都", False),
    ("新しいiPhone手机到了", "iphone", True),
    ("新しいiPhone手机到了", "手机", True),
    ("新しいiPhone手机到了", "iphone手", True),
    ("ﾀﾜｰ", "タワー", True),
    ("ฉันชอบกินข้าวผัด", "ข้าว", True),
    ("ฉันชอบกินข้าวผัด", "ข้าวผัด", True),
    ("ฉันชอบกินข้าวผัด", "แกง", False),
    ("한국어를 공부합니다", "한국어", True),
    ("한국어를 공부합니다", "국어", True),
    ("party 🎉 tonight", "🎉", True),
    # One spelling.
    ("cafe\u0301 au lait", "café", True),
    ("café au lait", "cafe\u0301", True),
    ("CAFÉ AU LAIT", "café", True),
    ("Привет, Мир", "ПРИВЕТ", True),
    ("ΟΔΟΣ", "οδος", True),
    ("οδός", "ΟΔΌΣ", True),
    ("ｆｕｌｌ width", "full", True),
    ("an eﬃcient ligature", "efficient", True),
    ("co\u00adoperate", "cooperate", True),
    ("zero\u200bwidth", "zerowidth", True),
    ("«quoted»—dashed…", "dashed", True),
    ("résumé", "resume", False),
    # Queries.
    ("the quick brown fox", "“quick brown”", True),
    ("the quick brown fox", '"quick fox"', False),
    ("the quick brown fox", '"brown fo', True),
    ("the quick brown fox", "brow quick", True),
    ("the quick brown fox", "cat or quick", True),
    ("the quick brown fox", "quick -brown", False),
    ("the quick brown fox", "fox " * 40 + "missing", True),
    # Parts of words of titles, where nothing else matches.
    ("tallest skyscrapers", "scrap", True),
    ("tallest skyscrapers", "tall scrape", True),
    ("tallest skyscrapers", "SCRAPERS tallest", True),
    ("tallest skyscrapers", "scrap missing", False),
    ("tallest skyscrapers", '"scrap"', False),
    ("tallest skyscrapers", "-scrap tallest", True),
    ("tallest skyscrapers", "cr", False),
)


@pytest.mark.parametrize(("written", "searched", "is_found"), CASES)
def test_search_finds_what_is_written(
    client: TestClient, person: Person, written: str, searched: str, is_found: bool
) -> None:
    posts = [
        client.post("/posts", json={"title": title, "content": content}, headers=person.headers).json()["id"]
        for title, content in ((written, "."), ("unrelated", "unrelated"))
    ]

    answer = client.get("/posts", params={"search": searched}, headers=person.headers)

    assert answer.status_code == 200
    assert [item["Post"]["id"] for item in answer.json()] == posts[: 1 if is_found else 0]


@pytest.fixture
def c_locale(tmp_path: Path) -> Iterator[tuple[Engine, httpx2.Client]]:
    """A database with an ASCII-only locale, and a client signed in at a server on it."""
    server = make_url(os.environ["DATABASE_URL"])
    name = f"c_locale_{os.getpid()}_{secrets.token_hex(3)}"
    url = server.set(database=name)
    with administration(server) as administrator, ExitStack() as stack:
        administrator.execute(
            text(f"CREATE DATABASE {name} TEMPLATE template0 LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C'")
        )
        stack.callback(administrator.execute, text(f"DROP DATABASE {name} WITH (FORCE)"))
        command.upgrade(config_for(url), "head")
        engine = create_engine(url, poolclass=NullPool)
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO users (email, email_canonical, password_hash) VALUES ('a', 'a', '')"))
            connection.execute(text("INSERT INTO sessions (user_id, expires_at) VALUES (1, now() + interval '1 day')"))
        environment = {"DATABASE_URL": address(url), "RATE_LIMITS_ENABLED": "false", "WORKERS": "1"}
        running = stack.enter_context(_server(tmp_path, environment))
        headers = {"Authorization": f"Bearer {access_tokens.issue(1, 1, timedelta(hours=1))}"}
        yield engine, stack.enter_context(httpx2.Client(base_url=running.url, headers=headers, timeout=30))


@pytest.mark.slow
def test_search_finds_the_same_in_a_database_with_the_c_locale(c_locale: tuple[Engine, httpx2.Client]) -> None:
    engine, client = c_locale
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT lower('É')")) == "É", "this database is not what it is to be"
    wrong = []
    for written, searched, is_found in CASES:
        made = client.post("/posts", json={"title": written, "content": "."})
        assert made.status_code == 201
        answer = client.get("/posts", params={"search": searched})
        if [item["Post"]["id"] for item in answer.json()] != [made.json()["id"]] * is_found:
            wrong.append((written, searched, answer.text))
        assert client.delete(f"/posts/{made.json()['id']}").status_code == 204

    assert wrong == []


def test_search_finds_parts_of_words_only_where_no_word_matches(
    client: TestClient, person: Person, make_person: Callable[..., Person]
) -> None:
    def found(words: str) -> set[str]:
        answer = client.get("/posts", params={"search": words}, headers=person.headers)
        return {item["Post"]["title"] for item in answer.json()}

    for title in ("skyscrapers", "landscrape"):
        client.post("/posts", json={"title": title, "content": "."}, headers=person.headers)
    assert found("scrap") == {"skyscrapers", "landscrape"}
    draft = {"title": "scrap", "content": ".", "published": False}
    assert client.post("/posts", json=draft, headers=make_person().headers).status_code == 201
    assert found("scrap") == {"skyscrapers", "landscrape"}, "the draft of another account shows through"

    client.post("/posts", json={"title": "scraps", "content": "."}, headers=person.headers)
    assert found("scrap") == {"scraps"}


def test_search_for_parts_of_words_that_many_titles_have_can_be_walked(
    client: TestClient, person: Person, connection: Connection
) -> None:
    connection.execute(
        text("INSERT INTO posts (title, content, owner_id) SELECT 'skyscrapers', n, :id FROM generate_series(1, :n) n"),
        {"id": person.id, "n": search.MAX_MATCHES + 50},
    )
    for sort in ("new", "top"):
        query: dict[str, str | int] = {"search": "scrap", "limit": 100, "sort": sort, "skip": search.MAX_MATCHES}
        answer = client.get("/posts", params=query, headers=person.headers)
        assert (answer.status_code, len(answer.json())) == (200, 50)


def test_a_changed_post_is_found_by_its_new_words(client: TestClient, person: Person) -> None:
    post = client.post("/posts", json={"title": "old", "content": "words"}, headers=person.headers).json()["id"]

    assert client.patch(f"/posts/{post}", json={"title": "new"}, headers=person.headers).status_code == 200

    for words, count in (("new words", 1), ("old", 0)):
        assert len(client.get("/posts", params={"search": words}, headers=person.headers).json()) == count


def test_words_written_by_sql_are_found_too(client: TestClient, person: Person, connection: Connection) -> None:
    connection.execute(
        text("INSERT INTO posts (title, content, owner_id) VALUES ('Wi-Fi', '東京タワー', :id)"), {"id": person.id}
    )
    for words in ("wifi", "タワー"):
        assert len(client.get("/posts", params={"search": words}, headers=person.headers).json()) == 1
    connection.execute(text("UPDATE posts SET content = 'Vec<String>'"))
    for words, count in (("タワー", 0), ("vec", 1)):
        assert len(client.get("/posts", params={"search": words}, headers=person.headers).json()) == count


@pytest.mark.parametrize("unit", ["a ", "é-", "東", "東 ", "a-", '"a" ', "-a ", "a or ", "c++", "a.b@c/d ", "🎉"])
def test_a_query_has_a_bounded_number_of_words(connection: Connection, unit: str) -> None:
    query = (unit * 500)[:500]

    nodes = connection.scalar(text("SELECT numnode(search_query(:query, true))"), {"query": query})

    # 32 words with as many parts of words, one compound, and what joins them.
    assert 0 < nodes <= 4 * 32 + 2


def test_the_longest_possible_index_entry_fits(connection: Connection) -> None:
    """A tsvector holds 1 MB, and NFKC expands one character to up to 18."""
    wide, widest = "\U00020000", "\ufdfa"
    for title, content in (
        (widest * 300, widest * 40_000),
        ((widest + "\U0001e900") * 150, (widest + " ") * 20_000),
        ("".join(chr(0x1E900 + n % 34) for n in range(300)), "".join(chr(0x20000 + n) for n in range(40_000))),
        (wide * 300, "-".join(chr(0x1E900 + n % 34) * 3 for n in range(10_000))),
    ):
        size = connection.scalar(
            text("SELECT pg_column_size(search_vector(:title, :content))"), {"title": title, "content": content}
        )
        assert size < 1_000_000


def test_ends_of_words_are_indexed_for_a_bounded_part_of_a_title(connection: Connection) -> None:
    """NFKC makes three letters of each ligature, and each letter of a word begins an end of it."""
    title = " ".join("\ufb03" * 20 + chr(ord("a") + n) for n in range(13))
    assert len(title) <= 300

    ends = connection.scalar(
        text("SELECT count(*) FROM unnest(search_vector(:title, '')) WHERE starts_with(lexeme, '*')"), {"title": title}
    )

    assert 0 < ends <= 300

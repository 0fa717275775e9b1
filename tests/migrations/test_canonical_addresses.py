"""Migration 0025: the canonical forms of addresses beyond ASCII, up and down, also if two accounts share a form."""

import logging
import re

import pytest
from sqlalchemy import URL, Connection, Engine, text

from alembic import command
from tests.migrations.conftest import address, config_for, run_alembic
from tests.races.waiting import in_background, wait_until_blocked

BEFORE, AFTER = "0024", "0025"


@pytest.fixture
def old(url: URL, looking: Connection) -> Connection:
    """A database at the revision before."""
    command.upgrade(config_for(url), BEFORE)
    return looking


def add(connection: Connection, *accounts: tuple[str, str]) -> list[int]:
    """Add accounts with these addresses and canonical forms; return their ids."""
    statement = text("""
        INSERT INTO users (email, email_canonical, password_hash) VALUES (:email, :canonical, '') RETURNING id
    """)
    return [connection.scalar(statement, {"email": email, "canonical": form}) or 0 for email, form in accounts]


def forms(connection: Connection) -> list[str]:
    return [*connection.scalars(text("SELECT email_canonical FROM users ORDER BY id"))]


def test_forms_of_addresses_beyond_ascii_change_and_change_back(url: URL, old: Connection) -> None:
    add(
        old,
        ("Straße@example.com", "strasse@example.com"),
        ("user@bücher.example", "user@bücher.example"),
        ("ada@Faß.de", "ada@fass.de"),
        ("Ada@Example.com", "ada@example.com"),
        ("Zoë@example.com", "zoë@example.com"),
        ("ä@Straße_1.example", "ä@strasse_1.example"),
    )
    before = forms(old)

    command.upgrade(config_for(url), AFTER)

    assert forms(old) == [
        "straße@example.com", "user@xn--bcher-kva.example", "ada@xn--fa-hia.de", "ada@example.com", "zoë@example.com",
        "ä@strasse_1.example",
    ]  # fmt: skip
    command.downgrade(config_for(url), BEFORE)
    assert forms(old) == before


def test_two_accounts_with_one_new_form_keep_what_they_have_and_are_named(
    url: URL, old: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "alembic")
    *_, younger, third = add(
        old,
        ("a@xn--bcher-kva.example", "a@xn--bcher-kva.example"),
        ("b@bücher.example", "b@bücher.example"),
        ("a@bücher.example", "a@bücher.example"),
        ("b@bu\u0308cher.example ", "b@bücher.example-of-adoption"),
    )

    command.upgrade(config_for(url), AFTER)

    assert forms(old) == [
        "a@xn--bcher-kva.example", "b@xn--bcher-kva.example", "a@bücher.example", "b@bücher.example-of-adoption",
    ]  # fmt: skip
    assert f"(ids {younger}, {third})" in caplog.text
    assert "@" not in re.sub(r"python -m app doctor", "", caplog.text)


def test_form_that_another_account_gives_up_in_the_same_run_is_taken(url: URL, old: Connection) -> None:
    add(
        old,
        ("user@bücher.example", "user@bücher.example"),
        ("ｕser@xn--bcher-kva.example", "user@xn--bcher-kva.example"),
    )

    command.upgrade(config_for(url), AFTER)

    assert forms(old) == ["user@xn--bcher-kva.example", "ｕser@xn--bcher-kva.example"]


def test_downgrade_keeps_the_new_form_where_the_old_one_is_taken(url: URL, old: Connection) -> None:
    command.upgrade(config_for(url), AFTER)
    add(old, ("strasse@example.com", "strasse@example.com"), ("straße@example.com", "straße@example.com"))

    command.downgrade(config_for(url), BEFORE)

    assert forms(old) == ["strasse@example.com", "straße@example.com"]
    command.upgrade(config_for(url), AFTER)
    assert forms(old) == ["strasse@example.com", "straße@example.com"]


def test_many_accounts_change_in_batches(url: URL, old: Connection) -> None:
    old.execute(
        text("""
            INSERT INTO users (email, email_canonical, password_hash)
            SELECT n || '@bücher.example', n || '@bücher.example', '' FROM generate_series(1, 2500) AS n
        """)
    )

    command.upgrade(config_for(url), AFTER)

    assert old.scalar(text("SELECT count(*) FROM users WHERE email_canonical = id || '@xn--bcher-kva.example'")) == 2500


def test_address_that_a_person_changes_meanwhile_stays_theirs(url: URL, engine: Engine, old: Connection) -> None:
    add(old, ("straße@example.com", "strasse@example.com"), ("ﬁ@example.com", "fi@example.com"))

    with engine.connect() as changing:
        changing.execute(
            text("UPDATE users SET email = 'new@example.com', email_canonical = 'new@example.com' WHERE id = 1")
        )
        done = in_background(lambda: command.upgrade(config_for(url), AFTER))
        wait_until_blocked(old, by=changing)
        changing.commit()
        done()

    assert forms(old) == ["new@example.com", "ﬁ@example.com"]


def test_sign_up_that_takes_the_form_meanwhile_keeps_it_and_the_others_change(
    url: URL, engine: Engine, old: Connection
) -> None:
    add(old, ("user@bücher.example", "user@bücher.example"), ("ﬁ@example.com", "fi@example.com"))

    with engine.connect() as signing_up:
        add(signing_up, ("user@xn--bcher-kva.example", "user@xn--bcher-kva.example"))
        done = in_background(lambda: command.upgrade(config_for(url), AFTER))
        wait_until_blocked(old, by=signing_up)
        signing_up.commit()
        done()

    assert forms(old) == ["user@bücher.example", "ﬁ@example.com", "user@xn--bcher-kva.example"]


def test_sql_refuses_addresses_that_only_python_can_encode(url: URL, old: Connection) -> None:
    run = run_alembic("upgrade", f"{BEFORE}:{AFTER}", "--sql", DATABASE_URL=address(url))
    (block,) = (statement for statement in run.stdout.split(";\n\n") if "beyond ASCII" in statement)
    old.exec_driver_sql(block)
    add(old, ("straße@example.com", "strasse@example.com"))

    with pytest.raises(Exception, match="beyond ASCII"):
        old.exec_driver_sql(block)

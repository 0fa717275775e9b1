"""Attempt limits: how many attempts are allowed in any span of time, and what is stored of them."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta

import pytest
from sqlalchemy import Connection, Engine, text

from app.config import get_settings
from app.errors import TooManyTries, Unavailable
from app.observability import request_context
from app.security import attempt_limits
from tests.races.waiting import wait_until

THREE_A_MINUTE = attempt_limits.Limit("three_a_minute", 3, timedelta(minutes=1))


def is_allowed(limit: attempt_limits.Limit, key: str) -> bool:
    try:
        attempt_limits.spend(limit, key)
    except TooManyTries:
        return False
    return True


@contextmanager
def at(address: str) -> Iterator[None]:
    """Set the client address of the request."""
    token = request_context.client_address.set(address)
    try:
        yield
    finally:
        request_context.client_address.reset(token)


def later(connection: Connection, seconds: float) -> None:
    """Move the stored times back by this much."""
    moved = connection.execute(
        text("""
            UPDATE allowances SET expires_at = expires_at - make_interval(secs => :seconds),
                used_at = ARRAY(SELECT used - make_interval(secs => :seconds) FROM unnest(used_at) AS used)
        """),
        {"seconds": seconds},
    )
    assert moved.rowcount


@pytest.mark.usefixtures("database")
def test_attempts_up_to_the_limit_are_allowed_and_no_more() -> None:
    assert [is_allowed(THREE_A_MINUTE, "ada") for _ in range(5)] == [True, True, True, False, False]
    assert is_allowed(THREE_A_MINUTE, "bob")
    assert is_allowed(attempt_limits.Limit("another", 3, timedelta(minutes=1)), "ada")


def test_window_slides_with_every_single_try(connection: Connection) -> None:
    attempt_limits.spend(THREE_A_MINUTE, "ada")
    later(connection, 40)
    attempt_limits.spend(THREE_A_MINUTE, "ada")
    attempt_limits.spend(THREE_A_MINUTE, "ada")
    with pytest.raises(TooManyTries) as refusal:
        attempt_limits.spend(THREE_A_MINUTE, "ada")

    assert 15 <= int(refusal.value.headers["Retry-After"]) <= 20, "it is when the oldest try leaves the window"
    later(connection, 20)
    assert [is_allowed(THREE_A_MINUTE, "ada") for _ in range(2)] == [True, False]
    later(connection, 40)
    assert [is_allowed(THREE_A_MINUTE, "ada") for _ in range(3)] == [True, True, False]


def test_refused_tries_do_not_prolong_the_wait(connection: Connection) -> None:
    for _ in range(3):
        attempt_limits.spend(THREE_A_MINUTE, "ada")
    later(connection, 59)
    assert not any(is_allowed(THREE_A_MINUTE, "ada") for _ in range(10))
    later(connection, 1)

    assert is_allowed(THREE_A_MINUTE, "ada")


def test_of_forty_concurrent_attempts_exactly_the_limit_is_allowed(connection: Connection) -> None:
    with ThreadPoolExecutor(max_workers=20) as threads:
        allowed = list(threads.map(lambda _: is_allowed(attempt_limits.SIGN_IN_OF_ACCOUNT, "ada"), range(40)))

    assert allowed.count(True) == 10
    assert connection.scalar(text("SELECT cardinality(used_at) FROM allowances")) == 10


def test_one_of_two_concurrent_calls_gets_the_last_attempt(
    database: Engine, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.database.sessions.MAX_WAIT_TO_COUNT_SECONDS", 30)
    for _ in range(2):
        attempt_limits.spend(THREE_A_MINUTE, "ada")

    with database.connect() as holding, ThreadPoolExecutor(max_workers=2) as threads:
        holding.execute(text("SELECT FROM allowances FOR UPDATE"))
        allowed = [threads.submit(is_allowed, THREE_A_MINUTE, "ada") for _ in range(2)]
        waiting = "pg_stat_activity WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0"
        wait_until(connection, f"SELECT count(*) = 2 FROM {waiting}")
        holding.rollback()

    assert sorted(try_.result() for try_ in allowed) == [False, True]
    assert connection.scalar(text("SELECT cardinality(used_at) FROM allowances")) == 3


def test_try_that_is_given_back_can_be_made_again(connection: Connection) -> None:
    attempt_limits.give_back(THREE_A_MINUTE, "ada")
    for _ in range(9):
        attempt_limits.spend(THREE_A_MINUTE, "ada")
        attempt_limits.give_back(THREE_A_MINUTE, "ada")
    attempt_limits.give_back(THREE_A_MINUTE, "ada")

    assert [is_allowed(THREE_A_MINUTE, "ada") for _ in range(4)] == [True, True, True, False]
    assert connection.scalar(text("SELECT count(*) FROM allowances")) == 1


def test_table_holds_neither_names_nor_addresses(connection: Connection) -> None:
    with at("192.0.2.7"):
        made = attempt_limits.spend_sign_in("ada@example.com")
        attempt_limits.settle_sign_in(made)
    attempt_limits.spend(attempt_limits.MAIL_FROM_ADDRESS, "192.0.2.7")

    rows = connection.execute(text("SELECT limit_name, key, allowances::text FROM allowances ORDER BY id")).all()
    assert [row.limit_name for row in rows] == [
        "sign_in_of_account", "sign_in_from_address", "sign_in_from_known_address", "mail_from_address",
    ]  # fmt: skip
    assert {len(row.key) for row in rows} == {32}
    # Long enough that no hash has them by chance; and as bytea shows them.
    forms = [form for name in ("ada@example", "192.0.2.7") for form in (name, name.encode().hex())]
    assert not [row for row in rows if any(form in row.allowances for form in forms)]
    assert len({bytes(row.key) for row in rows}) == 4, "one key in two limits has two hashes"


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    ("addresses", "allowed_count"),
    [
        (["2001:db8:1:2::1", "2001:db8:1:2:ffff::", "2001:0DB8:1:2::3", "2001:db8:1:2::4"], 3),
        (["2001:db8:1:2::1", "2001:db8:1:3::1", "2001:db8:1:4::1", "2001:db8:1:5::1"], 4),
        (["192.0.2.1", "::ffff:192.0.2.1", "::ffff:c000:201", "192.0.2.1"], 3),
        (["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"], 4),
    ],
    ids=["one /64", "four /64", "one IPv4 address", "four IPv4 addresses"],
)
def test_ipv6_addresses_of_one_network_are_one(addresses: list[str], allowed_count: int) -> None:
    assert [is_allowed(THREE_A_MINUTE, address) for address in addresses].count(True) == allowed_count


def fail(name: str, times: int) -> int:
    """Sign in with a wrong password so often; return how often the password was looked at."""
    tries = 0
    for _ in range(times):
        try:
            attempt_limits.spend_sign_in(name)
        except TooManyTries:
            continue
        tries += 1
    return tries


@pytest.mark.usefixtures("database")
def test_a_stranger_cannot_lock_a_user_out_at_an_address_that_they_signed_in_from() -> None:
    with at("192.0.2.1"):
        attempt_limits.settle_sign_in(attempt_limits.spend_sign_in("ada@example.com"))
    with at("198.51.100.66"):
        assert fail("ada@example.com", 40) == 10

    with at("192.0.2.1"):
        for _ in range(20):
            attempt_limits.settle_sign_in(attempt_limits.spend_sign_in("ada@example.com"))
        assert fail("ada@example.com", 40) == 10, "there, too, guessing is slow"
    with at("203.0.113.9"), pytest.raises(TooManyTries):
        attempt_limits.spend_sign_in("ada@example.com")


@pytest.mark.usefixtures("database")
def test_a_locked_out_user_signs_in_by_proving_their_identity() -> None:
    with at("198.51.100.66"):
        assert fail("ada@example.com", 11) == 10
    with at("192.0.2.1"):
        with pytest.raises(TooManyTries):
            attempt_limits.spend_sign_in("ada@example.com")
        attempt_limits.know_address("ada@example.com")  # As a reset of the password does, with a token that was mailed.

        assert attempt_limits.spend_sign_in("ada@example.com")


def test_known_address_is_forgotten_in_time_and_that_of_a_failure_is_never_known(connection: Connection) -> None:
    with at("192.0.2.1"):
        attempt_limits.settle_sign_in(attempt_limits.spend_sign_in("ada@example.com"))
        later(connection, 91 * 24 * 3600)
    with at("198.51.100.66"):
        attempt_limits.give_back_sign_in(attempt_limits.spend_sign_in("ada@example.com"))  # Right, but a code is due.
        assert fail("ada@example.com", 11) == 10

    for address in ("192.0.2.1", "198.51.100.66"):
        with at(address), pytest.raises(TooManyTries):
            attempt_limits.spend_sign_in("ada@example.com")


def test_sign_in_that_one_limit_refuses_uses_nothing_of_the_others(connection: Connection) -> None:
    with at("192.0.2.1"):
        for number in range(50):
            attempt_limits.spend_sign_in(f"name{number}")
        for _ in range(12):
            with pytest.raises(TooManyTries):
                attempt_limits.spend_sign_in("ada@example.com")
    used = "SELECT sum(cardinality(used_at)) FROM allowances"
    assert connection.scalar(text(used)) == 100

    with at("198.51.100.66"):
        assert fail("ada@example.com", 30) == 10
    assert connection.scalar(text(used)) == 120


BREAKING: dict[str, Callable[[Connection], object]] = {
    "locked": lambda other: other.execute(text("LOCK TABLE allowances")),
    "gone": lambda other: other.execute(text("ALTER TABLE allowances RENAME TO elsewhere")),
}


@pytest.mark.parametrize("breaking", BREAKING)
def test_uncountable_attempts_are_unavailable_and_successes_do_not_fail(
    database: Engine, monkeypatch: pytest.MonkeyPatch, breaking: str
) -> None:
    monkeypatch.setattr("app.database.sessions.MAX_WAIT_TO_COUNT_SECONDS", 0.2)
    with at("192.0.2.1"):
        made = attempt_limits.spend_sign_in("ada@example.com")
    with database.connect() as other:
        BREAKING[breaking](other)
        if breaking == "gone":
            other.commit()
        try:
            with pytest.raises(Unavailable):
                attempt_limits.spend(THREE_A_MINUTE, "ada")
            with at("192.0.2.1"):
                with pytest.raises(Unavailable):
                    attempt_limits.spend_sign_in("ada@example.com")
                attempt_limits.settle_sign_in(made)
        finally:
            if breaking == "gone":
                other.execute(text("ALTER TABLE elsewhere RENAME TO allowances"))
                other.commit()

    attempt_limits.spend(THREE_A_MINUTE, "ada")


def test_nothing_is_counted_where_limits_are_off(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(get_settings(), "rate_limits_enabled", False)

    with at("192.0.2.1"):
        assert fail("ada@example.com", 60) == 60
        attempt_limits.settle_sign_in(attempt_limits.spend_sign_in("ada@example.com"))
    assert all(is_allowed(THREE_A_MINUTE, "ada") for _ in range(10))

    assert connection.scalar(text("SELECT count(*) FROM allowances")) == 0

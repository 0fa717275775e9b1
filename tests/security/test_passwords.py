"""Passwords: none is cut off, spellings of one are equal, common ones are refused, timing reveals nothing."""

import random
import statistics
import time
import unicodedata
from functools import partial

import pytest
from passlib.context import CryptContext
from passlib.hash import bcrypt
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Engine, text

from app.config import get_settings
from app.errors import InvalidCredentials
from app.schemas.types import Password
from app.security import passwords
from app.services import auth, totp
from tests.fixtures import PASSWORD

PASSWORDS = TypeAdapter(Password)


def fits(password: str, password_hash: str) -> bool:
    return passwords.verify(password, password_hash)[0]


@pytest.mark.parametrize("length_bytes", [72, 73, 200])
@pytest.mark.parametrize("letter", ["x", "é", "\N{PILE OF POO}"])
def test_passwords_that_differ_in_their_last_letter_only_are_different(length_bytes: int, letter: str) -> None:
    filling = letter * ((length_bytes - 1) // len(letter.encode()))
    filling += "." * (length_bytes - 1 - len(filling.encode()))
    kept = passwords.hash_password(filling + "a")

    assert len((filling + "a").encode()) == length_bytes
    assert fits(filling + "a", kept)
    assert not fits(filling + "b", kept)
    assert not fits(filling, kept)


@pytest.mark.parametrize(
    ("typed", "typed_elsewhere"),
    [
        ("Zo\u00eb's caf\u00e9", "Zoe\u0308's cafe\u0301"),
        ("\ufb01ne \u2460 pass", "fine 1 pass"),
        ("ｗｉｄｅ ｗｏｒｄ", "wide word"),
    ],
)
def test_a_password_is_the_same_however_a_keyboard_composes_it(typed: str, typed_elsewhere: str) -> None:
    assert typed != typed_elsewhere
    assert fits(typed_elsewhere, passwords.hash_password(typed))
    assert not fits(typed.upper(), passwords.hash_password(typed))


@pytest.mark.parametrize("prefix", ["$2b$", "$2a$", "$2y$"])
def test_a_hash_of_plain_bcrypt_is_accepted_and_replaced(prefix: str) -> None:
    kept = bcrypt.using(rounds=4, ident=prefix.strip("$")).hash("hello world")
    assert kept.startswith(prefix)

    is_right, better = passwords.verify("hello world", kept)

    assert is_right
    assert better is not None
    assert better.startswith("$bcrypt-sha256$")
    assert passwords.verify("hello world", better) == (True, None)
    assert passwords.verify("hello World", kept) == (False, None)


def test_a_hash_of_another_cost_is_replaced() -> None:
    cheaper = CryptContext(["bcrypt_sha256"], bcrypt_sha256__rounds=5).hash("hello world")

    is_right, better = passwords.verify("hello world", cheaper)

    assert is_right
    assert better is not None


def test_the_list_of_common_passwords_is_long_enough_and_ready_to_compare_with() -> None:
    listed = passwords._common_passwords()

    assert len(listed) == 30_000
    assert sum(len(password) >= 8 for password in listed) >= 10_000
    assert all(unicodedata.normalize("NFKC", password).casefold() == password for password in listed)
    assert passwords._COMMON_PASSWORDS.with_name("LICENSE").read_text().startswith("MIT License")


@pytest.mark.parametrize(
    "password", ["password", "PassWord123", "12345678", "ｐａｓｓｗｏｒｄ", "trustno1", "QWERTYUIOP"]
)
def test_common_passwords_are_refused_however_cased_and_composed(
    password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(get_settings(), "password_blocklist_enabled", True)
    with pytest.raises(ValidationError) as refused:
        PASSWORDS.validate_python(password)

    (problem,) = refused.value.errors()
    assert problem["type"] == "password_common"
    assert problem["msg"] == "This password is one of the most common; choose another"


@pytest.mark.parametrize("password", ["password", "PassWord123", "12345678"])
def test_they_are_taken_where_the_operator_says_so(password: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(get_settings(), "password_blocklist_enabled", False)

    assert PASSWORDS.validate_python(password) == password


@pytest.mark.parametrize(
    "password", ["        ", "aaaaaaaab", "zürich am see", "пароль пароль", "correct horse battery", "😀" * 8]
)
def test_nothing_else_is_demanded_of_a_password(password: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(get_settings(), "password_blocklist_enabled", True)
    assert PASSWORDS.validate_python(password) == password


SAMPLE_COUNT = 200
# The cost at which people run it is 12; from 9 on the hash is what takes the time, and the test is still bearable.
ROUNDS = 9


@pytest.mark.slow
def test_signing_in_takes_as_long_for_a_name_that_is_known_as_for_one_that_is_not(
    database: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    costs = {"bcrypt_sha256__rounds": ROUNDS, "bcrypt__rounds": ROUNDS}
    context = passwords._context().copy(**costs)
    monkeypatch.setattr(passwords, "_context", lambda: context)
    monkeypatch.setattr(get_settings(), "rate_limits_enabled", False)
    with database.begin() as connection:
        connection.execute(
            text("INSERT INTO users (email, email_canonical, password_hash) VALUES (:email, :email, :hash)"),
            {"email": "known@example.com", "hash": passwords.hash_password(PASSWORD)},
        )
    device = auth.Device("test", "192.0.2.1")

    def seconds(name: str) -> float:
        started_at = time.perf_counter()
        with pytest.raises(InvalidCredentials):
            auth.sign_in(name, "not the password", device, partial(totp.demand, otp=None), refreshes=True)
        return time.perf_counter() - started_at

    names = ["known@example.com", "unknown@example.com"]
    samples: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(SAMPLE_COUNT + 5):
        for name in random.sample(names, 2):  # What else the machine does meets both alike.
            samples[name].append(seconds(name))
    known, unknown = (statistics.median(samples[name][5:]) for name in names)

    with capsys.disabled():
        print(f"\nsign-in, median of {SAMPLE_COUNT}: known {known * 1e3:.2f} ms, unknown {unknown * 1e3:.2f} ms")  # noqa: T201
    assert abs(known - unknown) / min(known, unknown) <= 0.05

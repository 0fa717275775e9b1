"""`canonical_email`: one form for all spellings of an address, in the application and in migrations."""

import importlib.util
import time
from collections.abc import Callable
from types import ModuleType

import pytest

from app.security.email_addresses import canonical_email
from tests.conftest import ROOT

# Every character that has another case or a compatibility form is below this.
CHARACTERS = [chr(code) for code in range(0x20, 0x2FFFF) if not 0xD800 <= code < 0xE000]


def migration(number: str) -> ModuleType:
    (path,) = (ROOT / "alembic" / "versions").glob(f"*_{number}_*.py")
    spec = importlib.util.spec_from_file_location(f"migration_{number}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_canonical_form_of_a_canonical_form_is_itself_for_every_character() -> None:
    once = [canonical_email(f"a{character}b@example.com") for character in CHARACTERS]

    assert [form for form in once if canonical_email(form) != form] == []


@pytest.mark.parametrize(
    "name", ["", "@", "a@", "@a", "a@@b", "ada", "Ада", "\ud800@\ud800", "a@" + "ü" * 400, "a@ü..b"]
)
def test_any_text_has_a_form_because_people_type_any_text(name: str) -> None:
    assert canonical_email(canonical_email(name)) == canonical_email(name)


def test_hostile_domain_costs_little() -> None:
    domains = ["ü" * 320, "xn--" + "a" * 316, "١" * 310 + "ü", "ü." * 160, "\u0300" * 319 + "ü"]
    started_at = time.perf_counter()

    for domain in domains:
        canonical_email(f"a@{domain}")

    assert time.perf_counter() - started_at < 0.5


def test_address_that_idna_does_not_allow_keeps_the_form_of_earlier_releases() -> None:
    assert canonical_email("Ada@Straße_1.example") == "ada@strasse_1.example"


@pytest.mark.parametrize(
    "frozen",
    [lambda email: migration("0008").canonical(email), lambda email: migration("0025").new_form(email)],
    ids=["0008", "0025"],
)
def test_migrations_make_the_form_of_the_application(frozen: Callable[[str], str]) -> None:
    """`adopt` finds the accounts that share an address by the application's form, then runs these migrations."""
    emails = [
        "Ada@Example.com", " Straße@FASS.de", "straße@faß.de", "user@bücher.example", "user@xn--bcher-kva.example",
        "ZOE\u0308@example.com", "ﬁ@☃.example", "İ@ex_ample.com", "no address", "ä@Straße_1.example", "",
    ]  # fmt: skip

    assert [frozen(email) for email in emails] == [canonical_email(email) for email in emails]

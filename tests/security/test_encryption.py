"""Secrets at rest: unreadable without the key, readable with a previous one, and encrypted anew then."""

import pytest
from pydantic import SecretStr

from app.config import get_settings
from app.security import encryption

PLAIN = b"a secret of the second factor"


def use_keys(monkeypatch: pytest.MonkeyPatch, newest: str, *previous: str) -> None:
    monkeypatch.setattr(get_settings(), "secret_key", SecretStr(newest * 40))
    monkeypatch.setattr(get_settings(), "secret_key_previous", [SecretStr(one * 40) for one in previous])


def test_encrypted_values_are_unreadable_and_never_the_same_twice() -> None:
    sealed = encryption.encrypt(PLAIN)

    assert PLAIN not in sealed
    assert encryption.encrypt(PLAIN) != sealed
    assert encryption.decrypt(sealed) == (PLAIN, None)


def test_a_previous_key_reads_and_the_newest_encrypts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    use_keys(monkeypatch, "a")
    sealed = encryption.encrypt(PLAIN)

    use_keys(monkeypatch, "c", "b", "a")
    plain, resealed = encryption.decrypt(sealed)

    assert plain == PLAIN
    assert resealed is not None
    use_keys(monkeypatch, "c")
    assert encryption.decrypt(resealed) == (PLAIN, None)


@pytest.mark.parametrize("previous", ["", "x"])
def test_without_its_key_nothing_is_readable(monkeypatch: pytest.MonkeyPatch, previous: str) -> None:
    use_keys(monkeypatch, "a")
    sealed = encryption.encrypt(PLAIN)

    use_keys(monkeypatch, "b", *previous)

    with pytest.raises(encryption.Undecryptable):
        encryption.decrypt(sealed)


def test_modified_values_cannot_be_decrypted() -> None:
    sealed = encryption.encrypt(PLAIN)

    for changed in (b"", sealed[:-1], sealed[:40] + b"A" + sealed[41:], PLAIN, b"\xff" * 100):
        if changed != sealed:
            with pytest.raises(encryption.Undecryptable):
                encryption.decrypt(changed)


def test_the_encryption_key_differs_from_the_signing_key(monkeypatch: pytest.MonkeyPatch) -> None:
    from base64 import urlsafe_b64encode

    from cryptography.fernet import Fernet, InvalidToken

    monkeypatch.setattr(get_settings(), "secret_key", SecretStr("k" * 32))
    with pytest.raises(InvalidToken):
        Fernet(urlsafe_b64encode(b"k" * 32)).decrypt(encryption.encrypt(PLAIN))

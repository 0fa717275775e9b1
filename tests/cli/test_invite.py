"""`python -m app invite`: an invite of the operator."""

import re
import sys

import pytest
from sqlalchemy import Connection, text
from starlette.testclient import TestClient

from app.cli import commands
from app.config import get_settings
from tests.fixtures import PASSWORD


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str]:
    monkeypatch.setattr(sys, "argv", ["python -m app", "invite", *arguments])
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        commands.main()
    return end.value.code or 0, capsys.readouterr().out


def test_a_printed_invite_opens_the_sign_up(
    client: TestClient, connection: Connection, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(get_settings(), "registration", "invite")

    code, said = run(monkeypatch, capsys, "--uses", "2", "--days", "90")

    assert code == 0
    found = re.fullmatch(r"The invite is: (\S{22})\nIt is valid for 2 accounts, until 20\d\d-\S+ \S+ UTC\n", said)
    assert found, said
    for number, status in enumerate([201, 201, 403]):
        body = {"email": f"new{number}@example.com", "password": PASSWORD, "invite": found[1]}
        assert client.post("/users", json=body).status_code == status
    assert connection.execute(text("SELECT creator_id, max_uses, uses FROM invites")).all() == [(None, 2, 2)]


@pytest.mark.parametrize("arguments", [("--uses", "0"), ("--uses", "101"), ("--days", "91"), ("--days", "0")])
def test_values_out_of_range_create_nothing(
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
) -> None:
    code, said = run(monkeypatch, capsys, *arguments)

    assert (code, said) == (2, "")
    assert connection.scalar(text("SELECT count(*) FROM invites")) == 0

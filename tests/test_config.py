"""Settings: invalid ones stop the program with one clear line.

Valid ones mean the same in any spelling.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
from pydantic.fields import FieldInfo
from sqlalchemy import create_engine

from app.config import ConfigurationError, Settings, get_settings

ROOT = Path(__file__).resolve().parent.parent
FASTAPI_SECRET = "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7"
SECRET = "0123456789abcdef" * 2
PRODUCTION = {"ENVIRONMENT": "production", "SECRET_KEY": SECRET, "DATABASE_URL": "postgres://u:p@h/d"}
MAILING = PRODUCTION | {
    "SMTP_HOST": "mail.example", "PUBLIC_URL": "https://posts.example", "MAIL_FROM": "Posts <posts@example.com>"
}  # fmt: skip
NOT_A_URL = "DATABASE_URL must look like postgresql://user:password@host:5432/name"


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def settings_from(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> Settings:
    """Return the settings of a program that starts now."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return get_settings.__wrapped__()


def is_choice(field: FieldInfo) -> bool:
    """Return whether the setting takes one of a few words."""
    return any(get_origin(kind) is Literal for kind in (field.annotation, *get_args(field.annotation)))


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({"SECRET_KEY": "x" * 31}, "SECRET_KEY is shorter than 32 bytes; make one with: python -c"),
        (PRODUCTION | {"PROFILING_ENABLED": "true"}, "PROFILING_ENABLED is for development"),
        ({"METRICS_TOKEN": "x" * 31}, "METRICS_TOKEN is shorter than 32 bytes; make one with: python -c"),
        (
            {"SECRET_KEY": SECRET + "\n"},
            "SECRET_KEY: ends with a line break, possibly of the file that it was read from",
        ),
        ({"DATABASE_PASSWORD": "canary\r\n"}, "DATABASE_PASSWORD: ends with a line break"),
        (
            {"DATABASE_URL": "postgres://u:p@h/d?pgbouncer=true"},
            "DATABASE_URL has a parameter 'pgbouncer' that PostgreSQL does not know; set DATABASE_BEHIND_POOLER=true",
        ),
        (
            {"DATABASE_URL": "postgres://u:p@h/d?sslmode=require&schema=public"},
            "DATABASE_URL has a parameter 'schema' that PostgreSQL does not know; write ?options=-csearch_path",
        ),
        (
            PRODUCTION | {"DATABASE_DIRECT_URL": "postgres://u:p@h/d?colour=1"},
            "DATABASE_DIRECT_URL has a parameter 'colour' that PostgreSQL does not know; remove it",
        ),
        ({"SLOW_REQUEST_MS": "0"}, "SLOW_REQUEST_MS: Input should be greater than or equal to 1"),
        ({"LOG_FORMAT": "xml"}, "LOG_FORMAT: Input should be 'text' or 'json'"),
        ({"SECRET_KEY": "weak"}, "SECRET_KEY is shorter than 32 bytes; make one with: python -c"),
        ({"SECRET_KEY_PREVIOUS": "x" * 31}, "SECRET_KEY_PREVIOUS has a key shorter than 32 bytes; leave it out"),
        (
            PRODUCTION | {"SECRET_KEY_PREVIOUS": f"{SECRET}, canary,{SECRET}"},
            "SECRET_KEY_PREVIOUS has a key shorter than 32 bytes; leave it out",
        ),
        (PRODUCTION | {"SECRET_KEY": ""}, "SECRET_KEY is not set; make one with: python -c"),
        (PRODUCTION | {"SECRET_KEY": "x" * 31}, "SECRET_KEY is shorter than 32 bytes"),
        (PRODUCTION | {"SECRET_KEY": "secret" * 6}, "SECRET_KEY repeats a few characters, which can be guessed; make"),
        (PRODUCTION | {"SECRET_KEY": "x" * 64}, "SECRET_KEY repeats a few characters, which can be guessed; make"),
        (PRODUCTION | {"SECRET_KEY": FASTAPI_SECRET}, "SECRET_KEY is the one in FastAPI's documentation; make one"),
        (PRODUCTION | {"PASSWORD_HASH_ROUNDS": "9"}, "PASSWORD_HASH_ROUNDS is below 10 in production"),
        (PRODUCTION | {"DATABASE_URL": ""}, "no database is configured; set DATABASE_URL"),
        (PRODUCTION | {"DATABASE_URL": "mysql://u:canary@h/d"}, NOT_A_URL),
        ({"DATABASE_URL": "mysql://u:canary@h/d"}, NOT_A_URL),
        ({"DATABASE_URL": "postgresql+psycopg://u:canary@h/d"}, NOT_A_URL),
        ({"DATABASE_URL": "canary"}, NOT_A_URL),
        ({"DATABASE_URL": "postgres://u:canary@h:port/d"}, NOT_A_URL),
        ({"DATABASE_URL": "postgresql:/u:canary@h/d"}, NOT_A_URL),
        ({"DATABASE_URL": "postgres://u:canary@h:1,i:port/d"}, NOT_A_URL),
        ({"DATABASE_DIRECT_URL": "canary"}, NOT_A_URL.replace("_URL", "_DIRECT_URL")),
        ({"DATABASE_REPLICA_URL": "canary"}, NOT_A_URL.replace("_URL", "_REPLICA_URL")),
        ({"DATABASE_REPLICA_URL": "postgres://u:canary@h/d"}, "no database is configured; set DATABASE_URL beside"),
        ({"DATABASE_PORT": "0"}, "DATABASE_PORT: Input should be greater than or equal to 1"),
        ({"ENVIRONMENT": "staging"}, "ENVIRONMENT: Input should be 'development' or 'production'"),
        ({"PORT": "http"}, "PORT: Input should be a valid integer"),
        ({"PORT": "65536"}, "PORT: Input should be less than or equal to 65535"),
        ({"WORKERS": "0"}, "WORKERS: Input should be greater than or equal to 1"),
        ({"LOG_LEVEL": "loud"}, "LOG_LEVEL: Input should be 'debug', 'info', 'warning' or 'error'"),
        ({"ALGORITHM": "none"}, "ALGORITHM: Input should be 'HS256'"),
        ({"ALGORITHM": "RS256"}, "ALGORITHM: Input should be 'HS256'"),
        (
            {"ACCESS_TOKEN_EXPIRE_MINUTES": "0"},
            "ACCESS_TOKEN_EXPIRE_MINUTES: Input should be greater than or equal to 1",
        ),
        ({"DEFAULT_SORT": "best"}, "DEFAULT_SORT: Input should be 'new', 'old', 'top' or 'hot'"),
        ({"PUBLIC_EMAILS": "perhaps"}, "PUBLIC_EMAILS: Input should be a valid boolean"),
        ({"MAX_BODY_BYTES": "1MB"}, "MAX_BODY_BYTES: Input should be a valid integer"),
        ({"MAIL_FROM": "posts"}, "MAIL_FROM: must look like name@example.com"),
        ({"MAIL_FROM": "a@b.c\r\nBcc: canary@b.c"}, "MAIL_FROM: must look like name@example.com"),
        ({"MAIL_FROM": "a@b.c, canary@b.c"}, "MAIL_FROM: must look like name@example.com"),
        ({"PUBLIC_URL": "posts.example"}, "PUBLIC_URL: must look like https://example.com"),
        ({"PUBLIC_URL": "https://posts.example/?next=canary"}, "PUBLIC_URL: must look like https://example.com"),
        ({"ROOT_PATH": "api"}, "ROOT_PATH: must look like /api"),
        ({"ROOT_PATH": "//canary.example"}, "ROOT_PATH: must look like /api"),
        ({"ROOT_PATH": "/<canary>"}, "ROOT_PATH: must look like /api"),
        ({"PUBLIC_URL": "javascript://canary"}, "PUBLIC_URL: must look like https://example.com"),
        ({"SMTP_TLS": "perhaps"}, "SMTP_TLS: Input should be 'starttls', 'tls' or 'none'"),
        ({"SMTP_USERNAME": "u"}, "SMTP_USERNAME and SMTP_PASSWORD go together"),
        ({"SMTP_PASSWORD": "canary"}, "SMTP_USERNAME and SMTP_PASSWORD go together"),
        ({"MEDIA_S3_ACCESS_KEY_ID": "k"}, "MEDIA_S3_ACCESS_KEY_ID and MEDIA_S3_SECRET_ACCESS_KEY go together"),
        ({"MEDIA_S3_SECRET_ACCESS_KEY": "canary"}, "MEDIA_S3_ACCESS_KEY_ID and MEDIA_S3_SECRET_ACCESS_KEY go"),
        ({"MEDIA_S3_ENDPOINT": "s3.example.com"}, "MEDIA_S3_ENDPOINT: must look like https://s3.example.com"),
        ({"MEDIA_S3_ENDPOINT": "https://canary@s3.example.com"}, "MEDIA_S3_ENDPOINT: must look like https://"),
        ({"MEDIA_S3_ENDPOINT": "https://s3.exa\tmple"}, "MEDIA_S3_ENDPOINT: must look like https://"),
        ({"MEDIA_S3_BUCKET": "s3://pictures"}, "MEDIA_S3_BUCKET: may have letters, digits, and . _ - @ + = only"),
        ({"MEDIA_S3_REGION": "eu central"}, "MEDIA_S3_REGION: may have letters, digits"),
        ({"MEDIA_S3_ACCESS_KEY_ID": "canary\t"}, "MEDIA_S3_ACCESS_KEY_ID: may have letters, digits"),
        (MAILING | {"SMTP_TLS": "none"}, "SMTP_TLS=none sends secrets in the clear"),
        (MAILING | {"SMTP_TLS": "none", "SMTP_HOST": "127.evil.example"}, "SMTP_TLS=none sends secrets in the clear"),
        (MAILING | {"PUBLIC_URL": ""}, "PUBLIC_URL must be an https:// address in production"),
        (MAILING | {"PUBLIC_URL": "http://posts.example"}, "PUBLIC_URL must be an https:// address in production"),
        (MAILING | {"MAIL_FROM": ""}, "MAIL_FROM is not set"),
        ({"SECURITY_EVENTS_KEPT_DAYS": "0"}, "SECURITY_EVENTS_KEPT_DAYS: Input should be greater than or equal to 1"),
        ({"CORS_ORIGINS": "*"}, "CORS_ORIGINS: '*' is not an origin such as https://example.com; `*` is never allowed"),
        ({"CORS_ORIGINS": "https://a.example,*"}, "CORS_ORIGINS: '*' is not an origin"),
        ({"CORS_ORIGINS": "a.example"}, "CORS_ORIGINS: 'a.example' is not an origin"),
        ({"CORS_ORIGINS": "https://a.example/path"}, "CORS_ORIGINS: 'https://a.example/path' is not an origin"),
        ({"CORS_ORIGINS": "null"}, "CORS_ORIGINS: 'null' is not allowed: every sandboxed page"),
        ({"CORS_ORIGINS": "https://a.example,null"}, "CORS_ORIGINS: 'null' is not allowed: every sandboxed page"),
        # Not read as JSON, in which `null` would be no value and digits a number.
        ({"CORS_ORIGINS": '["https://a.example"]'}, "CORS_ORIGINS: '[\"https://a.example\"]' is not an origin"),
        ({"TRUSTED_PROXIES": "null"}, "TRUSTED_PROXIES: 'null' is not an address or network such as 10.0.0.0/8"),
        ({"SECRET_KEY_PREVIOUS": "null"}, "SECRET_KEY_PREVIOUS has a key shorter than 32 bytes; leave it out"),
        ({"CORS_ORIGINS": "capacitor://*"}, "CORS_ORIGINS: 'capacitor://*' is not an origin"),
        ({"CORS_ORIGINS": "capacitor://"}, "CORS_ORIGINS: 'capacitor:' is not an origin"),
        ({"CORS_ORIGINS": "chrome-extension://id/page"}, "CORS_ORIGINS: 'chrome-extension://id/page' is not an origin"),
        ({"CORS_ORIGINS": "file://"}, "CORS_ORIGINS: 'file:' is not an origin"),
        ({"CORS_ORIGINS": "ftp://a.example"}, "CORS_ORIGINS: 'ftp://a.example' is not an origin"),
        ({"CORS_ORIGINS": "https://u@a.example"}, "CORS_ORIGINS: 'https://u@a.example' is not an origin"),
        ({"CORS_ORIGINS": "https://*.example"}, "CORS_ORIGINS: 'https://*.example' is not an origin"),
        ({"CORS_ORIGINS": "https://"}, "CORS_ORIGINS: 'https:' is not an origin"),
        ({"TRUSTED_PROXIES": "*"}, "TRUSTED_PROXIES: '*' is not an address or network such as 10.0.0.0/8"),
        ({"TRUSTED_PROXIES": "10.0.0.1,proxy"}, "TRUSTED_PROXIES: 'proxy' is not an address or network"),
        ({"TRUSTED_PROXIES": "10.0.0.1/8"}, "TRUSTED_PROXIES: '10.0.0.1/8' is not an address or network"),
        ({"TRUSTED_PROXIES": "0.0.0.0/0"}, "TRUSTED_PROXIES: '0.0.0.0/0' would let every client choose the address"),
        ({"TRUSTED_PROXIES": "::/0"}, "TRUSTED_PROXIES: '::/0' would let every client choose the address"),
        ({"RATE_LIMIT_PER_MINUTE": "0"}, "RATE_LIMIT_PER_MINUTE: Input should be greater than or equal to 1"),
        ({"RATE_LIMITS_ENABLED": "perhaps"}, "RATE_LIMITS_ENABLED: Input should be a valid boolean"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_in_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], line: str
) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        settings_from(monkeypatch, environment)

    message = str(refusal.value)
    assert message.startswith(line)
    assert "\n" not in message
    assert "canary" not in message
    assert environment.get("SECRET_KEY", "") == "" or environment["SECRET_KEY"] not in message


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, field in Settings.model_fields.items()
        if {int, bool} & {field.annotation, *get_args(field.annotation)} or is_choice(field)
    ],
)
def test_nonsense_is_refused_by_every_setting_that_takes_no_words(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        settings_from(monkeypatch, {name.upper(): "canary\nnonsense"})

    assert str(refusal.value).startswith(f"{name.upper()}: Input should be ")
    assert "\n" not in str(refusal.value)
    assert "canary" not in str(refusal.value)


def test_file_of_settings_that_cannot_be_read_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / ".env"
    file.write_bytes(b"PORT=\xff\xfe")
    monkeypatch.setitem(Settings.model_config, "env_file", file)

    with pytest.raises(ConfigurationError) as refusal:
        settings_from(monkeypatch, {})

    assert str(refusal.value) == ".env is not UTF-8: byte 6 cannot be read"


def test_lines_of_the_env_file_are_taken_literally_and_the_environment_takes_precedence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / ".env"
    file.write_text(
        "\ufeffdatabase_hostname=db\nDATABASE_PASSWORD='p${HOME}$x'\nDATABASE_NAME=\nPORT=8001\n# HOST=0.0.0.0\n"
        "SECRET_KEY_PREVIOUS=" + SECRET + "," + SECRET[::-1] + "\nUNKNOWN=1\n"
    )
    monkeypatch.setitem(Settings.model_config, "env_file", file)

    settings = settings_from(monkeypatch, {"PORT": "8002"})

    assert settings.database is not None
    assert settings.database.password == "p${HOME}$x"
    assert (settings.database.host, settings.database.database) == ("db", "fastapi")
    assert (settings.port, settings.host) == (8002, "127.0.0.1")
    assert [secret.get_secret_value() for secret in settings.secret_key_previous or []] == [SECRET, SECRET[::-1]]


def test_variable_names_the_env_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "elsewhere.env"
    file.write_text("PORT=8003\n")

    assert settings_from(monkeypatch, {"ENV_FILE": str(file)}).port == 8003


def test_named_env_file_that_does_not_exist_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        settings_from(monkeypatch, {"ENV_FILE": str(tmp_path / "nowhere.env")})

    assert str(refusal.value) == (
        f"ENV_FILE names {tmp_path}/nowhere.env, which does not exist; correct it or remove the variable"
    )


@pytest.mark.parametrize("place", ["environment", "file"])
@pytest.mark.parametrize(
    ("values", "meant"),
    [
        ({"GC_INTERVAL_MINUTES": "7"}, 7),
        ({"CLEANUP_INTERVAL_MINUTES": "8"}, 8),
        ({"GC_INTERVAL_MINUTES": "7", "CLEANUP_INTERVAL_MINUTES": "8"}, 8),
        ({}, 60),
    ],
)
def test_former_name_of_a_setting_is_read_where_the_new_one_is_not_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str, values: dict[str, str], meant: int
) -> None:
    file = tmp_path / ".env"
    file.write_text("".join(f"{name}={value}\n" for name, value in values.items() if place == "file"))
    monkeypatch.setitem(Settings.model_config, "env_file", file)
    monkeypatch.delenv("CLEANUP_INTERVAL_MINUTES", raising=False)
    for name, value in values.items():
        if place == "environment":
            monkeypatch.setenv(name, value)

    assert Settings().cleanup_interval_minutes == meant


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [("LOG_LEVEL", "INFO", "info"), ("LOG_FORMAT", "Json", "json"), ("ENVIRONMENT", "Development", "development"),
     ("SMTP_TLS", "STARTTLS", "starttls"), ("ALGORITHM", "hs256", "HS256"), ("DEFAULT_SORT", "Old", "old")],
)  # fmt: skip
def test_choices_are_taken_in_any_case(monkeypatch: pytest.MonkeyPatch, name: str, value: str, meant: str) -> None:
    assert getattr(settings_from(monkeypatch, {name: value}), name.lower()) == meant


@pytest.mark.parametrize("command", [["app", "serve"], ["alembic", "upgrade", "head"]])
@pytest.mark.parametrize(
    "environment",
    [{"SECRET_KEY": "weak"}, {"ENVIRONMENT": "production"}, {"DATABASE_URL": "x"}, {"CORS_ORIGINS": "*"},
    ],
    ids=["weak secret", "production without a secret", "bad URL", "any origin"],
)  # fmt: skip
def test_a_program_reports_it_in_one_line_and_does_not_start(command: list[str], environment: dict[str, str]) -> None:
    result = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env=_bare_environment() | environment, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip

    assert result.returncode == 1
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert "weak" not in result.stderr


IMPORT_EVERYTHING = """
import importlib, pkgutil, sys
import app
from app.config import get_settings
names = [module.name for module in pkgutil.walk_packages(app.__path__, "app.")]
for name in sorted(set(names) - {"app.main", "app.__main__"}):
    importlib.import_module(name)
    assert get_settings.cache_info().misses == 0, name
assert "app.main" not in sys.modules and len(names) > 100
"""


def test_importing_a_module_reads_no_settings() -> None:
    result = subprocess.run(
        [sys.executable, "-c", IMPORT_EVERYTHING], cwd=ROOT, env=_bare_environment() | {"SECRET_KEY": "weak"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert (result.returncode, result.stderr) == (0, "")


def test_a_development_server_without_its_database_says_so_in_one_line() -> None:
    environment = {"DATABASE_URL": "postgres://u:canary@127.0.0.1:1/d", "PORT": "0"}

    result = subprocess.run(
        [sys.executable, "-m", "app", "run"], cwd=ROOT, env=_bare_environment() | environment, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip

    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert "port 1 failed: Connection refused" in line
    assert "canary" not in line


def test_previous_secrets_are_accepted_after_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    older = "x" * 40
    settings = settings_from(monkeypatch, PRODUCTION | {"SECRET_KEY_PREVIOUS": f" {older} ,,{'y' * 32},"})

    assert settings.signing_secret == SECRET
    assert settings.accepted_secrets == [SECRET, older, "y" * 32]
    assert older not in repr(settings)
    assert older not in str(settings.model_dump())


def test_a_secret_of_32_bytes_of_any_characters_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        settings_from(monkeypatch, PRODUCTION | {"SECRET_KEY": "àáâãäåæçèéêëìíîï"}).signing_secret == "àáâãäåæçèéêëìíîï"
    )


def test_mail_settings_of_production_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_from(monkeypatch, MAILING | {"PUBLIC_URL": "https://posts.example/app/"})

    assert (settings.site, settings.mail_from) == ("https://posts.example/app", "Posts <posts@example.com>")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_mail_needs_no_encryption_on_the_way_to_this_machine(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    assert settings_from(monkeypatch, MAILING | {"SMTP_TLS": "none", "SMTP_HOST": host}).smtp_tls == "none"


def test_neither_secret_nor_passwords_show_when_settings_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_from(
        monkeypatch,
        {"SECRET_KEY": "canary" * 8, "DATABASE_URL": "postgres://u:canary@h/d", "DATABASE_PASSWORD": "canary",
         "DATABASE_DIRECT_URL": "postgres://u:canary@h/d", "DATABASE_REPLICA_URL": "postgres://u:canary@h/d",
         "SMTP_USERNAME": "u", "SMTP_PASSWORD": "canary",
         "MEDIA_S3_ACCESS_KEY_ID": "k", "MEDIA_S3_SECRET_ACCESS_KEY": "canary"},
    )  # fmt: skip

    assert "canary" not in repr(settings)
    assert "canary" not in repr(settings.database)


@pytest.mark.parametrize(
    "endpoint", ["https://s3.example.com", "http://127.0.0.1:9000/", "http://[::1]:9000", "https://a.example/v1/s3"]
)
def test_a_bucket_needs_its_package(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    bucket = {"MEDIA_S3_BUCKET": "pictures", "MEDIA_S3_ENDPOINT": endpoint}
    settings = settings_from(monkeypatch, bucket)
    assert (settings.media_s3_endpoint, settings.media_s3_credentials) == (endpoint.rstrip("/"), None)

    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(ConfigurationError) as refusal:
        settings_from(monkeypatch, bucket)
    assert str(refusal.value) == (
        "MEDIA_S3_BUCKET needs the package obstore, which is not installed; "
        "run: pip install --require-hashes --requirement requirements-s3.lock"
    )
    del bucket["MEDIA_S3_BUCKET"]
    monkeypatch.delenv("MEDIA_S3_BUCKET")
    assert settings_from(monkeypatch, bucket).media_s3_bucket is None


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_every_scheme_of_postgresql_means_psycopg2(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    url = settings_from(monkeypatch, {"DATABASE_URL": f"{scheme}://u:p@h:6543/d?sslmode=require"}).database

    assert url is not None
    assert url.drivername == "postgresql+psycopg2"
    assert create_engine(url).dialect.driver == "psycopg2"
    assert (url.username, url.password, url.host, url.port, url.database) == ("u", "p", "h", 6543, "d")
    assert url.query == {"sslmode": "require"}


STRANGE_PASSWORD = "p@ss:w%rd/?#[é] +%40"


@pytest.mark.parametrize(
    "environment",
    [
        {"DATABASE_HOSTNAME": "h", "DATABASE_PASSWORD": STRANGE_PASSWORD, "DATABASE_USERNAME": "u"},
        {"DATABASE_URL": "postgres://u:p%40ss%3Aw%25rd%2F%3F%23%5B%C3%A9%5D%20%2B%2540@h:5432/fastapi"},
    ],
    ids=["DATABASE_PASSWORD", "DATABASE_URL"],
)
def test_a_password_of_any_characters_reaches_the_driver_as_it_is(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    url = settings_from(monkeypatch, environment).database

    assert url is not None
    _, arguments = create_engine(url).dialect.create_connect_args(url)
    assert arguments == {"host": "h", "port": 5432, "dbname": "fastapi", "user": "u", "password": STRANGE_PASSWORD}


@pytest.mark.parametrize(
    "url",
    [
        "postgres://u:p%40,@one:1,two:2/d?target_session_attrs=read-write",
        "postgresql+psycopg2://u:p%40,@/d?host=one:1&host=two:2&target_session_attrs=read-write",
        "postgres://u:p%40,@/d?host=one,two&port=1,2&target_session_attrs=read-write",
    ],
    ids=["as libpq has it", "as SQLAlchemy has it", "as parameters"],
)
def test_several_hosts_reach_the_driver_however_they_are_written(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    found = settings_from(monkeypatch, {"DATABASE_URL": url}).database

    assert found is not None
    _, arguments = create_engine(found).dialect.create_connect_args(found)
    expected = {"host": "one,two", "port": "1,2", "dbname": "d", "user": "u", "password": "p@,"}
    assert arguments == {**expected, "target_session_attrs": "read-write"}


def test_a_way_past_the_pooler_is_the_direct_url_or_that_there_is_no_pooler(monkeypatch: pytest.MonkeyPatch) -> None:
    one = settings_from(monkeypatch, {"DATABASE_URL": "postgres://u:p@pooler/d"})
    assert one.direct_database == one.database

    behind = settings_from(monkeypatch, {"DATABASE_BEHIND_POOLER": "true"})
    with pytest.raises(ConfigurationError, match="set DATABASE_DIRECT_URL"):
        _ = behind.direct_database

    both = settings_from(monkeypatch, {"DATABASE_DIRECT_URL": "postgres://u:p@direct/d"})
    assert both.direct_database is not None
    assert both.direct_database.host == "direct"


def test_the_url_takes_precedence_over_the_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"DATABASE_URL": "postgres://u:p@one/d", "DATABASE_HOSTNAME": "two"}

    url = settings_from(monkeypatch, environment).database

    assert url is not None
    assert url.host == "one"


def test_without_database_settings_no_url_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings_from(monkeypatch, {}).database is None
    assert settings_from(monkeypatch, {"DATABASE_URL": ""}).database is None


def test_origins_are_split_and_trimmed(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"CORS_ORIGINS": " https://a.example/ ,http://localhost:3000,"}

    assert settings_from(monkeypatch, environment).cors_origins == ["https://a.example", "http://localhost:3000"]


def test_origins_of_applications_and_extensions_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    origins = [
        "capacitor://localhost", "ionic://localhost", "tauri://localhost", "chrome-extension://abcdefghijklmnop",
        "moz-extension://0f3b9c5e-6a8e-4c3f-9a53-2f2a5b1a7c11", "safari-web-extension://0F3B9C5E", "http://[::1]:3000",
    ]  # fmt: skip

    assert settings_from(monkeypatch, {"CORS_ORIGINS": "/,".join(origins)}).cors_origins == origins


def test_proxies_are_split_and_trimmed(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"TRUSTED_PROXIES": " 10.0.0.0/8 ,192.0.2.1, 2001:db8::/32,"}

    assert settings_from(monkeypatch, environment).trusted_proxies == ["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"]


def passwords_emails_and_order(settings: Settings) -> tuple[int, bool | None, bool, str]:
    """The four settings whose defaults `TUTORIAL_DEFAULTS` changes."""
    return (
        settings.password_min_length,
        settings.password_blocklist_enabled,
        settings.public_emails,
        settings.default_sort,
    )


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (8, False, False, "new")),
        (PRODUCTION, (8, True, False, "new")),
        ({"TUTORIAL_DEFAULTS": "true"}, (1, False, True, "old")),
        (PRODUCTION | {"TUTORIAL_DEFAULTS": "true"}, (1, False, True, "old")),
    ],
    ids=["development", "production", "tutorial", "tutorial in production"],
)
def test_one_setting_changes_four_defaults_to_those_of_the_tutorial(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: tuple[object, ...]
) -> None:
    assert passwords_emails_and_order(settings_from(monkeypatch, environment)) == expected


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("PASSWORD_MIN_LENGTH", "8", (8, False, True, "old")),
        ("PASSWORD_BLOCKLIST_ENABLED", "true", (1, True, True, "old")),
        ("PUBLIC_EMAILS", "false", (1, False, False, "old")),
        ("DEFAULT_SORT", "new", (1, False, True, "new")),
    ],
)
def test_a_setting_that_is_set_itself_wins_over_the_defaults_of_the_tutorial(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: tuple[object, ...]
) -> None:
    settings = settings_from(monkeypatch, {"TUTORIAL_DEFAULTS": "true", name: value})

    assert passwords_emails_and_order(settings) == expected


@pytest.mark.parametrize(("environment", "value"), [({}, True), (PRODUCTION, False)])
def test_the_blocklist_of_passwords_can_be_chosen_in_development_and_production(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], *, value: bool
) -> None:
    settings = settings_from(monkeypatch, environment | {"PASSWORD_BLOCKLIST_ENABLED": str(value).lower()})

    assert settings.password_blocklist_enabled is value


def _bare_environment() -> dict[str, str]:
    settings = {name.upper() for name in Settings.model_fields}
    return {name: value for name, value in os.environ.items() if name.upper() not in settings}

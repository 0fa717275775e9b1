"""Settings: all environment variables, with type, unit and default.

No other module reads the environment. An invalid value stops the program with one line (`ConfigurationError`).
"""

import os
import re
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from difflib import get_close_matches
from functools import lru_cache
from importlib.util import find_spec
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import psycopg2
from dotenv import dotenv_values
from psycopg2.extensions import make_dsn
from pydantic import AliasChoices, Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

ENV_FILE = ".env"  # In the working directory.
ENV_FILE_VARIABLE = "ENV_FILE"  # Names another file.
LOCAL_FOLDER = Path(__file__).resolve().parent.parent / ".local"
MINIMUM_SECRET_BYTES = 32
MIN_DISTINCT_SECRET_CHARACTERS = 8
MINIMUM_PRODUCTION_HASH_ROUNDS = 10

_ADDRESS = r"[^\s<>@,;:\"]+@[^\s<>@,;:\"]+"
_MAILBOX = re.compile(rf"{_ADDRESS}|[^\r\n<>@,;:\"]+ <{_ADDRESS}>")
_PAGE = re.compile(r"https?://[^\s/?#@]+(?:/[^\s?#]*)?")
# Bucket and endpoint are put in URLs, and the rest in headers. obstore panics if one of them cannot be.
_S3_WORD = re.compile(r"[\w.@+=-]+", re.ASCII)
_S3_ENDPOINT = re.compile(r"https?://(?:[\w.-]+|\[[\da-fA-F:]+\])(?::[0-9]{1,5})?(?:/[\w./~-]*)?", re.ASCII)
# Origins of web pages, of web view applications (Capacitor, Ionic, Tauri), and of browser extensions.
_ORIGIN = re.compile(
    r"(?:https?|capacitor|ionic|tauri|chrome-extension|moz-extension|safari-web-extension)://[^\s*/?#@]+"
)
_LOOPBACK = re.compile(r"localhost|127\.\d+\.\d+\.\d+|::1")

Environment = Literal["development", "production"]
Sort = Literal["new", "old", "top", "hot"]


Role = Literal["user", "moderator", "admin"]

# By rights, the fewest first.
ROLES: tuple[Role, ...] = get_args(Role)
# Roles that may see drafts and delete posts of other users.
MODERATING: frozenset[Role] = frozenset({"moderator", "admin"})

# Defaults that `TUTORIAL_DEFAULTS` sets.
TUTORIAL_DEFAULTS: dict[str, object] = {
    "password_min_length": 1,
    "password_blocklist_enabled": False,
    "public_emails": True,
    "default_sort": "old",
}
# `NoDecode` works on the whole type only: inside `… | None`, environment variables would be read as JSON.
CommaSeparated = Annotated[list[str] | None, NoDecode]
Secrets = Annotated[list[SecretStr] | None, NoDecode]
SmtpTls = Literal["starttls", "tls", "none"]
LogFormat = Literal["text", "json"]
ResponseFields = Literal["all", "tutorial"]
Registration = Literal["open", "invite", "closed"]


# Names that settings had in earlier releases. They are still read where the new name is not set.
FORMER_NAMES = {"cleanup_interval_minutes": ("gc_interval_minutes",)}


class ConfigurationError(Exception):
    """The configuration is invalid. The message is one line with the remedy."""


class _DotEnvFile(PydanticBaseSettingsSource):
    """Source that reads `.env` literally.

    That of pydantic-settings expands `${…}`, even in a password.
    """

    def __init__(self, settings_cls: type[BaseSettings], path: object) -> None:
        super().__init__(settings_cls)
        self._path = path

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        return self._lines().get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        lines = self._lines()
        return {
            known: value
            for name in self.settings_cls.model_fields
            for known in (name, *FORMER_NAMES.get(name, ()))
            if (value := lines.get(known))
        }

    def _lines(self) -> Mapping[str, str | None]:
        path = self._path
        if not isinstance(path, str | Path):
            return {}
        lines = dotenv_values(path, interpolate=False, encoding="utf-8-sig")
        return {name.lower(): value for name, value in lines.items()}


class Settings(BaseSettings):
    """Settings from the environment and from `.env` in the working directory.

    `ENV_FILE` names another file. Names are case-insensitive.
    """

    model_config = SettingsConfigDict(env_file=ENV_FILE, extra="ignore", env_ignore_empty=True)

    environment: Environment = Field("development", description="`production` refuses weak or missing secrets.")
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="TCP port to listen on; 0 takes a free one.")
    workers: int | None = Field(
        None, ge=1, le=256, description="Server processes. Default: 1 in development, else 1 per core."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Minimum severity that is logged."
    )
    log_format: LogFormat | None = Field(
        None, description="`text` or `json`. Default: `text` in development, else `json`."
    )
    slow_request_ms: int = Field(
        1000, ge=1, description="Milliseconds after which a request is logged with its statements."
    )
    profiling_enabled: bool = Field(
        False, description="`true` profiles requests of admins with `X-Profile`. Development only; needs pyinstrument."
    )
    fastapi_otel_auto_configure: bool = Field(
        False, description="Send traces to the collector that the `OTEL_…` variables name (docs/observability.md)."
    )
    metrics_token: SecretStr | None = Field(None, description="Bearer token for `/metrics`; at least 32 bytes.")
    worker_metrics_host: str = Field(
        "127.0.0.1", description="Address on which `python -m app worker` serves `/metrics`."
    )
    worker_metrics_port: int | None = Field(
        None, ge=1, le=65535, description="TCP port of these metrics. If unset, the worker serves none."
    )

    database_url: SecretStr | None = Field(None, description="Database, as `postgres://…` or `postgresql://…`.")
    database_hostname: str | None = Field(None, description="Database server, if `DATABASE_URL` is not set.")
    database_port: int = Field(5432, ge=1, le=65535, description="Port of that server.")
    database_name: str = Field("fastapi", description="Database on that server.")
    database_username: str = Field("postgres", description="Role to connect as.")
    database_password: SecretStr | None = Field(None, description="Password of that role, unescaped.")
    database_pool_size: int = Field(8, ge=1, le=1000, description="Connections per worker for ordinary requests.")
    database_connect_timeout_seconds: int = Field(
        5, ge=1, le=60, description="Maximum seconds to wait for a new connection."
    )
    database_statement_timeout_seconds: int = Field(
        10, ge=1, le=3600, description="Maximum seconds that one statement may run."
    )
    database_behind_pooler: bool = Field(
        False, description="`true` behind PgBouncer or another pooler in transaction mode."
    )
    database_direct_url: SecretStr | None = Field(
        None, description="URL of the same database without the pooler, for migrations."
    )
    database_replica_url: SecretStr | None = Field(None, description="URL of a streaming replica that serves reads.")
    backup_folder: Path | None = Field(
        None, description="Folder of backups (`*.dump`), whose age `python -m app doctor` checks."
    )

    secret_key: SecretStr | None = Field(None, description="Key that signs access tokens; at least 32 bytes.")
    secret_key_previous: Secrets = Field(
        None, description="Comma-separated earlier keys whose tokens are still accepted."
    )
    algorithm: Literal["HS256"] = Field("HS256", description="Signature algorithm of access tokens.")
    access_token_expire_minutes: int = Field(
        30, ge=1, le=60 * 24 * 365, description="Minutes until an access token expires."
    )
    session_lifetime_days: int = Field(30, ge=1, le=3650, description="Maximum days that a session lasts.")
    session_idle_days: int = Field(14, ge=1, le=3650, description="Days after which an unused session expires.")
    password_min_length: int = Field(8, ge=1, le=128, description="Minimum length of new passwords, in code points.")
    password_blocklist_enabled: bool | None = Field(
        None, description="`true` refuses the most common passwords. Default: `true` in production, else `false`."
    )
    password_hash_rounds: int = Field(12, ge=4, le=20, description="bcrypt cost: a hash takes 2^rounds steps.")

    registration: Registration = Field(
        "open", description="Whether people can sign up: `open`, `invite` (only with an invite) or `closed`."
    )
    invite_role: Role = Field("moderator", description="Minimum role that can create invites.")
    invites_max: int = Field(
        10, ge=1, le=10_000, description="Maximum unused uses of all open invites of an account, else 409."
    )
    webhooks_max: int = Field(10, ge=0, le=1_000, description="Maximum webhooks of an account, else 409; 0: none.")
    webhook_allowed_networks: CommaSeparated = Field(
        None, description="Networks that are not public and may still receive webhooks, such as `10.1.0.0/16`."
    )
    signup_proof_of_work: bool = Field(
        False, description="`true` makes each sign-up cost the client about a second of a core."
    )

    mail_enabled: bool = Field(True, description="`false` sends no mail; mails wait in the database.")
    mail_from: str = Field(
        "no-reply@localhost", description="Sender, as `name@example.com` or `Name <name@example.com>`."
    )
    public_url: str | None = Field(None, description="URL of the site, to which links in mails lead.")
    root_path: str | None = Field(None, description="Path under which a proxy serves the API, such as `/api`.")
    smtp_host: str | None = Field(
        None, description="Mail server. If unset, development writes mails to `.local/mail/`."
    )
    smtp_port: int = Field(587, ge=1, le=65535, description="Port of the mail server; 465 is usual for `SMTP_TLS=tls`.")
    smtp_tls: SmtpTls = Field("starttls", description="`starttls`, `tls` from the first byte, or `none`.")
    smtp_username: str | None = Field(None, description="User name for the mail server, if it requires one.")
    smtp_password: SecretStr | None = Field(None, description="Password for the mail server.")

    security_events_kept_days: int = Field(
        90, ge=1, le=3650, description="Days for which security events of accounts are kept."
    )
    notifications_kept_days: int = Field(90, ge=1, le=3650, description="Days for which notifications are kept.")
    moderation_kept_days: int = Field(
        365, ge=1, le=3650, description="Days for which resolved reports and the log of moderation are kept."
    )
    events_kept_days: int = Field(7, ge=1, le=3650, description="Days for which the event log is kept.")

    tutorial_defaults: bool = Field(
        False,
        description="`true` changes four defaults to those of the tutorial: `PASSWORD_MIN_LENGTH=1`, "
        "`PASSWORD_BLOCKLIST_ENABLED=false`, `PUBLIC_EMAILS=true`, `DEFAULT_SORT=old`. "
        "It also accepts tokens with only `user_id` and `exp`, numbers as text, `limit=0`, a large `skip`, "
        "`dir: -1`, and searches for any part of titles.",
    )
    response_fields: ResponseFields = Field(
        "all", description="`tutorial` omits all fields that the tutorial's responses do not have, for strict clients."
    )
    default_sort: Sort = Field(
        "new", description="Default order of `GET /posts`; `old` for clients that rely on ascending ids."
    )
    public_emails: bool = Field(
        False, description="`true` shows real e-mail addresses in all profiles and owners, not placeholders."
    )
    public_reads: bool = Field(False, description="`true` lets clients read published posts without an account.")
    web_client_enabled: bool = Field(
        True, description="`true` serves the web client under `/web/` and leads browsers there from `/`."
    )
    realworld_enabled: bool = Field(
        False,
        description="`true` also serves the RealWorld API under `/api`. It shows who voted for what. "
        "Its frontends need `PUBLIC_READS=true`.",
    )
    cors_origins: CommaSeparated = Field(
        None, description="Comma-separated origins. Default: any localhost in development."
    )
    trusted_proxies: CommaSeparated = Field(
        None, description="Comma-separated addresses and networks of reverse proxies."
    )
    rate_limits_enabled: bool = Field(True, description="`false` disables all rate limits, for load tests.")
    rate_limit_per_minute: int = Field(
        600,
        ge=1,
        le=10_000_000,
        description="Maximum requests per minute per caller and worker. Files of the web client do not count.",
    )
    max_body_bytes: int = Field(1_000_000, ge=1024, le=1 << 30, description="Maximum bytes of a request body.")
    max_batch: int = Field(256, ge=1, le=10_000, description="Maximum requests in one batch.")
    max_in_flight: int = Field(2000, ge=1, le=1_000_000, description="Maximum concurrent requests per worker.")
    max_waiting: int = Field(
        1000, ge=1, le=1_000_000, description="Maximum waiting requests per worker and batch queue."
    )
    max_api_keys: int = Field(100, ge=1, le=1_000_000, description="Maximum API keys per account, else 409.")
    max_sessions: int = Field(
        100, ge=1, le=1_000_000, description="Maximum sessions per account; one more ends the least recently used."
    )
    max_drafts: int = Field(1000, ge=1, le=1_000_000, description="Maximum drafts per account, else 409.")
    follows_max: int = Field(5000, ge=1, le=100_000, description="Maximum users whom an account follows, else 409.")
    bookmarks_max: int = Field(10_000, ge=1, le=1_000_000, description="Maximum bookmarks per account, else 409.")
    blocks_max: int = Field(1000, ge=1, le=100_000, description="Maximum users whom an account blocks, else 409.")
    media_root: Path | None = Field(None, description="Folder of uploaded pictures. Default: `.local/media`.")
    media_s3_bucket: str | None = Field(
        None, description="Bucket of uploaded pictures, in place of the folder (docs/operations.md)."
    )
    media_s3_endpoint: str | None = Field(
        None, description="URL of the storage that has the bucket, if it is not Amazon S3."
    )
    media_s3_region: str = Field("us-east-1", description="Region of the bucket.")
    media_s3_access_key_id: str | None = Field(
        None, description="Access key. If unset, the role of the instance or container is used."
    )
    media_s3_secret_access_key: SecretStr | None = Field(None, description="Secret of the access key.")
    media_max_bytes: int = Field(10_000_000, ge=1024, le=1 << 30, description="Maximum bytes of an uploaded picture.")
    media_max_megapixels: int = Field(40, ge=1, le=200, description="Maximum size of a picture, in megapixels.")
    media_max_pictures: int = Field(1000, ge=1, le=1_000_000, description="Maximum pictures per account, else 409.")
    media_quota_bytes: int = Field(
        500_000_000, ge=1024, le=1 << 50, description="Maximum bytes of the stored pictures of an account, else 409."
    )
    live_streams_per_user: int = Field(
        5, ge=1, le=1000, description="Maximum live streams per account and worker, else 429."
    )
    live_streams_max: int = Field(1000, ge=1, le=100_000, description="Maximum live streams per worker, else 503.")
    cleanup_interval_minutes: int = Field(
        60,
        ge=0,
        le=1440,
        validation_alias=AliasChoices("cleanup_interval_minutes", *FORMER_NAMES["cleanup_interval_minutes"]),
        description="Minutes between cleanup runs; 0 disables them.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The path comes from `model_config` or from `Settings(_env_file=…)`.
        path = getattr(dotenv_settings, "env_file", None)
        return init_settings, env_settings, _DotEnvFile(settings_cls, _env_file() if path == ENV_FILE else path)

    @field_validator("*", mode="before")
    @classmethod
    def _has_no_line_break_at_its_end(cls, value: object) -> object:
        if isinstance(value, str) and value.endswith(("\n", "\r")):
            raise ValueError("ends with a line break, possibly of the file that it was read from; remove it")
        return value

    @field_validator(
        "environment",
        "log_level",
        "log_format",
        "smtp_tls",
        "algorithm",
        "default_sort",
        "response_fields",
        "registration",
        "invite_role",
        mode="before",
    )
    @classmethod
    def _choices_in_any_case(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, str):
            return value
        return value.upper() if info.field_name == "algorithm" else value.lower()

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: object) -> object:
        return (
            [origin.strip().rstrip("/") for origin in value.split(",") if origin.strip()]
            if isinstance(value, str)
            else value
        )

    @field_validator("secret_key_previous", mode="before")
    @classmethod
    def _split_secrets(cls, value: object) -> object:
        return [secret for part in value.split(",") if (secret := part.strip())] if isinstance(value, str) else value

    @field_validator("cors_origins")
    @classmethod
    def _origins_are_origins(cls, origins: list[str] | None) -> list[str] | None:
        for origin in origins or []:
            if origin == "null":
                # Any site can send it from a sandboxed frame.
                raise ValueError("'null' is not allowed: every sandboxed page and local file sends it")
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is not an origin such as https://example.com; `*` is never allowed")
        return origins

    @field_validator("trusted_proxies", "webhook_allowed_networks", mode="before")
    @classmethod
    def _split_networks(cls, value: object) -> object:
        return [network.strip() for network in value.split(",") if network.strip()] if isinstance(value, str) else value

    @field_validator("webhook_allowed_networks")
    @classmethod
    def _allowed_are_networks(cls, networks: list[str] | None) -> list[str] | None:
        for network in networks or []:
            try:
                ip_network(network)
            except ValueError:
                raise ValueError(f"{network!r} is not an address or network such as 10.1.0.0/16") from None
        return networks

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies_are_networks(cls, proxies: list[str] | None) -> list[str] | None:
        for proxy in proxies or []:
            try:
                is_any_address = ip_network(proxy).prefixlen == 0
            except ValueError:
                raise ValueError(f"{proxy!r} is not an address or network such as 10.0.0.0/8") from None
            if is_any_address:
                raise ValueError(f"{proxy!r} would let every client choose the address used for its rate limit")
        return proxies

    @field_validator("mail_from")
    @classmethod
    def _mail_from_is_an_address(cls, sender: str) -> str:
        if not _MAILBOX.fullmatch(sender):
            raise ValueError("must look like name@example.com or Name <name@example.com>")
        return sender

    @field_validator("public_url")
    @classmethod
    def _public_url_is_an_address(cls, url: str | None) -> str | None:
        if url is not None and not _PAGE.fullmatch(url):
            raise ValueError("must look like https://example.com or https://example.com/path")
        return url and url.rstrip("/")

    @field_validator("root_path")
    @classmethod
    def _root_path_is_a_path(cls, path: str | None) -> str | None:
        if path is not None and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*/?", path):
            raise ValueError("must look like /api")
        return path and path.rstrip("/")

    @model_validator(mode="after")
    def _fill_in_defaults(self) -> "Settings":
        """Set the defaults that depend on other settings. Explicit values stay."""
        defaults: dict[str, object] = {"password_blocklist_enabled": self.environment == "production"}
        if self.tutorial_defaults:
            defaults |= TUTORIAL_DEFAULTS
        for name, value in defaults.items():
            if name not in self.model_fields_set:
                setattr(self, name, value)
        return self

    @model_validator(mode="after")
    def _mail_can_be_sent(self) -> "Settings":
        if (self.smtp_username is None) != (self.smtp_password is None):
            raise ValueError("SMTP_USERNAME and SMTP_PASSWORD go together; set both or neither")
        if self.environment != "production" or self.smtp_host is None:
            return self
        if self.smtp_tls == "none" and not _LOOPBACK.fullmatch(self.smtp_host):
            raise ValueError("SMTP_TLS=none sends secrets in the clear; production allows it only for a local server")
        if self.public_url is None or not self.public_url.startswith("https://"):
            raise ValueError("PUBLIC_URL must be an https:// address in production if SMTP_HOST is set")
        if "mail_from" not in self.model_fields_set:
            raise ValueError("MAIL_FROM is not set; mails need a sender")
        return self

    @field_validator("media_s3_endpoint")
    @classmethod
    def _endpoint_is_an_address(cls, url: str | None) -> str | None:
        if url is not None and not _S3_ENDPOINT.fullmatch(url):
            raise ValueError("must look like https://s3.example.com")
        return None if url is None else url.rstrip("/")

    @field_validator("media_s3_bucket", "media_s3_region", "media_s3_access_key_id")
    @classmethod
    def _is_a_word(cls, value: str | None) -> str | None:
        if value is not None and not _S3_WORD.fullmatch(value):
            raise ValueError("may have letters, digits, and . _ - @ + = only")
        return value

    @model_validator(mode="after")
    def _bucket_can_be_used(self) -> "Settings":
        if (self.media_s3_access_key_id is None) != (self.media_s3_secret_access_key is None):
            raise ValueError("MEDIA_S3_ACCESS_KEY_ID and MEDIA_S3_SECRET_ACCESS_KEY go together; set both or neither")
        if self.media_s3_bucket is not None and find_spec("obstore") is None:
            remedy = "pip install --require-hashes --requirement requirements-s3.lock"
            raise ValueError(f"MEDIA_S3_BUCKET needs the package obstore, which is not installed; run: {remedy}")
        return self

    @model_validator(mode="after")
    def _can_be_used(self) -> "Settings":
        if self.secret_key is not None and _is_weak(self.secret_key):
            raise ValueError(f"SECRET_KEY is shorter than {MINIMUM_SECRET_BYTES} bytes; {_MAKE_A_SECRET}")
        if any(_is_weak(secret) for secret in self.secret_key_previous or []):
            raise ValueError(f"SECRET_KEY_PREVIOUS has a key shorter than {MINIMUM_SECRET_BYTES} bytes; leave it out")
        if self.metrics_token is not None and _is_weak(self.metrics_token):
            raise ValueError(f"METRICS_TOKEN is shorter than {MINIMUM_SECRET_BYTES} bytes; {_MAKE_A_SECRET}")
        if self.environment == "production":
            if self.secret_key is None:
                raise ValueError(f"SECRET_KEY is not set; {_MAKE_A_SECRET}")
            if len(set(self.secret_key.get_secret_value())) < MIN_DISTINCT_SECRET_CHARACTERS:
                raise ValueError(f"SECRET_KEY repeats a few characters, which can be guessed; {_MAKE_A_SECRET}")
            if self.secret_key.get_secret_value() == _FASTAPI_DOCUMENTATION_SECRET:
                raise ValueError(f"SECRET_KEY is the one in FastAPI's documentation; {_MAKE_A_SECRET}")
            if self.password_hash_rounds < MINIMUM_PRODUCTION_HASH_ROUNDS:
                raise ValueError(f"PASSWORD_HASH_ROUNDS is below {MINIMUM_PRODUCTION_HASH_ROUNDS} in production")
            if self.database is None:
                raise ValueError("no database is configured; set DATABASE_URL")
        for name in ("database_url", "database_direct_url", "database_replica_url"):
            if (url := getattr(self, name)) is not None:
                _parse_database_url(url, name.upper())
        if self.database is None and (self.database_direct_url or self.database_replica_url):
            raise ValueError("no database is configured; set DATABASE_URL beside the direct and the replica URL")
        return self

    @model_validator(mode="after")
    def _can_profile(self) -> "Settings":
        if self.profiling_enabled and self.environment == "production":
            raise ValueError("PROFILING_ENABLED is for development; in production, profiled requests delay all others")
        if self.profiling_enabled and find_spec("pyinstrument") is None:
            raise ValueError("PROFILING_ENABLED needs pyinstrument; install it: pip install pyinstrument")
        return self

    @property
    def database(self) -> URL | None:
        """The URL of the configured database, or None to use the embedded server.

        `postgres://` (Heroku) and `postgresql://` (which SQLAlchemy 2.1 reads as psycopg 3) both mean psycopg2.
        """
        if self.database_url is not None:
            return _parse_database_url(self.database_url)
        if self.database_hostname is None:
            return None
        password = self.database_password.get_secret_value() if self.database_password else None
        return URL.create(
            "postgresql+psycopg2",
            username=self.database_username,
            password=password,
            host=self.database_hostname,
            port=self.database_port,
            database=self.database_name,
        )

    @property
    def direct_database(self) -> URL | None:
        """The database without a pooler, for code that needs session state.

        Raises `ConfigurationError`.
        """
        if self.database_direct_url is not None:
            return _parse_database_url(self.database_direct_url)
        if self.database_behind_pooler:
            raise ConfigurationError("this does not work through a pooler; set DATABASE_DIRECT_URL")
        return self.database

    @property
    def replica_database(self) -> URL | None:
        """The streaming replica, if there is one."""
        return None if self.database_replica_url is None else _parse_database_url(self.database_replica_url)

    @property
    def media_folder(self) -> Path:
        """The folder of pictures."""
        return self.media_root or LOCAL_FOLDER / "media"

    @property
    def media_s3_credentials(self) -> tuple[str, str] | None:
        """The access key and its secret, or None to use those of the environment, the container or the instance."""
        if self.media_s3_access_key_id is None or self.media_s3_secret_access_key is None:
            return None
        return self.media_s3_access_key_id, self.media_s3_secret_access_key.get_secret_value()

    @property
    def site(self) -> str:
        """The base URL of links in mails: `PUBLIC_URL`, or this machine in development."""
        return self.public_url or f"http://localhost:{self.port}"

    @property
    def signing_secret(self) -> str:
        """`SECRET_KEY`, or in development a generated key stored in `.local/secret_key`.

        Raises `ConfigurationError` if that file cannot be written or read.
        """
        return self.secret_key.get_secret_value() if self.secret_key else _development_secret()

    @property
    def accepted_secrets(self) -> list[str]:
        """The keys whose signatures are accepted: `signing_secret`, then previous ones."""
        return [self.signing_secret, *(secret.get_secret_value() for secret in self.secret_key_previous or [])]

    @property
    def worker_count(self) -> int:
        """Number of server processes.

        `WORKERS`, else 1 in development and 1 per core in production.
        """
        return self.workers or (1 if self.environment == "development" else os.cpu_count() or 1)

    @property
    def hashing_thread_count(self) -> int:
        """Number of hashing threads per process. All processes together have one per core."""
        return max(1, (os.cpu_count() or 1) // self.worker_count)

    @property
    def inviting_roles(self) -> Sequence[Role]:
        """The roles that can create invites: `INVITE_ROLE` and those with more rights."""
        return ROLES[ROLES.index(self.invite_role) :]

    @property
    def webhook_networks(self) -> Sequence[IPv4Network | IPv6Network]:
        """The networks of `WEBHOOK_ALLOWED_NETWORKS`."""
        return [ip_network(network) for network in self.webhook_allowed_networks or ()]

    @property
    def line_format(self) -> LogFormat:
        """Format of log lines: `text` for people, or `json` for log collectors.

        `LOG_FORMAT`, else text in development and JSON in production.
        """
        return self.log_format or ("text" if self.environment == "development" else "json")

    @property
    def access_token_lifetime(self) -> timedelta:
        return timedelta(minutes=self.access_token_expire_minutes)

    @property
    def session_lifetime(self) -> timedelta:
        return timedelta(days=self.session_lifetime_days)

    @property
    def session_idle_limit(self) -> timedelta:
        return timedelta(days=self.session_idle_days)

    @property
    def security_events_kept(self) -> timedelta:
        return timedelta(days=self.security_events_kept_days)

    @property
    def notifications_kept(self) -> timedelta:
        return timedelta(days=self.notifications_kept_days)

    @property
    def moderation_kept(self) -> timedelta:
        return timedelta(days=self.moderation_kept_days)

    @property
    def events_kept(self) -> timedelta:
        return timedelta(days=self.events_kept_days)


def _env_file() -> str:
    path = os.environ.get(ENV_FILE_VARIABLE)
    if path and not Path(path).exists():
        raise ConfigurationError(
            f"{ENV_FILE_VARIABLE} names {path}, which does not exist; correct it or remove the variable"
        )
    return path or ENV_FILE


# Prefixes of variables that other software reads from the same file.
_OF_OTHERS = ("COMPOSE_", "DOCKER_", "OTEL_", "PG", "POSTGRES_", "TEST_", "UVICORN_")
# As ratios of difflib. In the environment, most names are those of other software.
_SIMILAR_IN_FILE, _SIMILAR_IN_ENVIRONMENT = 0.75, 0.9


def misspelt_settings() -> list[str]:
    """Return a sentence for each name that looks like a misspelt setting.

    The names are those in `.env` and the environment.
    """
    former = [name for names in FORMER_NAMES.values() for name in names]
    known = [name.upper() for name in (*Settings.model_fields, *former, ENV_FILE_VARIABLE)]
    try:
        written = {name.upper() for name in dotenv_values(_env_file(), interpolate=False, encoding="utf-8-sig")}
    except (ConfigurationError, OSError, UnicodeDecodeError):  # `get_settings` reports it.
        written = set()
    found = []
    for name in sorted(written | {name.upper() for name in os.environ}):
        if name in known or name.startswith(_OF_OTHERS) or "_" not in name:
            continue
        cutoff = _SIMILAR_IN_FILE if name in written else _SIMILAR_IN_ENVIRONMENT
        if similar := get_close_matches(name, known, 1, cutoff):
            found.append(f"{name} is not a setting and has no effect: did you mean {similar[0]}?")
    return found


def explain(error: Exception) -> str:
    """Return the message in one line, with misspelt names as its possible cause."""
    return " ".join([f"error: {error}", *(f"({sentence})" for sentence in misspelt_settings())])


def _is_weak(secret: SecretStr) -> bool:
    return len(secret.get_secret_value().encode()) < MINIMUM_SECRET_BYTES


# The tutorial uses this key, and so do many of its clones.
_FASTAPI_DOCUMENTATION_SECRET = "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7"  # noqa: S105
_MAKE_A_SECRET = "make one with: python -c 'import secrets; print(secrets.token_urlsafe(48))'"  # noqa: S105


@lru_cache
def get_settings() -> Settings:
    """Return the settings, read once per process.

    Raises `ConfigurationError` for the first invalid value.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise ConfigurationError(_first_problem(error.errors(include_input=False)[0])) from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f".env is not UTF-8: byte {error.start + 1} cannot be read") from None


def _first_problem(problem: Mapping[str, Any]) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    name = ".".join(str(part) for part in problem["loc"]).upper()
    return f"{name}: {message}" if name else message


def _parse_database_url(setting: SecretStr, name: str = "DATABASE_URL") -> URL:
    """Parse a libpq URL.

    SQLAlchemy takes several hosts as parameters, not in the authority as libpq does.
    """
    scheme, _, rest = setting.get_secret_value().partition("://")
    authority, slash, path = rest.partition("/")
    account, at, hosts = authority.rpartition("@")
    try:
        if scheme not in {"postgres", "postgresql", "postgresql+psycopg2"} or not rest:
            raise ValueError  # noqa: TRY301 - every error gets the same message.
        if "," in hosts:
            url = make_url(f"postgresql+psycopg2://{account}{at}{slash}{path}")
            url = url.update_query_pairs([("host", host) for host in hosts.split(",")])
        else:
            url = make_url(f"postgresql+psycopg2://{rest}")
        _, arguments = url.get_dialect()().create_connect_args(url)
    except (ArgumentError, ValueError):
        raise ValueError(f"{name} must look like postgresql://user:password@host:5432/name") from None
    _require_known_parameters(url, arguments, name)
    return url


# Parameters in URLs of other programs, and what to use here.
_PARAMETERS_ELSEWHERE = {
    "pgbouncer": "set DATABASE_BEHIND_POOLER=true in its place",
    "schema": "write ?options=-csearch_path%3D<schema> in its place",
    "connection_limit": "set DATABASE_POOL_SIZE in its place",
    "pool_timeout": "set DATABASE_CONNECT_TIMEOUT_SECONDS in its place",
    "statement_timeout": "set DATABASE_STATEMENT_TIMEOUT_SECONDS in its place",
    "ssl": "write ?sslmode=require in its place",
}


def _require_known_parameters(url: URL, arguments: Mapping[str, Any], name: str) -> None:
    """Raise `ValueError` for a parameter unknown to libpq.

    It would fail at each connection.
    """
    for parameter in url.query:
        try:
            make_dsn(**{parameter: arguments[parameter]})
        except psycopg2.ProgrammingError:
            remedy = _PARAMETERS_ELSEWHERE.get(parameter.lower(), "remove it")
            raise ValueError(f"{name} has a parameter {parameter!r} that PostgreSQL does not know; {remedy}") from None


def _development_secret() -> str:
    path = LOCAL_FOLDER / "secret_key"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            suppress(FileExistsError),
            os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file,
        ):
            file.write(secrets.token_urlsafe(48))
        return path.read_text().strip()
    except OSError as error:
        raise ConfigurationError(
            f"the key in {path} cannot be kept ({error.strerror}); give this account access to {path.parent}, or set"
            " SECRET_KEY"
        ) from None

"""Check of `python -m app doctor` that every picture has its files, and every file its picture."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, groupby, islice

from sqlalchemy import Connection, text

from app.cli.finding import Finding
from app.media.storage import SUFFIXES, StorageError, files_of, get_storage

BATCH_PICTURES = 1000
# Of each kind: enough to show the extent. If the whole storage is lost, the check does not ask for each file.
MAX_FOUND = 100
MAX_NAMED = 20
NAME_LENGTH = 32

_ROWS = text("SELECT name FROM media WHERE name > :after ORDER BY name LIMIT :limit")
_EXISTING = text("SELECT name FROM media WHERE name = ANY (:names) ORDER BY name")
_UNKNOWN = text("""
    SELECT name FROM unnest(CAST(:names AS text[])) AS stored (name)
    WHERE NOT EXISTS (SELECT FROM media WHERE media.name = stored.name)
        AND NOT EXISTS (SELECT FROM media_removals WHERE media_removals.name = stored.name)
    ORDER BY name
""")


@dataclass
class _Differences:
    """Names of pictures without a file, and of files without a picture or a pending removal."""

    missing: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)


def examine_pictures(connection: Connection, *, is_full: bool) -> Iterator[Finding]:
    """Compare the files with the rows: all if `is_full`, else `BATCH_PICTURES` of them from a random place on."""
    found = _Differences()
    try:
        if is_full:
            after: str | None = ""
            while after is not None and len(found.missing) < MAX_FOUND:
                after = _compare(connection, after, found)
        elif _compare(connection, secrets.token_hex(NAME_LENGTH // 2), found) is None:
            _compare(connection, "", found)  # The end was reached: as many again, from the beginning.
    except StorageError as error:
        yield Finding("FAIL", f"pictures: {error}", "correct MEDIA_ROOT, or the MEDIA_S3_… settings")
        return
    if missing := sorted({*found.missing}):
        remedy = "restore the files from their backup, or DELETE FROM media WHERE name = '…'"
        yield Finding("FAIL", f"pictures: {_named(missing)} have no file", remedy)
    if orphans := sorted({*found.orphans}):
        remedy = "if they belong to no other database, INSERT INTO media_removals (name) VALUES ('…') deletes them"
        yield Finding("warn", f"pictures: files of {_named(orphans)} have no row", remedy)
    if not missing and not orphans:
        yield Finding("ok", f"pictures: {'all' if is_full else 'a sample of'} files match the rows")


def _compare(connection: Connection, after: str, found: _Differences) -> str | None:
    """Compare a batch of pictures, in the order of names. Return the last name, or None at the end.

    Uploads and removals go on meanwhile, so that each difference is looked at again.
    """
    # The files first: those of an upload that ends now have a row by then.
    listed = groupby(get_storage().names(after and after + SUFFIXES[0]), lambda name: name[:NAME_LENGTH])
    stored = {name: {*files} for name, files in islice(listed, BATCH_PICTURES)}
    rows = connection.scalars(_ROWS, {"after": after, "limit": BATCH_PICTURES}).all()
    end = min((max(names) for names in (stored, rows) if len(names) == BATCH_PICTURES), default=None)
    suspects = (name for name in rows if stored.get(name) != {*files_of(name)})
    without_file = (name for name in suspects if (end is None or name <= end) and _lacks_file(name))
    missing = [*islice(without_file, MAX_FOUND - len(found.missing))]
    found.missing += connection.scalars(_EXISTING, {"names": missing}).all()
    with_row = {*rows}
    suspected = [name for name in stored if name not in with_row and (end is None or name <= end)]
    unknown = connection.scalars(_UNKNOWN, {"names": suspected}).all()
    found.orphans += islice((name for name in unknown if _has_file(name)), MAX_FOUND - len(found.orphans))
    return end


def _lacks_file(name: str) -> bool:
    return any(get_storage().size(file_name) is None for file_name in files_of(name))


def _has_file(name: str) -> bool:
    return any(get_storage().size(file_name) is not None for file_name in files_of(name))


def _named(names: list[str]) -> str:
    listed = ", ".join(chain(names[:MAX_NAMED], ["…"] if names[MAX_NAMED:] else []))
    return f"{len(names)}{' or more' if len(names) >= MAX_FOUND else ''} pictures ({listed})"

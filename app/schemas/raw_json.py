"""JSON written by hand, for responses with many items: Pydantic takes several times as long."""

from datetime import UTC, datetime
from json import JSONEncoder

# Text as a JSON string.
quoted = JSONEncoder(ensure_ascii=False).encode

_FIRST_TIME, _LAST_TIME = "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"
_ZEROS = " " * len("2026-11-28 12:34:56.+00") + "0" * 6


def json_time(stored: str) -> str:
    """Return PostgreSQL's text of a `timestamptz` as Pydantic writes the time.

    That is ISO 8601, in UTC. Times that Python cannot represent become the nearest that it can.
    """
    if stored[4] == "-" and stored.endswith("+00"):
        if len(stored) == len("2026-11-28 12:34:56+00"):
            return stored[:10] + "T" + stored[11:19] + "Z"
        # PostgreSQL leaves out the zeros at the end of microseconds.
        return stored[:10] + "T" + stored[11:-3] + _ZEROS[len(stored) :] + "Z"
    try:
        time = datetime.fromisoformat(stored).astimezone(UTC)
    except (ValueError, OverflowError):
        return _FIRST_TIME if stored.startswith("-") or stored.endswith("BC") else _LAST_TIME
    return time.isoformat().removesuffix("+00:00") + "Z"

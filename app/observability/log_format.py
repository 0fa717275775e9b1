"""How log lines look: JSON for machines, text for people; one line each, with the id of the request they belong to."""

import logging
from typing import Any

from opentelemetry import trace
from pythonjsonlogger.json import JsonEncoder, JsonFormatter

from app.config import Settings
from app.observability import request_context

# Everything that ends a line or steers a terminal, and what stands for it: nobody's words begin a line of their own.
_ESCAPES = {code: repr(chr(code))[1:-1] for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)}
_ESCAPES_BUT_LINE_BREAKS = {code: text for code, text in _ESCAPES.items() if code != ord("\n")}


class Request(logging.Filter):
    """Adds to each record the id of the request that its code works for, and, where it is traced, of the trace.

    On the handler, not on a logger: so lines of libraries have it too.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_context.request_id.get()
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            record.trace_id = f"{span.trace_id:032x}"
        return True


class Text(logging.Formatter):
    """`INFO app.access GET '/posts' 200 1.2ms 0123abcd`: the request id ends the line; tracebacks are indented."""

    def __init__(self) -> None:
        super().__init__("%(levelname)s %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name.
        request_id = getattr(record, "request_id", None)
        line = super().formatMessage(record).translate(_ESCAPES)
        return f"{line} {request_id}" if request_id else line

    def format(self, record: logging.LogRecord) -> str:
        # What follows the first line is a traceback; an exception's words may hold line breaks of a client's.
        return super().format(record).translate(_ESCAPES_BUT_LINE_BREAKS).replace("\n", "\n    ")


class Json(JsonFormatter):
    """One object a line: `time`, `level`, `logger`, `message`, `request_id`, and whatever the line says beside it."""

    # Made once: the base class makes one for each line, which takes longer than all the rest.
    _encode = staticmethod(JsonEncoder(separators=(",", ":")).encode)

    def __init__(self) -> None:
        super().__init__(
            ["levelname", "name", "message"],
            rename_fields={"levelname": "level", "name": "logger", "exc_info": "traceback"},
            timestamp="time",
        )

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        return self._encode({name: value for name, value in log_data.items() if value is not None})


def config(settings: Settings) -> dict[str, Any]:
    """For `logging.config.dictConfig`: everything in lines on stderr, in every worker."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"request": {"()": Request}},
        "formatters": {"text": {"()": Text}, "json": {"()": Json}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stderr",
                "formatter": settings.line_format,
                "filters": ["request"],
            }
        },
        "root": {"level": settings.log_level.upper(), "handlers": ["stderr"]},
        "loggers": {
            # It names each of its plugins.
            "alembic": {"level": "WARNING"},
            # What happened to accounts is not a matter of verbosity.
            "app.audit": {"level": "INFO"},
        },
    }

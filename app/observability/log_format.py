"""Log formats: JSON for machines, text for people.

One line per record, with the request id.
"""

import logging
from typing import Any

from opentelemetry import trace
from pythonjsonlogger.json import JsonEncoder, JsonFormatter

from app.config import Settings
from app.observability import request_context

# Escapes of line breaks and terminal control characters, so that quoted input cannot begin a log line of its own.
_ESCAPES = {code: repr(chr(code))[1:-1] for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)}
_ESCAPES_BUT_LINE_BREAKS = {code: text for code, text in _ESCAPES.items() if code != ord("\n")}


class Request(logging.Filter):
    """Add the request id and, if the request is traced, the trace id to each record.

    It is a filter of the handler, not of a logger, so that records of libraries have the ids too.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_context.request_id.get()
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            record.trace_id = f"{span.trace_id:032x}"
        return True


class Text(logging.Formatter):
    """Text lines such as `INFO app.access GET '/posts' 200 1.2ms 0123abcd`.

    The line ends with the request id. Tracebacks are indented.
    """

    def __init__(self) -> None:
        super().__init__("%(levelname)s %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name.
        request_id = getattr(record, "request_id", None)
        line = super().formatMessage(record).translate(_ESCAPES)
        return f"{line} {request_id}" if request_id else line

    def format(self, record: logging.LogRecord) -> str:
        # The lines after the first are a traceback. An exception's message may contain line breaks of a client.
        return super().format(record).translate(_ESCAPES_BUT_LINE_BREAKS).replace("\n", "\n    ")


class Json(JsonFormatter):
    """One JSON object per line.

    It has `time`, `level`, `logger`, `message`, `request_id` and the record's extra fields.
    """

    # Created once. The base class creates one per line, which takes longer than the rest of the formatting.
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
    """The configuration for `logging.config.dictConfig`.

    Every worker logs to stderr.
    """
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
            # It logs each of its plugins at INFO.
            "alembic": {"level": "WARNING"},
            # The audit log does not depend on LOG_LEVEL.
            "app.audit": {"level": "INFO"},
        },
    }

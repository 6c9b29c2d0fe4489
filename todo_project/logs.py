"""The log, on standard error: one JSON object a line, or plain text with DEBUG."""

import json
import logging
import os
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any


class _Current(threading.local):
    request_id = "-"


current = _Current()


class PlainFormatter(logging.Formatter):
    """Adds `request_id`, `-` outside a request, and the zone to a time (RFC 3339)."""

    def __init__(self) -> None:
        super().__init__("{asctime} {levelname} {name} {request_id} {message}", style="{")

    def format(self, record: logging.LogRecord) -> str:
        record.request_id = current.request_id
        return super().format(record)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """Of each exception's message the first line: PostgreSQL quotes a row in the next."""
        text = super().formatException(ei)
        error = ei[1]
        while error is not None:
            message = str(error)
            text = text.replace(message, message.partition("\n")[0])
            error = error.__cause__ or error.__context__
        return text


class JSONFormatter(PlainFormatter):
    """Without a record's extra attributes: Django's hold the request, query string and all."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": current.request_id,
        }
        if count := getattr(record, "count", None):
            line["count"] = count
        if record.exc_info:
            line["exc_info"] = self.formatException(record.exc_info)
        return json.dumps(line)


class GunicornFilter(logging.Filter):
    """gunicorn quotes what it refuses, a token as well; here it names the kind of error.

    An OSError is a client that went away or stalled: no stack trace.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        kind, error, _ = record.exc_info or sys.exc_info()
        if kind and str(record.msg).startswith(("Invalid request", "Error handling", "Socket er")):
            record.msg, record.args = "Request not served: %s", (kind.__name__,)
            if isinstance(error, OSError):
                record.exc_info = None
        return True


class OncePerSecondFilter(logging.Filter):
    """Lets a message through once a second.

    The first passes at once. At the end of the second the last passes as well, with the number
    of those since the first as `count`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._held: dict[str, tuple[int, logging.LogRecord | None]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if hasattr(record, "count"):
            return True
        with self._lock:
            if record.msg in self._held:
                self._held[record.msg] = (self._held[record.msg][0] + 1, record)
                return False
            self._hold(record.msg)
        return True

    def _hold(self, message: str) -> None:
        self._held[message] = (0, None)
        timer = threading.Timer(1, self._sum_up, [message])
        timer.name, timer.daemon = "log-summary", True
        timer.start()

    def _sum_up(self, message: str) -> None:
        with self._lock:
            count, record = self._held.pop(message)
            if record is None:
                return
            self._hold(message)
        record.count = count
        logging.getLogger(record.name).handle(record)


def plain_line(fields: dict[str, Any]) -> bytes:
    return " ".join(f"{k}={v}" for k, v in fields.items() if v is not None).encode()


def write(line: bytes) -> None:
    """Write a request's line in one system call, without `logging`: that would take several
    times as long."""
    with suppress(OSError):  # no reader of the log: serve the request anyway
        os.write(2, line + b"\n")

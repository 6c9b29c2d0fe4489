"""What an error of the database means, by SQLSTATE or SQLite's error code."""

import sqlite3
from enum import StrEnum

from django.db import InterfaceError, OperationalError
from psycopg.errors import ConnectionTimeout


class Reason(StrEnum):
    """Why the database did not do what it was asked; the values are for the client to read."""

    AWAY = "The database cannot be reached"
    BUSY = "The database is too busy"
    CONFLICT = "The database could not keep this apart from another change"
    FULL = "The database has no space left"
    IO_ERROR = "The database cannot use its disk"
    LOCKED = "Another session of the database holds a lock"
    READ_ONLY = "The database is read-only"
    REFUSED = "The database refuses connections"
    SILENT = "The database does not answer"
    TIMED_OUT = "The database did not finish in time"


# By SQLSTATE, or by its class. Any other is the service's fault, such as a missing column (42703).
SQLSTATES = {
    "08": Reason.AWAY,
    "25006": Reason.READ_ONLY,
    "40": Reason.CONFLICT,
    "53": Reason.BUSY,
    "53100": Reason.FULL,
    "55P03": Reason.LOCKED,
    "57": Reason.AWAY,
    "57014": Reason.TIMED_OUT,
    "58030": Reason.IO_ERROR,
}

SQLITE_CODES = {
    sqlite3.SQLITE_BUSY: Reason.LOCKED,
    sqlite3.SQLITE_LOCKED: Reason.LOCKED,
    sqlite3.SQLITE_NOMEM: Reason.BUSY,
    sqlite3.SQLITE_READONLY: Reason.READ_ONLY,
    sqlite3.SQLITE_INTERRUPT: Reason.TIMED_OUT,
    sqlite3.SQLITE_IOERR: Reason.IO_ERROR,
    sqlite3.SQLITE_FULL: Reason.FULL,
    sqlite3.SQLITE_CANTOPEN: Reason.AWAY,
    sqlite3.SQLITE_PROTOCOL: Reason.BUSY,
}


class Unavailable(OperationalError):
    """The database was not asked: the message says why, for the client to read."""


class WrongEncoding(Unavailable):
    """The database is not in UTF-8."""


class OutcomeUnknown(OperationalError):
    """The connection broke after a write was sent: it may have been done, or not."""


def sqlstate(error: BaseException) -> str | None:
    """PostgreSQL's code of one of Django's errors; None when the server did not send one."""
    return getattr(error.__cause__, "sqlstate", None)


def unavailable_reason(error: BaseException) -> Reason | None:
    """Why the database is unavailable, or None for an error that is not about its state."""
    cause = error.__cause__
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        return SQLITE_CODES.get(code & 0xFF)  # the rest of an extended code is detail
    if state := sqlstate(error):
        return SQLSTATES.get(state) or SQLSTATES.get(state[:2])
    if not isinstance(error, (OperationalError, InterfaceError)):
        return None
    if isinstance(cause, ConnectionTimeout):
        return Reason.SILENT
    # libpq tells only by its text that it was a server that did not let the service in.
    return Reason.REFUSED if "FATAL:" in str(error) else Reason.AWAY


def is_unavailable(error: BaseException) -> bool:
    """Whether an error says that the database is away, refuses or is too busy."""
    return unavailable_reason(error) is not None

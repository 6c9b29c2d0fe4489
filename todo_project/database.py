"""One statement, one round trip, and a bounded wait: how this service talks to its database.

Three things keep a slow or absent database from becoming the client's problem:

- a *deadline* for each request, enforced where psycopg waits (`todo_project.postgresql`), since
  session timeouts do not survive a transaction pooler and a hung server honours none;
- a *circuit breaker*: after one request waited in vain the others are refused at once, until a
  single one has tried again with success, so that no queue of waiting threads builds up;
- one *retry* of a statement whose connection broke, where that cannot do anything twice.
"""

import threading
import time
from collections.abc import Sequence
from typing import Any

from django.db import InterfaceError, InternalError, OperationalError, connection

BUDGET = 4.0
"""Seconds that one request may spend waiting for the database."""

PATIENCE = 1.0
"""Seconds after which a failed wait counts as a wait in vain, and opens the breaker."""

PAUSE = 1.0
"""Seconds for which the open breaker refuses everybody, before it lets one request try."""

CANCELED = "57014"
"""SQLSTATE of a statement that was cancelled, at our asking or by a time-out of the role."""

READ_ONLY = "25006"
"""SQLSTATE of a write in a read-only session, such as one with a stand-by."""


class Unavailable(OperationalError):
    """The database was not asked, because it has not answered in time before."""


class OutcomeUnknown(OperationalError):
    """The connection broke after a write was sent: it may have been done, or not."""


class _Deadline(threading.local):
    expires: float | None = None


_deadline = _Deadline()


def start_deadline() -> None:
    """Give this thread `BUDGET` seconds of waiting from now on."""
    _deadline.expires = time.monotonic() + BUDGET


def end_deadline() -> None:
    _deadline.expires = None


def remaining() -> float | None:
    """Seconds left to this thread's request, never negative; None outside a request."""
    expires = _deadline.expires
    return None if expires is None else max(0.0, expires - time.monotonic())


class Breaker:
    """Refuses at once, for a moment, what has just been waited for in vain.

    One for each process: it knows what this process has seen, and needs no coordination. Only
    requests are refused; a command on the terminal may wait as long as it likes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._retry_at: float | None = None  # None: closed, everybody may pass

    def admit(self, scan: bool = False) -> None:
        """Let the caller pass, or raise `Unavailable`.

        A `scan` tries again a second later than others might have: what takes long by itself is
        slow to say that the database is back.
        """
        if self._retry_at is None or _deadline.expires is None:
            return
        with self._lock:
            if self._retry_at is not None:
                now = time.monotonic()
                if now < self._retry_at + (PAUSE if scan else 0):
                    raise Unavailable("the database did not answer in time a moment ago")
                # The caller tries; the others are refused until it is known what came of it.
                self._retry_at = now + BUDGET + PAUSE

    def settle(self, waited_in_vain: bool) -> None:
        """Say what came of an attempt, once for every one that `admit` let pass."""
        if waited_in_vain:
            self._retry_at = time.monotonic() + PAUSE
        elif self._retry_at is not None:
            self._retry_at = None


breaker = Breaker()


def is_unavailable(error: BaseException) -> bool:
    """Whether an error says that the database is away, refuses or is too busy.

    A read-only or failing-over server raises InternalError (SQLSTATE class 25), not
    OperationalError.
    """
    return isinstance(error, (OperationalError, InterfaceError, InternalError))


def _sqlstate(error: BaseException) -> str | None:
    """PostgreSQL's code of an error of Django's; None when the server did not send one."""
    return getattr(error.__cause__, "sqlstate", None)


def run(
    sql: str, params: Sequence[Any], *, read: bool = False, scan: bool = False
) -> list[tuple[Any, ...]]:
    """Run one statement in autocommit, in one round trip, and return all its rows.

    All rows are fetched also where none is wanted: SQLite keeps its write lock until then. `scan`:
    it may take long for its own sake, as a search does among very many tasks.

    Raises `Unavailable` or another error of which `is_unavailable` is true when nothing was done,
    and `OutcomeUnknown` when a write (not `read`) was sent and its connection then broke.
    """
    if remaining() == 0:
        raise Unavailable("the request has no time left for another statement")
    breaker.admit(scan)
    started = time.monotonic()
    try:
        rows = _run(sql, params, read)
    except BaseException as error:
        in_vain = is_unavailable(error) and time.monotonic() - started > PATIENCE
        # The server that has obeyed is there. Or one owner's searches would refuse all others.
        breaker.settle(in_vain and not (scan and _sqlstate(error) == CANCELED))
        raise
    breaker.settle(waited_in_vain=False)
    return rows


def _run(sql: str, params: Sequence[Any], read: bool) -> list[tuple[Any, ...]]:
    retried = False
    while True:
        cursor = connection.cursor()  # connects if need be: a failure here has sent nothing
        try:
            with cursor:
                cursor.execute(sql, params)
                return cursor.fetchall()
        except (OperationalError, InterfaceError, InternalError) as error:
            # A server that ends a session says so with an SQLSTATE, and has then rolled back.
            # Class 08 comes from a pooler that lost its server, which knows no more than we.
            sqlstate = _sqlstate(error)
            # A session that began read-only stays so when the server no longer is.
            is_stale = sqlstate == READ_ONLY or not connection.is_usable()
            if connection.in_atomic_block or not is_stale:
                raise  # the server itself answered that it did nothing
            nothing_done = read or (sqlstate is not None and not sqlstate.startswith("08"))
            if not nothing_done:
                raise OutcomeUnknown(str(error)) from error
            left = remaining()
            if retried or (left is not None and left < PATIENCE):
                raise
            retried = True
            connection.close()

"""One statement, one round trip, and a bounded wait: how this service talks to its database.

Three things keep a slow or absent database from becoming the client's problem:

- a *deadline* for each request, enforced where psycopg waits (`postgresql`), since
  session timeouts do not survive a transaction pooler and a hung server honours none;
- a *circuit breaker*: after one request waited in vain the others are refused at once, until a
  single one has tried again with success, so that no queue of waiting threads builds up;
- one *retry* of a statement whose connection broke, where that cannot do anything twice.
"""

import time
from collections.abc import Sequence
from typing import Any

from django.db import InterfaceError, InternalError, OperationalError, connection

from todo_project.database.breaker import PATIENCE, breaker
from todo_project.database.deadline import remaining, usage
from todo_project.database.errors import (
    CANCELED,
    READ_ONLY,
    OutcomeUnknown,
    Unavailable,
    is_unavailable,
    sqlstate,
)


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
        breaker.settle(in_vain and not (scan and sqlstate(error) == CANCELED))
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
            state = sqlstate(error)
            # A session that began read-only stays so when the server no longer is.
            is_stale = state == READ_ONLY or not connection.is_usable()
            if connection.in_atomic_block or not is_stale:
                raise  # the server itself answered that it did nothing
            nothing_done = read or (state is not None and not state.startswith("08"))
            if not nothing_done:
                raise OutcomeUnknown(str(error)) from error
            left = remaining()
            if retried or (left is not None and left < PATIENCE):
                raise
            retried = True
            usage.retries += 1
            connection.close()

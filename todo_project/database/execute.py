"""One statement, one round trip, and a bounded wait: how this service talks to its database.

Three things keep a slow or absent database from becoming the client's problem:

- a *deadline* for each request, enforced where psycopg or SQLite waits (see `postgresql` and
  `sqlite`): session timeouts do not survive a transaction pooler, and a hung server honours none;
- a *circuit breaker*, which refuses requests at once while the database does not answer;
- one *retry* of a statement whose connection broke, or which could not be serialized (40001),
  where that cannot do anything twice.
"""

import time
from collections.abc import Sequence
from typing import Any

from django.db import connection

from todo_project.database import breaker
from todo_project.database.breaker import Outcome
from todo_project.database.deadline import remaining, usage
from todo_project.database.errors import (
    OutcomeUnknown,
    Reason,
    Unavailable,
    sqlstate,
    unavailable_reason,
)

SERIALIZATION_FAILURE = "40001"


def run(
    sql: str, params: Sequence[Any], *, read: bool = False, slow: bool = False
) -> list[tuple[Any, ...]]:
    """Run one statement in autocommit, in one round trip, and return all its rows.

    All rows are fetched even if none is wanted: SQLite keeps its write lock until then. `slow`: it
    may take long by itself, as a search among very many tasks does, so that its cancellation tells
    the circuit breaker nothing.

    Raises `Unavailable` or another error of which `is_unavailable` is true when nothing was done,
    and `OutcomeUnknown` when a write (not `read`) was sent and its connection then broke.
    """
    if remaining() == 0:
        raise Unavailable(Reason.TIMED_OUT)
    breaker.statements.before_call()
    is_retry = False
    while True:
        cursor = connection.cursor()  # connects if need be: a failure here has sent nothing
        began = time.monotonic()
        try:
            with cursor:
                cursor.execute(sql, params)
                rows = cursor.fetchall()
        except BaseException as error:
            outcome = breaker.outcome(error, time.monotonic() - began)
            if not (slow and outcome is Outcome.CANCELLED):
                breaker.statements.record(began, outcome)
            if not _may_retry(error, read) or is_retry:
                raise
        else:
            breaker.statements.record(began, Outcome.SUCCESS)
            return rows
        is_retry = True
        usage.retries += 1


def _may_retry(error: BaseException, read: bool) -> bool:
    """Whether the statement did nothing and may succeed if it is sent again.

    Closes a connection that cannot be used any more. Raises `OutcomeUnknown`.
    """
    reason = unavailable_reason(error)
    if reason is None or connection.in_atomic_block:
        return False
    state = sqlstate(error)
    is_usable = connection.is_usable()
    # A server that ends a session says so with an SQLSTATE, and has then rolled back. Class 08
    # comes from a pooler or a coordinator that lost its own server: it does not know either.
    is_unknown = state.startswith("08") if state else not is_usable
    if is_unknown and not read:
        raise OutcomeUnknown(str(error)) from error
    left = remaining()
    if left is not None and left < breaker.THRESHOLD:
        return False
    # A session that began read-only stays so when the server no longer is.
    if is_usable and reason is not Reason.READ_ONLY:
        return state == SERIALIZATION_FAILURE
    connection.close()
    return True

"""Django's SQLite backend, whose statements end with the request's deadline."""

import sqlite3
import time
from typing import Any

from django.db.backends.sqlite3 import base

from todo_project.database.deadline import remaining, usage

PROGRESS_STEPS = 100_000
"""Instructions of SQLite's virtual machine between two looks at the clock: some milliseconds of a
search, and more than any other statement of the API runs."""


class Cursor(base.SQLiteCursorWrapper):
    """Counts statements; SQLite works in `execute` up to the first row, then row by row."""

    def execute(self, *args: Any) -> Any:
        usage.round_trips += 1
        began = time.monotonic()
        try:
            return super().execute(*args)
        finally:
            usage.seconds += time.monotonic() - began

    def fetchall(self) -> list[Any]:
        began = time.monotonic()
        try:
            return super().fetchall()
        finally:
            usage.seconds += time.monotonic() - began


class DatabaseWrapper(base.DatabaseWrapper):
    def get_new_connection(self, conn_params: dict[str, Any]) -> sqlite3.Connection:
        connection: sqlite3.Connection = super().get_new_connection(conn_params)
        # Runs in the thread of the statement, whose deadline it is. True interrupts it.
        connection.set_progress_handler(lambda: remaining() == 0, PROGRESS_STEPS)
        return connection

    def create_cursor(self, name: str | None = None) -> Cursor:
        return self.connection.cursor(factory=Cursor)

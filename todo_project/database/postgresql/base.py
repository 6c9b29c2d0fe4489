"""Django's PostgreSQL backend for persistent connections to a server that comes and goes.

What is different from Django's own:

- the health check looks at the socket and costs no round trip;
- every wait, for a connection as for an answer, ends with the request's deadline;
- a new connection needs no statement and no session state, so it works unchanged through a
  transaction pooler;
- `timestamptz` is loaded by psycopg's C code, not by a Python function per value.
"""

import queue
import random
import select
import socket
import threading
import time
from contextlib import suppress
from typing import Any, Self

import psycopg
from django.db.backends.postgresql import base, schema
from psycopg import errors, waiting
from psycopg.adapt import AdaptersMap
from psycopg.types.datetime import TimestamptzLoader

from todo_project.database.deadline import remaining, usage

CANCEL_GRACE = 0.4
"""Seconds to ask the server to cancel a statement past its deadline, and as many to hear of it."""

SHORTEST_CONNECT = 2
"""Seconds; psycopg rounds a shorter `connect_timeout` up to this, and takes whole ones only."""

LOCK_TIMEOUT = 3
"""Seconds that a migration waits for each of its locks; less than a request's time."""


class Connection(psycopg.Connection):
    """A psycopg connection whose waits end with the request's deadline."""

    hung_at = 0.0
    """When a server last did not answer, by the monotonic clock: one value for the process. Who
    loses one connection to a silent network or a fail-over has most often lost them all, and each
    thread would have to wait in vain for itself."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.opened_at = time.monotonic()

    @classmethod
    def connect(cls, conninfo: str = "", **kwargs: Any) -> Self:
        """Connect within the time that the request has left, whatever the number of addresses.

        libpq's `connect_timeout` holds for each address anew, and Neon has several.
        """
        left = remaining()
        if left is None:
            return super().connect(conninfo, **kwargs)
        expires = time.monotonic() + left
        host = str(kwargs.get("host") or "")
        addresses: list[str | None] = [None]
        if host and "hostaddr" not in kwargs and not host.startswith("/"):
            addresses = [*resolve(host, left)]
        failure = psycopg.OperationalError("no time left to connect")
        for address in addresses:
            left = int(expires - time.monotonic() + 0.1)
            if left < SHORTEST_CONNECT:
                break
            wanted = int(kwargs["connect_timeout"])  # 0 and less: libpq's word for no limit
            timed = {**kwargs, "connect_timeout": min(left, wanted) if wanted > 0 else left}
            if address is not None:
                timed["hostaddr"] = address
            try:
                return super().connect(conninfo, **timed)
            except psycopg.OperationalError as error:
                failure = error
        raise failure

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Wait for the server; cancel the statement when the request's time is up.

        A confirmed cancellation leaves the connection in use, and nothing done. Without one, as
        from a hung server, the connection is closed and the fate of a write is not known.
        """
        if timeout is None:
            timeout = remaining()
        usage.round_trips += 1
        began = time.monotonic()
        try:
            return super().wait(gen, interval, timeout)
        except errors._WaitTimeout:
            with suppress(psycopg.Error):  # who cannot be told to stop may have stopped
                self.cancel_safe(timeout=CANCEL_GRACE)
            try:
                return waiting.wait(gen, self.pgconn.socket, interval, CANCEL_GRACE)
            except errors._WaitTimeout:
                self.pgconn.finish()
                Connection.hung_at = time.monotonic()
                raise psycopg.OperationalError("the server did not answer in time") from None
        finally:
            usage.seconds += time.monotonic() - began


def resolve(host: str, seconds: float) -> list[str]:
    """The addresses of a host name, in random order: one of them may swallow every packet.

    In a thread, because the C library cannot be told to hurry, and waits ten seconds and more for
    an absent name server. Raises OperationalError.
    """
    found: queue.SimpleQueue[list[str] | OSError] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            addresses = sorted({str(entry[4][0]) for entry in entries})
            found.put(random.sample(addresses, len(addresses)))
        except OSError as error:
            found.put(error)

    threading.Thread(target=look_up, daemon=True).start()
    try:
        answer = found.get(timeout=seconds)
    except queue.Empty:
        answer = TimeoutError("no answer in time")
    if isinstance(answer, OSError):
        raise psycopg.OperationalError(f"cannot resolve {host}: {answer}") from answer
    return answer


class SchemaEditor(schema.DatabaseSchemaEditor):
    """Gives up when a lock is not to be had.

    A migration that waits for a lock makes every later statement on the table wait behind it, so
    it must wait for less than `REQUEST_TIMEOUT`. Set for the transaction alone, so it holds behind
    a pooler too and stays with nobody. Migrations outside a transaction (indexes made
    concurrently) are without: they block nobody while they wait, and giving up would leave an
    invalid index behind.
    """

    def __enter__(self) -> Self:
        super().__enter__()
        if self.atomic_migration:
            self.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}s'")
        return self


class DatabaseWrapper(base.DatabaseWrapper):
    SchemaEditorClass = SchemaEditor

    def get_connection_params(self) -> dict[str, Any]:
        params = {"connect_timeout": 10, **super().get_connection_params()}
        adapters = AdaptersMap(params["context"])
        adapters.register_loader("timestamptz", TimestamptzLoader)
        return {**params, "context": adapters}

    def get_new_connection(self, conn_params: dict[str, Any]) -> Connection:
        self.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        began = time.monotonic()
        try:
            return Connection.connect(**conn_params)
        finally:
            usage.seconds += time.monotonic() - began

    def _configure_timezone(self, connection: Connection) -> bool:
        """Leave the session's time zone alone: it would be a round trip, and session state.

        Times go out with their offset and come back aware, in whatever zone.
        """
        return False

    def create_cursor(self, name: str | None = None) -> psycopg.Cursor:
        # Django's would put its own time zone loader, in Python, back on each cursor.
        return self.connection.cursor() if name is None else super().create_cursor(name)

    def is_usable(self) -> bool:
        """Whether the server has left the connection open, at the cost of one system call.

        Between statements a server has nothing to say but good-bye: a readable socket is one that
        it has closed, or is about to. What a `SELECT 1` would find besides, a network gone silent,
        the deadline finds just as well, for all connections that were open by then.
        """
        if self.connection is None or self.connection.closed:
            return False
        if self.connection.opened_at < Connection.hung_at:
            return False
        poll = select.poll()
        poll.register(self.connection.fileno(), select.POLLIN)
        return not poll.poll(0)

"""Django's PostgreSQL backend for persistent connections to a server that comes and goes.

What differs from Django's own:

- the health check looks at the socket and costs no round trip;
- every wait, for a connection or for an answer, ends with the request's deadline;
- a new connection needs no statement and no session state, so it works unchanged through a
  transaction pooler;
- `timestamptz` is loaded by psycopg's C code, not by a Python function per value;
- a database that is not in UTF-8 is refused.
"""

import random
import select
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar, Self, TypeVar

import psycopg
from django.db.backends.postgresql import base, schema
from psycopg import errors, waiting
from psycopg.adapt import AdaptersMap
from psycopg.types.datetime import TimestamptzLoader

from todo_project.database import breaker
from todo_project.database.breaker import Outcome
from todo_project.database.deadline import remaining, usage
from todo_project.database.errors import WrongEncoding

CANCEL_TIMEOUT = 0.4
"""Seconds to ask the server to cancel a statement past its deadline, and as many for its answer."""

HEAD_START = 1.0
"""Seconds that an address of the server has to itself before the next one is tried as well."""

MIN_CONNECT_TIMEOUT = 2
"""Seconds: psycopg rounds a shorter `connect_timeout` up to this, and takes whole ones only."""

LOCK_TIMEOUT = 3
"""Seconds that a migration waits for each of its locks; less than `REQUEST_TIMEOUT`."""

T = TypeVar("T")
C = TypeVar("C", bound="Connection")


class Connection(psycopg.Connection):
    """A psycopg connection whose waits end with the request's deadline."""

    _last_address: ClassVar[dict[str, str]] = {}
    """By host name, the address that was connected to last."""

    _silent_at: ClassVar[dict[str, float]] = {}
    """By address, when a server last did not answer, by the monotonic clock. A silent network or a
    fail-over breaks all connections to an address, and each thread would have to find out."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._opened_at = time.monotonic()
        self._address = self.pgconn.hostaddr.decode()

    @classmethod
    def connect(cls, conninfo: str = "", **kwargs: Any) -> Self:
        """Connect within the time that the request has left, whatever the number of addresses.

        libpq's `connect_timeout` holds for each address anew, and Neon has several.
        """
        left = remaining()
        if left is None:
            return super().connect(conninfo, **kwargs)
        expires = time.monotonic() + left
        wanted = int(kwargs["connect_timeout"])  # 0 or less: no limit
        most = max(MIN_CONNECT_TIMEOUT, round(left))
        kwargs["connect_timeout"] = min(most, wanted) if wanted > 0 else most
        host = str(kwargs.get("host") or "")
        if "hostaddr" in kwargs or not host or host.startswith("/"):
            addresses = [kwargs.pop("hostaddr", "")]
        else:
            addresses = resolve(host, left)
            addresses.sort(key=cls._last_address.get(host, "").__ne__)
        connect = super().connect
        made = race([partial(connect, conninfo, **kwargs, hostaddr=a) for a in addresses], expires)
        cls._last_address[host] = made._address
        return made

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Wait for the server; cancel the statement when the request's time is up.

        A confirmed cancellation leaves the connection in use, and nothing done. Without one, as
        from a hung server, the connection is closed and the fate of a write is not known.
        """
        usage.round_trips += 1
        began = time.monotonic()
        try:
            return super().wait(gen, interval, remaining() if timeout is None else timeout)
        except errors._WaitTimeout:
            with suppress(psycopg.Error):  # a server that cannot be asked may still have finished
                self.cancel_safe(timeout=CANCEL_TIMEOUT)
            try:
                return waiting.wait(gen, self.pgconn.socket, interval, CANCEL_TIMEOUT)
            except errors._WaitTimeout:
                self.pgconn.finish()
                self._silent_at[self._address] = time.monotonic()
                raise errors.ConnectionTimeout("the server did not answer in time") from None
        finally:
            usage.seconds += time.monotonic() - began

    def set_autocommit(self, value: bool) -> None:
        """psycopg calls `wait` here as well, but nothing is sent."""
        round_trips = usage.round_trips
        super().set_autocommit(value)
        usage.round_trips = round_trips

    def is_usable(self) -> bool:
        """Whether the server has left the connection open, at the cost of one system call.

        Between statements a server says nothing but that it ends the session: a readable socket is
        one that it has closed, or is about to. A network gone silent, which only a `SELECT 1` would
        find, the deadline finds as well, for all connections that were open by then.
        """
        if self.closed or self._opened_at < self._silent_at.get(self._address, 0.0):
            return False
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        return not poll.poll(0)


def resolve(host: str, seconds: float) -> list[str]:
    """The addresses of a host name, in random order. Raises OperationalError.

    In a thread, because the C library has no time limit of the caller's: it waits ten seconds and
    more for a name server that is away.
    """
    try:
        look_up = partial(socket.getaddrinfo, host, None, type=socket.SOCK_STREAM)
        entries = in_thread(look_up).result(seconds)
    except OSError as error:  # TimeoutError is one
        problem = str(error) or "no answer in time"
        raise psycopg.OperationalError(f"cannot resolve {host}: {problem}") from error
    addresses = sorted({str(entry[4][0]) for entry in entries})
    return random.sample(addresses, len(addresses))


def race(attempts: list[Callable[[], C]], expires: float) -> C:
    """The first connection that any attempt makes, each begun `HEAD_START` after the one before.

    An attempt that fails lets the next one begin at once. The others are closed when they succeed
    later. Raises the last attempt's error, or ConnectionTimeout at the time `expires`.
    """
    running: set[Future[C]] = set()
    failure: psycopg.Error | None = None
    try:
        while (attempts or running) and (left := expires - time.monotonic()) > 0:
            if attempts:
                running.add(in_thread(attempts.pop(0)))
            done = wait(running, min(left, HEAD_START) if attempts else left, FIRST_COMPLETED).done
            for attempt in done:
                running.remove(attempt)
                try:
                    return attempt.result()
                except psycopg.Error as error:
                    failure = error
    finally:
        for attempt in running:
            attempt.add_done_callback(close)
    if failure is None or running:
        failure = errors.ConnectionTimeout("the server did not answer in time")
    raise failure


def close(attempt: Future[C]) -> None:
    if attempt.exception() is None:
        attempt.result().close()


def in_thread(work: Callable[[], T]) -> Future[T]:
    """Begin the work in a thread that does not keep the process alive."""
    future: Future[T] = Future()

    def do() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=do, daemon=True).start()
    return future


class SchemaEditor(schema.DatabaseSchemaEditor):
    """Gives up when it cannot get a lock.

    A migration that waits for a lock makes every later statement on the table wait behind it, so
    it must wait for less than `REQUEST_TIMEOUT`. The limit is set for the transaction alone, so it
    holds behind a pooler too and does not stay in the session. Migrations outside a transaction
    (indexes built concurrently) have none: they block nobody while they wait, and giving up would
    leave an invalid index behind.
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
        """Raises `WrongEncoding`, or `Unavailable` by the circuit breaker."""
        breaker.connections.before_call()
        began = time.monotonic()
        try:
            connection = Connection.connect(**conn_params)
        except psycopg.Error:
            if time.monotonic() - began > breaker.THRESHOLD:
                breaker.connections.record(began, Outcome.TIMED_OUT)
            raise
        finally:
            usage.seconds += time.monotonic() - began
        breaker.connections.record(began, Outcome.SUCCESS)
        # Every server says so when it lets a client in, and poolers pass it on.
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            connection.close()
            raise WrongEncoding(f"The database is in {encoding}, and must be in UTF8")
        return connection

    def _configure_timezone(self, connection: Connection) -> bool:
        """Leave the session's time zone alone: setting it would be a round trip, and session state.

        Times go out with their offset and come back aware, in whatever zone.
        """
        return False

    def create_cursor(self, name: str | None = None) -> psycopg.Cursor:
        # Django's would put its own time zone loader, in Python, back on each cursor.
        return self.connection.cursor() if name is None else super().create_cursor(name)

    def is_usable(self) -> bool:
        return self.connection is not None and self.connection.is_usable()

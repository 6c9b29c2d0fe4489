"""A database host with several addresses, some of which do not answer, as may happen with Neon."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import psycopg
import pytest
from django.db import connection, connections
from django.test import Client

from tests.client import ALICE, at_once
from todo_project.database import breaker, deadline
from todo_project.database.breaker import Breaker
from todo_project.database.deadline import end_deadline, start_deadline
from todo_project.database.postgresql.base import Connection
from tools.servers import wait_until

HOST = "db.example"
THREADS = 8


@contextmanager
def silent(address: str, port: int) -> Iterator[str]:
    """An address that does not answer: a listener whose queue is full drops every packet."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((address, port))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((address, port))
        yield address


@pytest.fixture(params=[("127.0.0.2", "127.0.0.1"), ("127.0.0.3", "127.0.0.2", "127.0.0.1")])
def name(request, transactional_db, monkeypatch) -> Iterator[None]:
    """The database's host is a name with several addresses, of which only the last answers."""
    if connection.vendor == "sqlite":
        pytest.skip("SQLite has no address")
    port = int(connection.settings_dict["PORT"])
    for part in ("statements", "connections"):
        monkeypatch.setattr(breaker, part, Breaker())
    monkeypatch.setattr(Connection, "_last_address", {})
    monkeypatch.setitem(connections.settings["default"], "HOST", HOST)
    entries = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, 0)) for a in request.param]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: entries)
    monkeypatch.setattr("random.sample", lambda population, k: list(request.param))
    connections.close_all()  # those of earlier tests
    with ExitStack() as stack:
        for address in request.param[:-1]:
            stack.enter_context(silent(address, port))
        yield


def ask(count: int = 1, statuses: list[int] | None = None) -> list[int]:
    """The statuses of so many requests of one thread, which connects anew."""
    statuses = [] if statuses is None else statuses
    try:
        client = Client()
        for _ in range(count):
            answer = client.get(f"/api/{ALICE}/tasks")
            statuses.append(answer.status_code)
        return statuses
    finally:
        connections.close_all()


def test_a_silent_address_costs_no_request(name):
    assert ask() == [200]
    Connection._last_address.clear()

    def end_all_sessions() -> None:
        connection.ensure_connection()
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    statuses: list[list[int]] = [[] for _ in range(THREADS)]
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(at_once, THREADS, lambda thread: ask(125, statuses[thread]))
        for count in range(0, 125, 25):
            # When every thread has had some answers: a request whose session was ended is sent
            # once more, and not a third time.
            assert wait_until(lambda: asked.done() or min(map(len, statuses)) >= count)  # noqa: B023
            end_all_sessions()
    asked.result()
    assert statuses == [[200] * 125] * THREADS


def test_the_address_that_answered_last_is_tried_first(name, monkeypatch):
    assert ask() == [200]
    tried = []
    connect = vars(psycopg.Connection)["connect"].__func__

    def record(cls, conninfo="", **kwargs):
        tried.append(kwargs.get("hostaddr"))
        return connect(cls, conninfo, **kwargs)

    monkeypatch.setattr(psycopg.Connection, "connect", classmethod(record))
    assert ask() == [200]
    assert tried == ["127.0.0.1"]


def test_a_request_does_not_wait_longer_for_addresses_that_are_all_silent(name, monkeypatch):
    monkeypatch.setattr("random.sample", lambda population, k: population[1:])
    monkeypatch.setattr(deadline, "REQUEST_TIMEOUT", 1.5)
    start_deadline()
    began = time.monotonic()
    try:
        with pytest.raises(psycopg.errors.ConnectionTimeout):
            Connection.connect(host=HOST, port=connection.settings_dict["PORT"], connect_timeout=60)
    finally:
        end_deadline()
    assert time.monotonic() - began < 30

"""The tests' own tools: the servers restart after every kind of failure, and the proxy counts."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from tests.database_plugin import require_pgbouncer
from tools.proxy import Proxy
from tools.servers import PROJECT_ROOT, PgBouncer, PostgreSQL, ServerError, is_gone, wait_until

pytestmark = pytest.mark.live

Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture(scope="module")
def own() -> Iterator[PostgreSQL]:
    """A PostgreSQL that a test may break."""
    with PostgreSQL() as server:
        yield server


@pytest.fixture
def proxy(postgres: PostgreSQL) -> Iterator[Proxy]:
    with Proxy(postgres.port) as proxy:
        yield proxy


@pytest.fixture
def connection(postgres: PostgreSQL, proxy: Proxy) -> Iterator[Connection]:
    """A warm connection through the proxy, not counted."""
    with psycopg.connect(proxy.url(postgres.url()), autocommit=True) as connection:
        proxy.reset()
        yield connection


@pytest.mark.parametrize(
    "end",
    [PostgreSQL.kill, PostgreSQL.stop, lambda server: server.stop("immediate")],
    ids=["kill", "fast", "immediate"],
)
def test_postgresql_keeps_what_was_committed(
    own: PostgreSQL, end: Callable[[PostgreSQL], None]
) -> None:
    own.execute("DROP TABLE IF EXISTS kept")
    own.execute("CREATE TABLE kept AS SELECT 1 AS one")
    with psycopg.connect(own.url()) as lost:
        lost.execute("INSERT INTO kept VALUES (2)")
        backends = own.children()
        end(own)
        assert all(map(is_gone, backends))
        with pytest.raises(psycopg.OperationalError):
            lost.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError, match="refused"):
            own.execute("SELECT 1")
        own.start()
    assert own.execute("SELECT one FROM kept") == [(1,)]


@pytest.mark.parametrize("postmaster", [False, True])
def test_a_paused_postgresql_hangs_until_resumed(own: PostgreSQL, postmaster: bool) -> None:
    with psycopg.connect(own.url()) as connection, ThreadPoolExecutor() as pool:
        own.pause(postmaster)
        hung: list[Future[Any]] = [pool.submit(connection.execute, "SELECT 1")]
        new = pool.submit(own.execute, "SELECT 2")
        if postmaster:
            hung.append(new)
        else:
            assert new.result(60) == [(2,)]
        for future in hung:
            with pytest.raises(TimeoutError):
                future.result(0.3)
        own.resume()
        for future in hung:
            future.result(60)


def test_postgresql_is_set_up_to_find_faults(postgres: PostgreSQL) -> None:
    """ILIKE folds Unicode, the time zone is not UTC, and commits are synchronous."""
    assert postgres.execute(
        "SELECT 'ÄÖÉΣЖ' ILIKE 'äöéσж', current_setting('timezone'),"
        " current_setting('synchronous_commit'), current_setting('server_encoding')"
    ) == [(True, "Asia/Kathmandu", "on", "UTF8")]


def test_every_postgresql_of_this_machine_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(PostgreSQL()) as finder:
        found = dict(finder._working())
        # The packaged build works from a copy, if not from the virtual environment.
        assert any(finder.folder in folder.parents for folder in found)
        for folder, version in found.items():
            monkeypatch.setenv("POSTGRES_BIN", str(folder))
            with PostgreSQL() as server:
                assert (server.bin, server.version) == (folder, version)
                assert server.execute("SELECT split_part(version(), ' ', 2)") == [(version,)]


def test_a_missing_postgresql_is_reported_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_BIN", "/nowhere")
    with pytest.raises(ServerError, match=r"POSTGRES_BIN \(looked in: /nowhere\)"):
        PostgreSQL()


def test_a_server_that_does_not_start_shows_its_log() -> None:
    with pytest.raises(ServerError, match="unrecognized configuration parameter"):
        PostgreSQL(no_such_setting=1).__enter__()


@pytest.mark.parametrize("before", ["", "server.pause();", "server.pause(postmaster=True);"])
def test_servers_and_their_files_end_with_a_killed_run(before: str) -> None:
    run = (
        "import os, signal; from tools.servers import PostgreSQL; server = PostgreSQL();"
        f"server.start(); print(server.pid, server.folder, flush=True); {before}"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", run], cwd=PROJECT_ROOT, check=False, capture_output=True, text=True
    )
    pid, folder = done.stdout.split()
    assert wait_until(lambda: not Path(folder).exists())
    with suppress(psutil.NoSuchProcess):
        assert is_gone(psutil.Process(int(pid)))


def in_pipeline(connection: Connection) -> None:
    with connection.pipeline():
        for number in range(20):
            connection.execute("SELECT %s::int", [number])


def in_transaction(connection: Connection) -> None:
    with connection.transaction():
        connection.execute("SELECT 1")


def in_prepared(connection: Connection) -> None:
    for _ in range(3):
        connection.execute("SELECT %s", ["x"], prepare=True)


@pytest.mark.parametrize(
    ("work", "round_trips", "statements"),
    [
        (lambda c: c.execute("SELECT 1"), 1, ["SELECT 1"]),
        (lambda c: c.execute("SELECT %s", ["x"]), 1, ["SELECT $1"]),
        (in_transaction, 3, ["BEGIN", "SELECT 1", "COMMIT"]),
        (in_pipeline, 1, ["SELECT $1::int"] * 20),
        # One more for Parse alone, before the first.
        (in_prepared, 4, ["SELECT $1"] * 3),
        (lambda c: c.execute("SELECT length(%s)", ["x" * 1_000_000]), 1, ["SELECT length($1)"]),
        (lambda c: c.execute("SELECT repeat('x', 1000000)"), 1, ["SELECT repeat('x', 1000000)"]),
        (lambda c: c.close(), 0, []),
    ],
    ids=["query", "params", "transaction", "pipeline", "prepared", "long", "wide", "close"],
)
def test_the_proxy_counts_each_wait_for_an_answer_once(
    proxy: Proxy,
    connection: Connection,
    work: Callable[[Connection], object],
    round_trips: int,
    statements: list[str],
) -> None:
    work(connection)
    assert (proxy.round_trips, proxy.statements) == (round_trips, statements)


def test_the_proxy_counts_connections_and_their_start(postgres: PostgreSQL, proxy: Proxy) -> None:
    for mode, round_trips in (("disable", 1), ("prefer", 2)):
        proxy.reset()
        psycopg.connect(proxy.url(postgres.url()), sslmode=mode, gssencmode="disable").close()
        assert (proxy.connections, proxy.round_trips) == (1, round_trips)


def test_the_proxy_counts_bytes_until_it_is_reset(proxy: Proxy, connection: Connection) -> None:
    connection.execute("SELECT length(%s), repeat('x', 1000)", ["x" * 2000])
    assert 2000 < proxy.bytes_sent < 2200
    assert 1000 < proxy.bytes_received < 1200
    proxy.reset()
    assert (proxy.bytes_sent, proxy.round_trips, proxy.statements) == (0, 0, [])


def test_the_delay_is_latency_and_does_not_limit_throughput(
    proxy: Proxy, connection: Connection
) -> None:
    proxy.delay = 0.25
    for work in (lambda: connection.execute("SELECT 1"), lambda: in_pipeline(connection)):
        began = time.perf_counter()
        work()
        # With a wait for each statement the pipeline would take ten seconds.
        assert 0.5 <= time.perf_counter() - began < 8


def test_a_cut_breaks_open_connections_and_serves_new_ones(
    postgres: PostgreSQL, proxy: Proxy, connection: Connection
) -> None:
    proxy.cut()
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    psycopg.connect(proxy.url(postgres.url())).close()


def test_a_frozen_network_delivers_after_the_thaw(proxy: Proxy, connection: Connection) -> None:
    with ThreadPoolExecutor() as pool:
        proxy.freeze()
        hung = pool.submit(connection.execute, "SELECT 1")
        with pytest.raises(TimeoutError):
            hung.result(0.3)
        proxy.thaw()
        assert hung.result(60).fetchall() == [(1,)]


def test_a_proxy_that_refuses_connections_keeps_open_ones(
    postgres: PostgreSQL, proxy: Proxy, connection: Connection
) -> None:
    proxy.refuse()
    with pytest.raises(psycopg.OperationalError, match="refused"):
        psycopg.connect(proxy.url(postgres.url()))
    connection.execute("SELECT 1")
    proxy.accept()
    psycopg.connect(proxy.url(postgres.url())).close()


def test_pgbouncer_shares_one_session_between_clients(postgres: PostgreSQL) -> None:
    require_pgbouncer()
    with PgBouncer(postgres, default_pool_size=1) as server:
        pids = set()
        for _ in range(3):
            with psycopg.connect(server.url()) as connection:
                pids.add(connection.execute("SELECT pg_backend_pid()").fetchall()[0])
        assert len(pids) == 1
        with pytest.raises(psycopg.OperationalError, match="unsupported startup parameter"):
            psycopg.connect(server.url(), options="-c statement_timeout=1")


@pytest.mark.parametrize("restart", [PgBouncer.restart, lambda s: (s.kill(), s.start())])
def test_pgbouncer_serves_again_on_its_port(
    postgres: PostgreSQL, restart: Callable[[PgBouncer], object]
) -> None:
    require_pgbouncer()
    with PgBouncer(postgres) as server, psycopg.connect(server.url()) as connection:
        restart(server)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
        psycopg.connect(server.url()).close()

"""Failures of the database: the service answers 503 in time, and recovers by itself.

`database_unavailable` promises that nothing was done, so the tests also look at the database. A
wait that times out takes 4 s, which is most of this file's time.

On a busy machine a duration proves nothing, so the tests count how many requests waited until their
time was over.
"""

import json
import logging
import re
import socket
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import psycopg
import pytest
from django.db import OperationalError
from django.http import HttpRequest, HttpResponseBase
from django.test import Client as InProcess

from tests.client import API, BOB, TASKS, at_once
from tests.database_plugin import LiveServer, open_live_server
from tests.live import OPERATIONS, Answer, Client, Load, Row, lock, waiting
from todo_project.database import deadline as deadline_module
from todo_project.database.breaker import COOL_DOWN
from todo_project.database.deadline import (
    REQUEST_TIMEOUT,
    end_deadline,
    remaining,
    start_deadline,
)
from todo_project.database.postgresql.base import Connection
from tools.servers import PostgreSQL, wait_until

pytestmark = pytest.mark.live

THREADS = 8  # of a live server, in two processes
NO_TASK = {"id": "", "updated_at": ""}
TOGGLE = next(row for row in OPERATIONS if row.name == "toggle")
LIST, READY = OPERATIONS[0], Row("readiness", "GET", "/readyz")
ADMIN = Row("admin", "GET", "/admin/", headers={"Cookie": "sessionid=0123456789abcdef"})
READS = [row for row in OPERATIONS if row.method == "GET" or row.body == {}]
WRITES = [row for row in OPERATIONS if row not in READS]


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgreSQL]:
    """A server to break, with a role that limits and timeouts apply to."""
    with PostgreSQL() as server:
        server.execute("CREATE ROLE service LOGIN IN ROLE pg_read_all_data, pg_write_all_data")
        yield server


@pytest.fixture(scope="module")
def direct(postgres: PostgreSQL) -> Iterator[LiveServer]:
    with open_live_server(postgres=postgres, proxy=True, user="service") as server:
        yield server


@pytest.fixture(scope="module")
def pooled(postgres: PostgreSQL) -> Iterator[LiveServer]:
    with open_live_server(postgres=postgres, via_pgbouncer=True) as server:
        # After a refusal by PostgreSQL, PgBouncer would wait 15 s before the next attempt.
        server.pgbouncer.settings["server_login_retry"] = 1
        server.pgbouncer.restart()
        yield server


@pytest.fixture
def server(request: pytest.FixtureRequest) -> LiveServer:
    """The server that the test's parameter names."""
    return request.getfixturevalue(request.param)


def ask(server: LiveServer, row: Row, task: Any, key: str = "") -> Answer:
    with Client(server) as client:
        return row.ask(client, task, key or str(uuid.uuid4()))


def serves(server: LiveServer) -> bool:
    """Whether as many requests as occupy all threads succeed."""
    answers = at_once(2 * THREADS, lambda _: ask(server, LIST, NO_TASK))
    return all(answer.status == 200 for answer in answers)


def wait_for_closed_breakers(server: LiveServer) -> None:
    """Requests may all have been served by one process, so they must succeed for a while."""
    failed = deadline = time.monotonic()
    while time.monotonic() < failed + COOL_DOWN + 0.2:
        if not serves(server):
            failed = time.monotonic()
        assert failed < deadline + 60


def ready(server: LiveServer) -> dict[str, Any]:
    """A task, on a service that is known to serve."""
    assert wait_until(lambda: serves(server))
    with Client(server) as client:
        return client.create()


def timeouts(server: LiveServer, since: int = 0) -> list[int]:
    """How many timeouts each request has waited for, by the log from that position on."""
    lines = map(json.loads, server.log()[since:].splitlines())
    requests = [line["duration_ms"] / 1000 for line in lines if line["logger"] == "access"]
    return [int(seconds / REQUEST_TIMEOUT) for seconds in requests]


def end_sessions(server: LiveServer, which: str = "TRUE") -> None:
    """As an operator does, or Neon when it suspends a database."""
    sql = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s AND "
    server.postgres.execute(sql + which, [server.database])


def cut_connections(server: LiveServer) -> None:
    """As a network failure does."""
    server.proxy.cut()


def rows(server: LiveServer) -> list[tuple[Any, ...]]:
    return server.postgres.execute("SELECT * FROM tasks_task ORDER BY id", database=server.database)


def is_refused(answer: Answer, code: str = "database_unavailable") -> bool:
    """Whether it is the documented 503 and reveals nothing internal."""
    return (
        (answer.status, answer.code) == (503, code)
        and answer.headers["Content-Type"] == "application/problem+json"
        and int(answer.headers["Retry-After"]) > 0
        and not re.search(rb"Traceback|psycopg|\.py|127\.0\.0\.1|tasks_task", answer.body)
    )


# Connections that end ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "end"),
    [("direct", end_sessions), ("direct", cut_connections), ("pooled", end_sessions)],
    indirect=["server"],
)
def test_no_request_fails_when_every_session_has_ended(
    server: LiveServer, end: Callable[[LiveServer], None]
) -> None:
    ready(server)
    with Client(server) as client:
        made = [client.create() for _ in range(100)]
    end(server)
    asked = [OPERATIONS[number % len(OPERATIONS)] for number in range(100)]
    answers = at_once(
        10, lambda first: [ask(server, asked[n], made[n]) for n in range(first, 100, 10)]
    )
    for first, some in enumerate(answers):
        for row, answer in zip(asked[first::10], some, strict=True):
            assert answer.status == row.status, (row.name, answer)


@pytest.mark.parametrize(
    ("server", "mode"),
    [("direct", "fast"), ("direct", "immediate"), ("pooled", "fast")],
    indirect=["server"],
)
def test_a_stopped_server_is_503_and_a_started_one_serves(server: LiveServer, mode: Any) -> None:
    task, before, workers = ready(server), rows(server), server.worker_pids()
    asked = [*OPERATIONS, READY, ADMIN]
    server.postgres.stop(mode)
    since = len(server.log())
    answers = at_once(len(asked), lambda n: ask(server, asked[n], task))
    waits = timeouts(server, since)
    server.postgres.start()
    assert wait_until(lambda: serves(server))
    assert server.worker_pids() == workers
    assert all(answer.status == 503 for answer in answers)
    if hasattr(server, "pgbouncer"):
        wait_for_closed_breakers(server)
        # PgBouncer holds statements until a server is back, so the outcome of a write is unknown.
        # The first requests time out; then the breaker is open, and the others do not wait.
        assert set(waits) == {0, 1}
    else:
        assert set(waits) == {0}
        assert all(map(is_refused, answers))
        assert rows(server) == before


def test_after_a_cut_a_read_is_repeated_and_a_write_is_not(direct: LiveServer) -> None:
    task, title = ready(direct), str(uuid.uuid4())
    create = Row("create", "POST", TASKS, {"title": title}, status=201)
    with ThreadPoolExecutor() as pool:
        with lock(direct):
            read, *writes = (pool.submit(ask, direct, row, task) for row in (LIST, create, TOGGLE))
            assert wait_until(lambda: waiting(direct) == 3)
            direct.proxy.cut()
            for write in writes:
                assert is_refused(write.result(), "outcome_unknown")
            assert wait_until(lambda: waiting(direct) == 4)  # the read, once more
        assert read.result().status == 200
    # The server did not notice, and executed each statement once.
    assert wait_until(lambda: waiting(direct) == 0)
    assert completions(direct, title, task) == ([False], [True])


def test_a_write_whose_session_was_ended_is_done_once(direct: LiveServer) -> None:
    """The server says why it ends a session, and has rolled back: the statement is sent again."""
    task, title = ready(direct), str(uuid.uuid4())
    create = Row("create", "POST", TASKS, {"title": title}, status=201)
    with ThreadPoolExecutor() as pool:
        with lock(direct):
            writes = [pool.submit(ask, direct, row, task) for row in (create, TOGGLE)]
            assert wait_until(lambda: waiting(direct) == 2)
            end_sessions(direct, "wait_event_type = 'Lock'")
            assert wait_until(lambda: waiting(direct) == 2)
        assert [write.result().status for write in writes] == [201, 200]
    assert completions(direct, title, task) == ([False], [True])


def completions(server: LiveServer, title: str, task: Any) -> tuple[list[bool], list[bool]]:
    """`is_completed` of the tasks of that title, and of the task."""
    sql = "SELECT is_completed FROM tasks_task WHERE {} = %s"
    titled, same = (
        server.postgres.execute(sql.format(column), [value], database=server.database)
        for column, value in (("title", title), ("id", task["id"]))
    )
    return [done for (done,) in titled], [done for (done,) in same]


# Under load -------------------------------------------------------------------------------------


def kill_postgres(server: LiveServer, load: Load) -> None:
    server.postgres.kill()
    refused = load.statuses[503]
    assert wait_until(lambda: load.statuses[503] > refused + THREADS)
    server.postgres.start()


def kill_pgbouncer(server: LiveServer, load: Load) -> None:
    server.pgbouncer.kill()
    refused = load.statuses[503]
    assert wait_until(lambda: load.statuses[503] > refused + THREADS)
    server.pgbouncer.start()


def end_sessions_often(server: LiveServer, load: Load) -> None:
    for _ in range(3):
        end_sessions(server)
        load.wait_for(50)


@pytest.mark.parametrize(
    ("server", "strike"),
    [
        ("direct", kill_postgres),
        ("direct", end_sessions_often),
        ("pooled", end_sessions_often),
        ("pooled", lambda server, load: server.pgbouncer.restart()),
        ("pooled", kill_pgbouncer),
    ],
    ids=["kill postgres", "end", "end pooled", "restart pgbouncer", "kill pgbouncer"],
    indirect=["server"],
)
def test_no_acknowledged_write_is_lost_or_done_twice(
    server: LiveServer, strike: Callable[[LiveServer, Load], None]
) -> None:
    ready(server)
    workers, since = server.worker_pids(), len(server.log())
    many = 3000 if strike is kill_postgres else 500
    load = Load(server)
    with load.running():
        load.wait_for(many)
        strike(server, load)
        acknowledged = load.acknowledged.total()
        assert wait_until(lambda: load.acknowledged.total() > acknowledged + many, 120)
    load.verify()
    assert max(timeouts(server, since)) <= 1
    assert load.broken == 0
    assert server.worker_pids() == workers


# Waits that time out ----------------------------------------------------------------------------


@contextmanager
def paused(server: LiveServer) -> Iterator[None]:
    server.postgres.pause()
    try:
        yield
    finally:
        server.postgres.resume()


@contextmanager
def frozen(server: LiveServer) -> Iterator[None]:
    server.proxy.freeze()
    try:
        yield
    finally:
        server.proxy.thaw()


def lock_row(server: LiveServer) -> Any:
    return lock(server, "SELECT 1 FROM tasks_task WHERE title = 'locked' FOR UPDATE")


def flood(server: LiveServer, hang: Any, *codes: str) -> None:
    """Three times as many clients as threads: the first requests wait until their time is over,
    and the breaker refuses the others at once."""
    ready(server)
    with Client(server) as client:
        task = client.create("locked")
    titles = [str(uuid.uuid4()) for _ in range(3 * THREADS)]

    def write(number: int) -> Answer:
        if hang is lock_row or number % 2:
            body = {"description": titles[number]}
            return ask(server, Row("update", "PATCH", TASKS + "/{task}", body), task)
        return ask(server, Row("create", "POST", TASKS, {"title": titles[number]}), task)

    with hang(server):
        since = len(server.log())
        answers = at_once(len(titles), write)
        waits = timeouts(server, since)
        if hang is paused:  # new sessions work, so the service recovers before the old ones do
            assert wait_until(lambda: serves(server))
    assert wait_until(lambda: serves(server))
    assert wait_until(lambda: waiting(server) == 0)
    assert_few_waited(waits)
    # The first of the codes occurs in any case.
    assert {codes[0]} <= {answer.code for answer in answers} - {""} <= set(codes)
    assert hang is paused or all(answer.code for answer in answers)
    held = {text for row in rows(server) for text in row[2:4]}
    for title, answer in zip(titles, answers, strict=True):
        if answer.status == 503:
            assert is_refused(answer, answer.code)
        if answer.code == "database_unavailable":
            assert title not in held


def assert_few_waited(waits: list[int]) -> None:
    """One timeout for each thread and a few more: probes, and requests that a thread took before
    the others had reported their timeouts. Without a breaker all would wait."""
    assert len(waits) == 3 * THREADS
    assert set(waits) == {0, 1}
    assert sum(waits) < 2 * THREADS


def flood_locked_file(server: LiveServer) -> None:
    task = ready(server)
    with closing(sqlite3.connect(server.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        since = len(server.log())
        answers = at_once(3 * THREADS, lambda _: ask(server, TOGGLE, task))
        waits = timeouts(server, since)
    assert all(map(is_refused, answers))
    assert_few_waited(waits)
    wait_for_closed_breakers(server)
    assert ask(server, Row("get", "GET", TASKS + "/{task}"), task).json() == task


def lose_one_backend_after_all(server: LiveServer) -> None:
    """Once a request has timed out on a dead connection, the other threads connect anew."""
    flood(server, paused, OPEN, UNDONE)
    wait_for_closed_breakers(server)
    with ThreadPoolExecutor(THREADS) as pool, lock(server):  # gives every thread a connection
        asked = [pool.submit(ask, server, LIST, NO_TASK) for _ in range(THREADS)]
        assert wait_until(lambda: waiting(server) == THREADS)
    assert {future.result().status for future in asked} == {200}
    since = len(server.log())
    with paused(server):
        assert is_refused(ask(server, LIST, NO_TASK))
        assert wait_until(lambda: serves(server))
    assert sum(timeouts(server, since)) == 1


def lock_one_row(server: LiveServer) -> None:
    """A forgotten transaction on one task does not affect other users."""
    ready(server)
    with Client(server) as client:
        task = client.create("locked")
    update = Row("update", "PATCH", TASKS + "/{task}", {"description": "mine"})
    done = threading.Event()

    def read(_: int) -> set[int]:
        statuses = set()
        with Client(server) as client:
            while not done.is_set():
                statuses.add(client.ask("GET", f"/api/{BOB}/tasks").status)
                time.sleep(0.05)
        return statuses

    with lock_row(server), ThreadPoolExecutor() as pool:
        others = [pool.submit(read, number) for number in range(4)]
        refused = at_once(2, lambda _: [ask(server, update, task) for _ in range(2)])
        done.set()
        assert [other.result() for other in others] == [{200}] * 4
    assert all(is_refused(answer) for answers in refused for answer in answers)


SLOW = "user_id <> '{}' OR pg_sleep(60) IS NULL"


def search_endlessly(server: LiveServer) -> None:
    """One user's endless searches do not affect other users."""
    ready(server)
    for sql in (
        f"CREATE POLICY slow ON tasks_task USING ({SLOW.format(BOB)}) WITH CHECK (true)",
        "ALTER TABLE tasks_task ENABLE ROW LEVEL SECURITY",
        "INSERT INTO tasks_task (id, user_id, title, is_completed, created_at, updated_at)"
        f" VALUES (gen_random_uuid(), '{BOB}', 'x', false, now(), now())",
    ):
        server.postgres.execute(sql, database=server.database)
    search = Row("search", "GET", f"/api/{BOB}/tasks?search=x")
    with ThreadPoolExecutor() as pool:
        searches = []
        for _ in range(3):
            searches.append(pool.submit(ask, server, search, NO_TASK))
            time.sleep(0.3)  # their waits should not end together
        with Client(server) as client:
            while not all(future.done() for future in searches):
                assert client.ask("GET", TASKS).status == 200
            assert all(is_refused(future.result()) for future in searches)
            assert client.ask("GET", TASKS).status == 200


# Each takes seconds of waiting, so all run at the same time, with a service each.
UNDONE, OPEN = "database_unavailable", "outcome_unknown"
SCENARIOS: dict[str, tuple[dict[str, Any], Callable[[LiveServer], None]]] = {
    "table": ({}, lambda server: flood(server, lock, UNDONE)),
    "table behind PgBouncer": ({"via_pgbouncer": True}, lambda server: flood(server, lock, UNDONE)),
    "one row": ({}, lock_one_row),
    "row": ({}, lambda server: flood(server, lock_row, UNDONE)),
    "network": ({"proxy": True}, lambda server: flood(server, frozen, OPEN, UNDONE)),
    "file": ({"vendor": "sqlite"}, flood_locked_file),
    "search": ({"user": "service"}, search_endlessly),
    "backends": ({"WEB_CONCURRENCY": "1", "WEB_THREADS": "8"}, lose_one_backend_after_all),
}


@pytest.fixture(scope="module")
def outcomes(postgres: PostgreSQL, direct: LiveServer) -> dict[str, Future[None]]:
    def play(name: str) -> None:
        options, scenario = SCENARIOS[name]
        with ExitStack() as stack:
            if name == "backends":
                options = {"postgres": stack.enter_context(PostgreSQL()), **options}
            elif name != "file":
                options = {"postgres": postgres, **options}
            scenario(stack.enter_context(open_live_server(**options)))

    with ThreadPoolExecutor() as pool:
        return {name: pool.submit(play, name) for name in SCENARIOS}


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_queue_builds_up_behind_a_hung(name: str, outcomes: dict[str, Future[None]]) -> None:
    outcomes[name].result()


# Refusals ---------------------------------------------------------------------------------------

REFUSE_WRITES = """
    CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN RAISE 'injected' USING ERRCODE = '{}'; END$$;
    CREATE TRIGGER refuse BEFORE INSERT OR UPDATE OR DELETE ON tasks_task EXECUTE FUNCTION refuse()
"""


def failing_with(sqlstate: str) -> tuple[str, str, str, list[Row], str]:
    statements = REFUSE_WRITES.format(sqlstate), "DROP TRIGGER refuse ON tasks_task"
    return (sqlstate, *statements, WRITES, "injected")


@pytest.mark.parametrize(
    ("breaking", "mending", "refused", "cause"),
    [
        pytest.param(*rest, id=name)
        for name, *rest in [
            (
                "read-only",
                "ALTER DATABASE {} SET default_transaction_read_only = on",
                "ALTER DATABASE {} RESET default_transaction_read_only",
                WRITES,
                "read-only transaction",
            ),
            (
                "no connection left",
                "ALTER ROLE service CONNECTION LIMIT 0",
                "ALTER ROLE service CONNECTION LIMIT -1",
                [*OPERATIONS, READY],
                "too many connections",
            ),
            *(
                (
                    name,
                    f"ALTER ROLE service SET {name} = 50",
                    f"ALTER ROLE service RESET {name}",
                    OPERATIONS,
                    f"canceling statement due to {name.replace('_', ' ')}",
                )
                for name in ("statement_timeout", "lock_timeout")
            ),
            *map(failing_with, ["53100", "53200", "58030", "40P01", "40001"]),
        ]
    ],
)
def test_a_refusal_is_503_with_its_cause_in_the_log(
    direct: LiveServer, breaking: str, mending: str, refused: list[Row], cause: str
) -> None:
    task, before, since = ready(direct), rows(direct), len(direct.log())

    def ask_all(number: int) -> list[tuple[Row, str, Answer]]:
        answers = []
        for row in refused[number::THREADS]:
            request_id = str(uuid.uuid4())
            named = row._replace(headers={**row.headers, "X-Request-ID": request_id})
            answers.append((row, request_id, ask(direct, named, task)))
        return answers

    def execute(sql: str) -> None:
        # From another database: a read-only one cannot be altered from within.
        database = "postgres" if sql.startswith("ALTER") else direct.database
        direct.postgres.execute(sql.replace("{}", direct.database), database=database)

    execute(breaking)
    end_sessions(direct)  # settings apply to new sessions
    with ExitStack() as stack:
        stack.callback(execute, mending)
        if cause.startswith("canceling"):
            stack.enter_context(lock(direct))
        answers = [each for some in at_once(THREADS, ask_all) for each in some]
    if cause.startswith("canceling"):
        end_sessions(direct)
    with Client(direct) as client:  # the service recovers at once
        assert rows(direct) == before
        for _ in range(2 * THREADS):
            client.create()
    for row, _, answer in answers:
        assert is_refused(answer), (row.name, answer)
    log = map(json.loads, direct.log().splitlines())
    lines = {line["request_id"]: line for line in log if line["logger"] == "access"}
    assert {lines[request_id]["code"] for _, request_id, _ in answers} == {"database_unavailable"}
    assert wait_until(lambda: cause in direct.log()[since:])  # one line a second


# In process -------------------------------------------------------------------------------------


def fail_late(get_response: Any) -> Callable[[HttpRequest], HttpResponseBase]:
    """A middleware that fails after the view, like one that cannot save the session."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        get_response(request)
        raise OperationalError("the server went away")

    return middleware


def test_a_failure_after_the_view_does_not_claim_that_nothing_was_done(
    settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.fail_late"]
    response = InProcess(raise_request_exception=False).get("/healthz")
    assert (response.status_code, response.json()["code"]) == (503, "outcome_unknown")
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_a_deadline_ends_with_its_request(api: API) -> None:
    api.get(TASKS)
    assert remaining() is None
    api.get("/nowhere", 404)
    assert remaining() is None


@pytest.fixture
def deadline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This thread is in a request that may take half a second."""
    monkeypatch.setattr(deadline_module, "REQUEST_TIMEOUT", 0.5)
    start_deadline()
    yield
    end_deadline()


def test_a_request_does_not_wait_longer_for_a_silent_name_server(
    deadline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.wait() and [])
    began = time.monotonic()
    with pytest.raises(psycopg.OperationalError, match=r"cannot resolve db\.example: no answer"):
        Connection.connect(host="db.example", connect_timeout=60)
    answered.set()
    assert time.monotonic() - began < 30


def test_a_request_does_not_wait_longer_for_a_server_that_accepts_and_is_silent(
    deadline: None,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(psycopg.errors.ConnectionTimeout):
            Connection.connect(
                hostaddr="127.0.0.1", port=silent.getsockname()[1], connect_timeout=60
            )
        assert time.monotonic() - began < 30

"""The database fails in every way it can; the service says so in time, and recovers by itself.

`database_unavailable` promises that nothing was done, so the tests also look at what the database
has. A wait that times out takes a request's whole 4 s, and that is most of this file's time.
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
from todo_project.database.breaker import COOL_DOWN, THRESHOLD
from todo_project.database.deadline import end_deadline, remaining, start_deadline
from todo_project.database.postgresql.base import Connection
from tools.servers import PostgreSQL, wait_until

pytestmark = pytest.mark.live

THREADS = 8  # of a live server, in two processes
IN_TIME = 5.0  # seconds from a thread's taking a request to its answer
NO_TASK = {"id": "", "updated_at": ""}
TOGGLE = next(row for row in OPERATIONS if row.name == "toggle")
LIST, READY = OPERATIONS[0], Row("readiness", "GET", "/readyz")
ADMIN = Row("admin", "GET", "/admin/", headers={"Cookie": "sessionid=0123456789abcdef"})
READS = [row for row in OPERATIONS if row.method == "GET" or row.body == {}]
WRITES = [row for row in OPERATIONS if row not in READS]


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgreSQL]:
    """A server to break, with a role for which limits and time-outs hold."""
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
        # After a server that refused, the default waits 15 s before it looks again.
        server.pgbouncer.settings["server_login_retry"] = 1
        server.pgbouncer.restart()
        yield server


@pytest.fixture
def server(request: pytest.FixtureRequest) -> LiveServer:
    """The one that the test's parameters name."""
    return request.getfixturevalue(request.param)


def ask(server: LiveServer, row: Row, task: Any, key: str = "") -> Answer:
    with Client(server) as client:
        return row.ask(client, task, key or str(uuid.uuid4()))


def serves(server: LiveServer) -> bool:
    """Whether every thread reads, so that each has a connection."""
    answers = at_once(2 * THREADS, lambda _: ask(server, LIST, NO_TASK))
    return all(answer.status == 200 for answer in answers)


def settle(server: LiveServer) -> None:
    """Wait until no process has an open breaker, whichever of them one happens to ask."""
    deadline = time.monotonic() + 3 * IN_TIME
    failed = time.monotonic()
    while time.monotonic() < failed + COOL_DOWN + 0.2:
        if not serves(server):
            failed = time.monotonic()
        assert failed < deadline


def ready(server: LiveServer) -> dict[str, Any]:
    """A task, on a service whose threads are connected."""
    assert wait_until(lambda: serves(server), 15)
    with Client(server) as client:
        return client.create()


def end_sessions(server: LiveServer, which: str = "TRUE") -> None:
    """As an operator ends them, or a Neon that goes to sleep."""
    sql = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s AND "
    server.postgres.execute(sql + which, [server.database])


def cut_connections(server: LiveServer) -> None:
    """As a network does: neither end is told."""
    server.proxy.cut()


def rows(server: LiveServer) -> list[tuple[Any, ...]]:
    return server.postgres.execute("SELECT * FROM tasks_task ORDER BY id", database=server.database)


def is_refused(answer: Answer, code: str = "database_unavailable") -> bool:
    """Whether it is the 503 of the contract, and gives nothing away."""
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
def test_no_request_notices_that_every_session_has_ended(
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
    began = time.monotonic()
    answers = at_once(len(asked), lambda n: ask(server, asked[n], task))
    took = time.monotonic() - began
    server.postgres.start()
    assert wait_until(lambda: serves(server), 15)
    assert server.worker_pids() == workers
    assert all(answer.status == 503 for answer in answers)
    if hasattr(server, "pgbouncer"):
        settle(server)
        # It keeps a statement until a server comes back, so that a write's outcome is open. The
        # first requests timed out, the others did not wait at all.
        assert took < 2 * IN_TIME
    else:
        assert took < IN_TIME
        assert all(map(is_refused, answers))
        assert rows(server) == before


def test_a_write_cut_off_is_not_repeated_and_a_read_is(direct: LiveServer) -> None:
    task, title = ready(direct), str(uuid.uuid4())
    create = Row("create", "POST", TASKS, {"title": title}, status=201)
    with ThreadPoolExecutor() as pool:
        with lock(direct):
            read, *writes = (pool.submit(ask, direct, row, task) for row in (LIST, create, TOGGLE))
            assert wait_until(lambda: waiting(direct) == 3, 3)
            direct.proxy.cut()
            for write in writes:
                assert is_refused(write.result(), "outcome_unknown")
            assert wait_until(lambda: waiting(direct) == 4, 3)  # the read, once more
        assert read.result().status == 200
    # The server knew nothing of the cut: what it was asked, it has done, and once.
    assert wait_until(lambda: waiting(direct) == 0)
    assert completions(direct, title, task) == ([False], [True])


def test_a_write_whose_session_was_ended_is_done_once(direct: LiveServer) -> None:
    """A server that says why it ends a session has undone its statement: it is sent again."""
    task, title = ready(direct), str(uuid.uuid4())
    create = Row("create", "POST", TASKS, {"title": title}, status=201)
    with ThreadPoolExecutor() as pool:
        with lock(direct):
            writes = [pool.submit(ask, direct, row, task) for row in (create, TOGGLE)]
            assert wait_until(lambda: waiting(direct) == 2, 3)
            end_sessions(direct, "wait_event_type = 'Lock'")
            assert wait_until(lambda: waiting(direct) == 2, 3)
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
    assert wait_until(lambda: load.statuses[503] > refused + THREADS, 10)
    server.postgres.start()


def kill_pgbouncer(server: LiveServer, load: Load) -> None:
    server.pgbouncer.kill()
    refused = load.statuses[503]
    assert wait_until(lambda: load.statuses[503] > refused + THREADS, 10)
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
def test_what_was_acknowledged_is_there_and_nothing_twice(
    server: LiveServer, strike: Callable[[LiveServer, Load], None]
) -> None:
    ready(server)
    workers = server.worker_pids()
    many = 3000 if strike is kill_postgres else 500
    load = Load(server)
    with load.running():
        load.wait_for(many)
        strike(server, load)
        acknowledged = load.acknowledged.total()
        assert wait_until(lambda: load.acknowledged.total() > acknowledged + many)
    load.verify()
    assert load.slowest < IN_TIME
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
    """With three times as many clients as threads, those in the second and third turn are
    answered at once: all together take one time-out, and without a breaker it would be three."""
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
        began = time.monotonic()
        answers = at_once(len(titles), write)
        took = time.monotonic() - began
        if hang is paused:  # new sessions are served, so it is back before the old ones go on
            assert wait_until(lambda: serves(server), IN_TIME)
    assert wait_until(lambda: serves(server), IN_TIME)
    assert wait_until(lambda: waiting(server) == 0)
    assert took < 2 * IN_TIME
    assert any(answer.seconds > THRESHOLD for answer in answers)
    # The first of the codes there is at least.
    assert {codes[0]} <= {answer.code for answer in answers} - {""} <= set(codes)
    assert hang is paused or all(answer.code for answer in answers)
    held = {text for row in rows(server) for text in row[2:4]}
    for title, answer in zip(titles, answers, strict=True):
        if answer.status == 503:
            assert is_refused(answer, answer.code)
        if answer.code == "database_unavailable":
            assert title not in held


def flood_locked_file(server: LiveServer) -> None:
    task = ready(server)
    with closing(sqlite3.connect(server.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        answers = at_once(3 * THREADS, lambda _: ask(server, TOGGLE, task))
        took = time.monotonic() - began
    assert all(map(is_refused, answers))
    assert took < 2 * IN_TIME
    settle(server)
    assert ask(server, Row("get", "GET", TASKS + "/{task}"), task).json() == task


def lose_one_backend_after_all(server: LiveServer) -> None:
    """A thread that finds its connection dead spares the others finding out about theirs."""
    flood(server, paused, OPEN, UNDONE)
    settle(server)
    with paused(server):
        assert is_refused(ask(server, LIST, NO_TASK))
        assert wait_until(lambda: serves(server), IN_TIME)


def lock_one_row(server: LiveServer) -> None:
    """An operator's forgotten transaction on one task refuses nobody else."""
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
    """One owner's endless searches, staggered, refuse nobody else."""
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
            time.sleep(0.3)  # not at once, or their waits would end together
        with Client(server) as client:
            while not all(future.done() for future in searches):
                assert client.ask("GET", TASKS).status == 200
            assert all(is_refused(future.result()) for future in searches)
            assert client.ask("GET", TASKS).status == 200


# Each takes seconds of waiting, so all run at the same time, each on a service of its own.
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
        return {name: pool.submit(play, name) for name in SCENARIOS}  # ended by now


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
        # From outside, since a database that is read-only would not let itself be altered.
        database = "postgres" if sql.startswith("ALTER") else direct.database
        direct.postgres.execute(sql.replace("{}", direct.database), database=database)

    execute(breaking)
    end_sessions(direct)  # settings hold from the next session on
    with ExitStack() as stack:
        stack.callback(execute, mending)
        if cause.startswith("canceling"):
            stack.enter_context(lock(direct))
        answers = [each for some in at_once(THREADS, ask_all) for each in some]
    if cause.startswith("canceling"):
        end_sessions(direct)
    with Client(direct) as client:  # back at once
        assert rows(direct) == before
        for _ in range(2 * THREADS):
            client.create()
    for row, _, answer in answers:
        assert is_refused(answer), (row.name, answer)
    log = map(json.loads, direct.log().splitlines())
    lines = {line["request_id"]: line for line in log if line["logger"] == "access"}
    assert {lines[request_id]["code"] for _, request_id, _ in answers} == {"database_unavailable"}
    assert wait_until(lambda: cause in direct.log()[since:], 3)  # one line a second says why


# In process -------------------------------------------------------------------------------------


def fail_late(get_response: Any) -> Callable[[HttpRequest], HttpResponseBase]:
    """A middleware that fails as the admin's does, when it cannot keep the session."""

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
    """This thread is in a request, which has two seconds."""
    monkeypatch.setattr(deadline_module, "REQUEST_TIMEOUT", 2.0)
    start_deadline()
    yield
    end_deadline()


def test_an_absent_name_server_does_not_outlast_the_request(
    deadline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadline_module, "REQUEST_TIMEOUT", 0.2)
    start_deadline()
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.wait() and [])
    began = time.monotonic()
    with pytest.raises(psycopg.OperationalError, match=r"cannot resolve db\.example: no answer"):
        Connection.connect(host="db.example", connect_timeout=10)
    answered.set()
    assert time.monotonic() - began < IN_TIME


def test_a_server_that_accepts_and_says_nothing_does_not_outlast_the_request(
    deadline: None,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(psycopg.errors.ConnectionTimeout):
            Connection.connect(
                hostaddr="127.0.0.1", port=silent.getsockname()[1], connect_timeout=10
            )
        assert time.monotonic() - began < IN_TIME

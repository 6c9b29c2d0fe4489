"""Clients of a live service: one for single requests, and a load whose writes are checked."""

from __future__ import annotations

import http.client
import json
import select
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import psycopg
from django.urls import URLPattern, URLResolver, get_resolver, resolve

from tasks.etags import task_etag
from tests.client import NOBODYS, TASKS, Json
from tests.database_plugin import LiveServer
from tools.servers import HOST, Gunicorn, wait_until


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The problem's code, or an empty string."""
        return str(self.json()["code"]) if self.status >= 400 and self.body else ""


class Client:
    """A keep-alive connection to the service, opened anew when the service has closed it.

    Like other clients it looks for that before it sends a request, so that a connection that breaks
    during a request is a fault of the service.
    """

    def __init__(self, server: Gunicorn) -> None:
        self._connection = http.client.HTTPConnection(HOST, server.port, timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Raises OSError or HTTPException when the service breaks the connection."""
        sent = dict(headers or {})
        data = None
        if body is not None:
            # An iterator is sent in chunks.
            raw = isinstance(body, bytes | Iterator)
            data = body if raw else json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        sock = self._connection.sock
        if sock and select.select([sock], [], [], 0)[0]:
            self._connection.close()
        try:
            self._connection.request(method, path, data, sent)
            response = self._connection.getresponse()
            content = response.read()
        except BaseException:
            self._connection.close()
            raise
        return Answer(response.status, response.headers, content)

    def create(self, title: str = "Buy milk", headers: Mapping[str, str] | None = None) -> Json:
        answer = self.ask("POST", TASKS, {"title": title}, headers)
        assert answer.status == 201, answer
        return answer.json()


class Row(NamedTuple):
    """A request about a new task, with the expected status and number of round trips.

    In `path` and `headers`, `{task}` is the task's id, `{etag}` its tag, `{key}` the
    Idempotency-Key with which it was created and `{new}` a value never used before.
    """

    name: str
    method: str
    path: str
    body: Any = None
    headers: Mapping[str, str] = {}
    status: int = 200
    round_trips: int = 1

    def ask(self, client: Client, task: Json, key: str = "key") -> Answer:
        fill = {
            "task": task["id"],
            "etag": task_etag(task),
            "key": key,
            "new": str(uuid.uuid4()),
        }
        headers = {name: value.format(**fill) for name, value in self.headers.items()}
        return client.ask(self.method, self.path.format(**fill), self.body, headers)


TASK = TASKS + "/{task}"
MILK = {"title": "Buy milk"}
WHOLE = {"title": "Buy bread", "description": "rye", "is_completed": True}
HOLDS = {"If-Match": "{etag}"}
FAILS = {"If-Match": '"2000-01-01T00:00:00.000000Z"'}

# Requests that need the database, and succeed.
OPERATIONS = [
    Row("list", "GET", TASKS),
    Row("list, all parameters", "GET", TASKS + "?search=milk&is_completed=false&limit=2"),
    Row("list by update", "GET", TASKS + "?ordering=-updated_at"),
    Row("list by title", "GET", TASKS + "?ordering=title&limit=1"),
    Row("get", "GET", TASK),
    Row("get, fresh", "GET", TASK, None, {"If-None-Match": "{etag}"}, 304),
    Row("create", "POST", TASKS, MILK, status=201),
    Row("create with key", "POST", TASKS, MILK, {"Idempotency-Key": "{new}"}, 201),
    Row("create again", "POST", TASKS, MILK, {"Idempotency-Key": "{key}"}, 201),
    Row("replace", "PUT", TASK, WHOLE),
    Row("replace, same", "PUT", TASK, WHOLE, HOLDS),
    Row("update", "PATCH", TASK, {"description": "two litres"}),
    Row("update, if", "PATCH", TASK, {"title": "Buy oat milk"}, HOLDS),
    Row("update nothing", "PATCH", TASK, {}),
    Row("update nothing, if", "PATCH", TASK, {}, HOLDS),
    Row("toggle", "PATCH", TASK + "/complete"),
    Row("toggle, if", "PATCH", TASK + "/complete", None, HOLDS),
    Row("set", "PATCH", TASK + "/complete", {"is_completed": True}),
    Row("set, if", "PATCH", TASK + "/complete", {"is_completed": False}, HOLDS),
    Row("delete", "DELETE", TASK, status=204),
    Row("delete, if", "DELETE", TASK, None, HOLDS, 204),
]

HEAD_AND_OPTIONS = [
    Row("list head", "HEAD", TASKS),
    Row("get head", "HEAD", TASK),
    *(
        Row(f"options {path}", "OPTIONS", path, round_trips=0)
        for path in (TASKS, TASK, TASK + "/complete", "/healthz", "/readyz")
    ),
]

GONE = TASKS + f"/{NOBODYS}"
REFUSED = [
    Row("no such task", "GET", GONE, status=404),
    Row("no such task to toggle", "PATCH", GONE + "/complete", status=404),
    Row("no such task to delete", "DELETE", GONE, status=404),
    Row("key reused", "POST", TASKS, WHOLE, {"Idempotency-Key": "{key}"}, 422),
    # A second round trip distinguishes 412 from 404 and gets the current tag.
    Row("replace, late", "PUT", TASK, WHOLE, FAILS, 412, 2),
    Row("update, late", "PATCH", TASK, MILK, FAILS, 412, 2),
    Row("toggle, late", "PATCH", TASK + "/complete", None, FAILS, 412, 2),
    Row("set, late", "PATCH", TASK + "/complete", {"is_completed": True}, FAILS, 412, 2),
    Row("delete, late", "DELETE", TASK, None, FAILS, 412, 2),
    # These are refused without the database.
    Row("no such URL", "GET", "/api/nothing", status=404, round_trips=0),
    Row("bad user id", "GET", "/api/alice/tasks", status=400, round_trips=0),
    Row("bad task id", "GET", TASKS + "/1", status=400, round_trips=0),
    Row("bad parameter", "GET", TASKS + "?limit=0", status=400, round_trips=0),
    Row("bad cursor", "GET", TASKS + "?cursor=AAAA", status=400, round_trips=0),
    Row("bad key", "POST", TASKS, MILK, {"Idempotency-Key": "a b"}, 400, 0),
    Row("no JSON", "POST", TASKS, b"{", status=400, round_trips=0),
    Row("bad host", "GET", TASKS, None, {"Host": "elsewhere.example"}, 400, 0),
    Row("wrong method", "POST", TASK, MILK, status=405, round_trips=0),
    Row("wrong Accept", "GET", TASKS, None, {"Accept": "text/csv"}, 406, 0),
    Row("too large", "POST", TASKS, b" " * 70_000, status=413, round_trips=0),
    Row("wrong type", "POST", TASKS, b"a=1", {"Content-Type": "text/plain"}, 415, 0),
    Row("invalid", "PUT", TASK, MILK, status=422, round_trips=0),
    Row("invalid set", "PATCH", TASK + "/complete", {}, status=422, round_trips=0),
]


def routes(patterns: Iterable[URLPattern | URLResolver] | None = None) -> set[tuple[str, str]]:
    """Every route except the admin's, as (name of the view, method), without HEAD and OPTIONS."""
    found: set[tuple[str, str]] = set()
    for pattern in get_resolver().url_patterns if patterns is None else patterns:
        if isinstance(pattern, URLPattern):
            view: Any = pattern.callback
            methods = getattr(view, "actions", None) or {
                method: method for method in view.cls.http_method_names if hasattr(view.cls, method)
            }
            found |= {(str(pattern.name), method.upper()) for method in methods}
        elif pattern.app_name != "admin":
            found |= routes(pattern.url_patterns)
    return {(name, method) for name, method in found if method not in ("HEAD", "OPTIONS")}


def route(row: Row) -> tuple[str, str]:
    path = urlsplit(row.path.format(task=NOBODYS)).path
    return resolve(path).view_name, row.method


@contextmanager
def lock(server: LiveServer, sql: str = "LOCK TABLE tasks_task") -> Iterator[None]:
    with psycopg.connect(server.database_url) as session:
        session.execute(sql.encode())
        yield


def waiting(server: LiveServer) -> int:
    """Number of statements that wait for a lock."""
    sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"
    return int(server.postgres.execute(sql, [server.database])[0][0])


COUNT_CHANGES = [
    "CREATE TABLE IF NOT EXISTS changes (user_id uuid)",
    """CREATE OR REPLACE FUNCTION count_change() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN INSERT INTO changes VALUES (NEW.user_id); RETURN NULL; END'""",
    """CREATE OR REPLACE TRIGGER count_change AFTER UPDATE ON tasks_task FOR EACH ROW
    WHEN (OLD.updated_at <> NEW.updated_at) EXECUTE FUNCTION count_change()""",
]


class Load:
    """Clients that write without pause and record the outcome of each write.

    Each client repeats: a create, a create with a key that is sent again until it succeeds, a
    toggle of its own task, and a replacement of that task with equal title and description.
    A write is *acknowledged* by a success, *refused* if the answer says that nothing was done, and
    otherwise *open*: it may have been done. A trigger counts the changes of each task.
    """

    def __init__(self, server: LiveServer, clients: int = 8) -> None:
        for statement in COUNT_CHANGES:
            server.postgres.execute(statement, database=server.database)
        self.server = server
        self.acknowledged: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.open: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.faults: list[str] = []
        self.broken = 0  # connections
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._owners = [str(uuid.uuid4()) for _ in range(clients)]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run until the block ends; raises the exception of a client."""
        with ThreadPoolExecutor(len(self._owners)) as pool:
            try:
                futures = [pool.submit(self._work, owner) for owner in self._owners]
                yield
            finally:
                self._stop.set()
            for future in futures:
                future.result()

    def wait_for(self, count: int) -> None:
        """Wait for so many more answers."""
        before = self.statuses.total()
        assert wait_until(lambda: self.statuses.total() > before + count, 120)

    def _work(self, owner: str) -> None:
        with Client(self.server) as client:
            ask = partial(self._ask, client)
            tasks = f"/api/{owner}/tasks"
            own = str(uuid.uuid4())
            while (made := ask(own, "POST", tasks, own, {"Idempotency-Key": own})) is None:
                if self._stop.is_set():
                    return
            path = f"{tasks}/{made.json()['id']}"
            while not self._stop.is_set():
                title = str(uuid.uuid4())
                ask(title, "POST", tasks, title)
                key = str(uuid.uuid4())
                while not self._stop.is_set():
                    if ask(key, "POST", tasks, key, {"Idempotency-Key": key}):
                        break
                ask(owner, "PATCH", f"{path}/complete")
                title = str(uuid.uuid4())
                body = {"title": title, "description": title, "is_completed": False}
                ask(owner, "PUT", path, body=body)

    def _ask(
        self,
        client: Client,
        what: str,
        method: str,
        path: str,
        title: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: Json | None = None,
    ) -> Answer | None:
        if title is not None:
            body = {"title": title, "description": title}
        try:
            answer = client.ask(method, path, body, headers)
        except ConnectionRefusedError:  # nothing was sent
            time.sleep(0.01)
            return None
        except (OSError, http.client.HTTPException):
            with self._lock:
                self.open[what] += 1
                self.broken += 1
            return None
        with self._lock:
            self.statuses[answer.status] += 1
            if answer.status in (200, 201):
                self.acknowledged[what] += 1
                return answer
            if (answer.status, answer.code) == (503, "outcome_unknown"):
                self.open[what] += 1
            elif (answer.status, answer.code) == (503, "database_unavailable"):
                self.refused[what] += 1
            else:
                self.faults.append(f"{method}: {answer.status} {answer.body[:500]!r}")
        time.sleep(0.01)  # to limit the number of refusals
        return None

    def verify(self, cut_off: bool = True) -> None:
        """Compare the outcomes with the database: no write is lost, repeated or done in part.

        An acknowledged write was done and a refused one was not. An open one may have been done if
        `cut_off`, and otherwise was not.
        """
        assert self.faults == []
        half = self._rows("SELECT title FROM {own} WHERE title <> description")
        assert half == []
        created = dict(
            self._rows("SELECT coalesce(idempotency_key, title), count(*) FROM {own} GROUP BY 1")
        )
        changed = dict(self._rows("SELECT user_id::text, count(*) FROM changes GROUP BY 1"))
        for name in {*self.acknowledged, *self.refused, *self.open, *created}:
            least, open = self.acknowledged[name], self.open[name] if cut_off else 0
            if name in self._owners:
                assert least <= changed.get(name, 0) <= least + open, f"changes of {name}"
            else:  # with a key it may be acknowledged more than once
                assert min(least, 1) <= created.get(name, 0) <= min(least + open, 1), name

    def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        own = f"(SELECT * FROM tasks_task WHERE user_id = ANY ('{{{','.join(self._owners)}}}'))"
        return self.server.postgres.execute(
            sql.replace("{own}", f"{own} AS own"), database=self.server.database
        )

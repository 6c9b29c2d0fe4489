"""The log: a JSON object per line, a line per request, and no data of clients."""

import json
import logging
import socket
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from logging.handlers import BufferingHandler
from typing import Any

import pytest
from django.db import connection

from tests.client import ALICE, API, BOB, TASKS, at_once
from tests.database_plugin import LiveServer, open_live_server
from tests.issuer import SECRET, bearer, by_secret
from tests.live import Answer, Client
from todo_project.logs import JSONFormatter, OncePerSecondFilter
from tools.servers import HOST, PostgreSQL, wait_until

Line = dict[str, Any]
TITLE = "a title that nobody else may read"


@pytest.fixture
def lines(capfd: pytest.CaptureFixture[str]) -> Any:
    """A function that returns the requests' lines since its last call."""

    def read() -> list[Line]:
        log = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
        return [line for line in log if line["logger"] == "access"]

    return read


def test_each_request_has_a_line_with_its_cost(api: API, lines: Any) -> None:
    before = datetime.now(UTC)
    task = api.create()
    made = api.last
    (line,) = lines()
    assert before <= datetime.fromisoformat(line.pop("time")) <= datetime.now(UTC)
    assert line.pop("duration_ms") > line.pop("database_ms") >= 0
    assert line == {
        "level": "INFO",
        "logger": "access",
        "request_id": made["X-Request-ID"],
        "method": "POST",
        "route": "/api/<uuid:user_id>/tasks",
        "status": 201,
        "code": None,
        "bytes": len(made.content),
        "owner": ALICE,
        "round_trips": 1,
        "retries": 0,
        "breaker": None,
    }
    api.request("HEAD", f"{TASKS}/{task['id']}/", headers={"X-Request-ID": "mine"})
    (line,) = lines()
    assert (line["request_id"], line["bytes"]) == ("mine", 0)
    assert line["route"] == "/api/<uuid:user_id>/tasks/<uuid:id>"


@pytest.mark.django_db(transaction=True)
def test_a_new_connection_is_no_round_trip(api: API, lines: Any) -> None:
    for _ in range(2):
        connection.close()
        api.get(TASKS)
        (line,) = lines()
        assert line["round_trips"] == 1


@pytest.mark.parametrize(
    ("path", "status", "code", "route", "owner"),
    [
        (f"/api/{BOB}/tasks?limit=0", 400, "invalid_parameter", "/api/<uuid:user_id>/tasks", BOB),
        ("/api/alice/tasks", 400, "malformed_id", "/api/<uuid:user_id>/tasks", None),
        ("/api/nothing", 404, "not_found", None, None),
        ("/healthz", 200, None, "/healthz", None),
        ("/admin/", 302, None, "/admin/", None),
    ],
)
def test_a_line_has_the_route_and_never_the_path(
    api: API, lines: Any, path: str, status: int, code: str, route: str, owner: str
) -> None:
    api.get(path, status)
    (line,) = lines()
    assert (line["status"], line["code"], line["route"]) == (status, code, route)
    assert line["owner"] == owner


def test_an_unhandled_error_has_a_line_as_well(
    api: API, lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.client.raise_request_exception = False
    monkeypatch.setattr("tasks.views.TaskViewSet.get_queryset", None)
    api.get(TASKS, 500)
    (line,) = lines()
    assert (line["status"], line["code"]) == (500, "internal_error")
    assert line["request_id"] == api.last.json()["request_id"]


def test_debug_has_a_plain_line(api: API, settings: Any, capfd: pytest.CaptureFixture[str]) -> None:
    settings.DEBUG = True
    api.get(TASKS)
    (line,) = capfd.readouterr().err.splitlines()
    assert "method=GET route=/api/<uuid:user_id>/tasks status=200 " in line


def record(message: str, *args: object, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("test", logging.ERROR, __file__, 1, message, args, None)
    vars(made).update(extra)
    return made


def test_the_line_of_an_error_has_no_values_of_a_row_and_no_extra_attributes() -> None:
    class Violation(Exception):
        pass

    try:
        try:
            raise Violation(
                f"new row violates check\nDETAIL:  Failing row contains ({TITLE}\n\n1)."
            )
        except Violation as error:
            raise RuntimeError(str(error)) from error
    except RuntimeError as error:
        info = (type(error), error, error.__traceback__)
    line = json.loads(JSONFormatter().format(record("failed", exc_info=info, request=TITLE)))
    assert "Violation: new row violates check\n" in line["exc_info"]
    assert line["exc_info"].endswith("RuntimeError: new row violates check")
    assert TITLE not in str(line)
    assert datetime.fromisoformat(line["time"]).utcoffset() == timedelta(0)


def test_a_repeated_message_is_one_line_a_second_with_a_count() -> None:
    logger = logging.getLogger("tests.flood")
    handler = BufferingHandler(10)
    passed = handler.buffer
    logger.addHandler(handler)
    logger.addFilter(OncePerSecondFilter())
    for number in range(5):
        logger.error("away: %s", number)
    logger.error("another")
    assert [each.getMessage() for each in passed] == ["away: 0", "another"]
    assert wait_until(lambda: len(passed) == 3)
    assert passed[2].getMessage() == "away: 4"
    assert vars(passed[2])["count"] == 4
    assert wait_until(lambda: not [t for t in threading.enumerate() if t.name.startswith("log-")])
    logger.error("away: %s", 5)
    assert passed[3].getMessage() == "away: 5"


def parsed(server: LiveServer) -> list[Line]:
    return [json.loads(line) for line in server.log().splitlines()]


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with (
        PostgreSQL() as postgres,
        open_live_server(
            postgres=postgres, AUTH_MODE="jwt", JWT_SECRET=SECRET, WEB_CONCURRENCY="1"
        ) as server,
    ):
        yield server


@pytest.mark.live
def test_no_line_of_the_server_contains_what_a_client_sent(server: LiveServer) -> None:
    token = by_secret()
    key = str(uuid.uuid4())
    before = len(parsed(server))
    sql = f"ALTER TABLE tasks_task ADD CONSTRAINT odd CHECK (description <> '{TITLE}')"
    server.postgres.execute(sql, database=server.database)
    with Client(server) as client:

        def ask(method: str, path: str, body: Any = None, status: int = 200, **more: str) -> Answer:
            headers = {**bearer(token), **more}
            answer = client.ask(method, path, body, headers)
            assert answer.status == status, answer
            return answer

        for _ in range(2):
            ask("POST", TASKS, {"title": TITLE}, 201)
        ask("POST", TASKS, {"title": TITLE}, 201, **{"Idempotency-Key": key})
        ask("POST", TASKS, {"title": TITLE, "description": TITLE}, 500)
        ask("POST", TASKS, {"title": 1, TITLE: TITLE}, 422)
        ask("POST", TASKS, f'{{"{TITLE}'.encode(), 400)
        page = ask("GET", TASKS + "?limit=1&search=nobody&ordering=title")
        link = page.headers["Link"]
        cursor = link.partition("cursor=")[2].partition("&")[0].partition(">")[0]
        ask("GET", link[1 : link.index(">")])
        ask("GET", TASKS, None, 401, Authorization=f"Bearer {token}{key}")
        ask("GET", TASKS.replace(ALICE, BOB), None, 403)
    for raw in (
        f"GET {TASKS}?search=nobody\1 HTTP/1.1",
        f"GET / HTTP/1.1\r\nAuthorization : {token}",
    ):
        with socket.create_connection((HOST, server.port), timeout=60) as wire:
            wire.sendall(f"{raw}\r\n\r\n".encode())
            assert wire.recv(65536).startswith(b"HTTP/1.1 400 ")
    assert len(cursor) > 40
    log = server.log()
    assert "violates check constraint" in log
    for secret in (*token.split("."), TITLE, "nobody", key, cursor, SECRET):
        assert secret not in log
    lines = parsed(server)[before:]
    requests = [line for line in lines if line["logger"] == "access" and line["owner"]]
    assert [line["status"] for line in requests] == [
        201, 201, 201, 500, 422, 400, 200, 200, 401, 403
    ]  # fmt: skip
    assert {line["owner"] for line in requests} == {ALICE}
    assert [line["message"] for line in lines if line["logger"] == "gunicorn.error"] == [
        "Request not served: InvalidRequestLine",
        "Request not served: InvalidHeaderName",
    ]


@pytest.mark.live
def test_an_unavailable_database_is_one_line_a_second(server: LiveServer) -> None:
    server.postgres.stop("immediate")
    before = len(parsed(server))
    began = datetime.now(UTC)
    headers = bearer(by_secret())

    def ask(_: int) -> None:
        with Client(server) as client:
            while datetime.now(UTC) - began < timedelta(seconds=3.5):
                assert client.ask("GET", TASKS, None, headers).status == 503

    at_once(4, ask)
    seconds = (datetime.now(UTC) - began).total_seconds()

    def counted() -> tuple[int, int]:
        """The number of lines about it, and the number of requests that these count."""
        log = [line for line in parsed(server)[before:] if "database" in line.get("message", "")]
        return len(log), sum(line.get("count", 1) for line in log)

    refused = [line for line in parsed(server)[before:] if line["logger"] == "access"]
    assert {line["code"] for line in refused} == {"database_unavailable"}
    assert wait_until(lambda: counted()[1] == len(refused))
    assert 2 <= counted()[0] <= seconds + 2
    server.postgres.start()
    with Client(server) as client:
        assert wait_until(lambda: client.ask("GET", TASKS, None, headers).status == 200)


@pytest.mark.live
def test_access_log_false_leaves_the_other_lines() -> None:
    with open_live_server("sqlite", ACCESS_LOG="false") as server, Client(server) as client:
        client.create()
        assert {line["logger"] for line in parsed(server)} == {"gunicorn.error", "todo_project"}

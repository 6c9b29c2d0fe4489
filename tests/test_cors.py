"""Browser front ends on other origins (the Fetch standard, section 3.2)."""

import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.client import API, BOB, NOBODYS, TASKS
from tests.database_plugin import LiveServer, open_live_server
from tests.issuer import SECRET, bearer, by_secret
from tools.servers import run

ORIGINS = ["https://app.example", "http://localhost:3000"]
TASK = f"{TASKS}/{NOBODYS}"
EXPOSED = {"ETag", "Link", "Location", "RateLimit", "RateLimit-Policy", "Retry-After",
           "X-Request-ID"}  # fmt: skip
SENT = "authorization,content-type,idempotency-key,if-match,if-none-match,x-request-id"


@pytest.fixture(scope="module")
def live() -> Iterator[LiveServer]:
    with open_live_server(
        proxy=True,
        AUTH_MODE="jwt",
        JWT_SECRET=SECRET,
        CORS_ALLOWED_ORIGINS=", ".join(ORIGINS),
        WEB_CONCURRENCY="1",
    ) as server:
        yield server


@pytest.fixture
def client(live: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live.base_url, timeout=60) as client:
        yield client


def preflight(client: httpx.Client, path: str, method: str, origin: str) -> httpx.Response:
    """What a browser sends before a request that is not simple: no token."""
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": SENT,
    }
    return client.options(path, headers=headers)


@pytest.mark.live
@pytest.mark.parametrize("origin", ORIGINS)
def test_a_preflight_of_an_allowed_origin_needs_no_token(client: Any, origin: str) -> None:
    for path, methods in {
        TASKS: ["GET", "POST"],
        TASK: ["GET", "PUT", "PATCH", "DELETE"],
        f"{TASK}/complete": ["PATCH"],
        f"{TASK}/complete/": ["PATCH"],
        "/api/schema": ["GET"],
        "/readyz": ["GET"],
    }.items():
        for method in methods:
            answer = preflight(client, path, method, origin)
            assert answer.status_code == 200
            assert answer.headers["Access-Control-Allow-Origin"] == origin
            assert method in answer.headers["Access-Control-Allow-Methods"].split(", ")
            allowed = answer.headers["Access-Control-Allow-Headers"].split(", ")
            assert set(SENT.split(",")) <= set(allowed)
            assert "origin" in answer.headers["Vary"].lower()
            assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.live
@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "https://app.example.evil.example", "http://app.example",
     "https://app.example:8443", "https://sub.app.example", "*", ""],
)  # fmt: skip
def test_another_origin_gets_no_cors_headers(client: Any, origin: str) -> None:
    headers = {"Origin": origin, **bearer(by_secret())}
    for answer in (preflight(client, TASKS, "GET", origin), client.get(TASKS, headers=headers)):
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert "origin" in answer.headers["Vary"].lower()  # or a cache would mix them up


@pytest.mark.live
def test_an_allowed_origin_reads_answers_and_errors_alike(live: LiveServer, client: Any) -> None:
    good, other = bearer(by_secret()), bearer(by_secret(BOB))

    def status(method: str, path: str, body: Any = None, headers: dict[str, str] = good) -> int:
        answer = client.request(method, path, json=body, headers={"Origin": ORIGINS[0], **headers})
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGINS[0]
        assert set(answer.headers["Access-Control-Expose-Headers"].split(", ")) == EXPOSED
        assert "origin" in answer.headers["Vary"].lower()
        return int(answer.status_code)

    assert status("GET", TASKS) == 200
    assert status("POST", TASKS, {"title": "Buy milk"}) == 201
    assert status("GET", "/healthz", headers={}) == 200
    assert status("GET", "/api/alice/tasks") == 400
    assert status("GET", TASKS, headers={}) == 401
    assert status("GET", TASKS, headers=bearer("garbage")) == 401
    assert status("GET", TASKS, headers=other) == 403
    assert status("GET", TASK) == 404
    assert status("GET", "/nothing") == 404
    assert status("DELETE", TASKS) == 405
    assert status("GET", TASKS, headers={**good, "Accept": "text/csv"}) == 406
    assert status("POST", TASKS, {"title": "x" * 70_000}) == 413
    assert status("POST", TASKS, {"title": ""}) == 422
    assert status("GET", TASKS, headers={**good, "Host": "evil.example"}) == 400
    assert status("GET", "/static/todo_project/docs.js") == 200
    assert status("POST", "/static/todo_project/docs.js") == 405
    assert status("GET", "/admin/?a=%00") == 400
    live.postgres.execute("ALTER TABLE tasks_task RENAME TO away", database=live.database)
    assert status("GET", TASKS) == 500
    live.postgres.execute("ALTER TABLE away RENAME TO tasks_task", database=live.database)
    live.proxy.refuse()
    live.proxy.cut()
    assert status("GET", TASKS) == 503
    live.proxy.accept()


@pytest.mark.live
def test_an_allowed_origin_sees_what_is_refused_before_any_view(live: LiveServer) -> None:
    """Otherwise the browser would report a "network error"."""

    def exchange(method: str, *headers: str, body: bytes = b"") -> tuple[int, Any]:
        lines = [f"{method} {TASKS} HTTP/1.1", f"Origin: {ORIGINS[0]}", "Connection: close"]
        with socket.create_connection(("127.0.0.1", live.port), timeout=60) as peer:
            peer.sendall("\r\n".join([*lines, *headers, "", ""]).encode() + body)
            peer.shutdown(socket.SHUT_WR)
            answer = http.client.HTTPResponse(peer)
            answer.begin()
            problem = json.loads(answer.read() or "{}")
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGINS[0]
        assert "origin" in answer.headers["Vary"].lower()
        assert answer.headers["X-Request-ID"]
        return answer.status, problem.get("code") or answer.headers["Access-Control-Allow-Methods"]

    assert exchange("GET", "Host: evil.example") == (400, "invalid_host")
    for body in ("Content-Length: 9", "Transfer-Encoding: chunked"):
        assert exchange("POST", "Host: localhost", body, body=b"{") == (400, "incomplete_body")
    preflight = "Access-Control-Request-Method: GET"
    status, methods = exchange("OPTIONS", "Host: evil.example", preflight)
    assert (status, "GET" in methods) == (200, True)


def test_without_the_setting_no_origin_is_allowed(api: API) -> None:
    api.get(TASKS, headers={"Origin": ORIGINS[0]})
    assert not [name for name in api.last.headers if name.startswith("Access-Control-")]


@pytest.mark.live
@pytest.mark.parametrize(
    "value",
    ["*", "https://*.example", "null", "app.example", "https://app.example/",
     "https://app.example/path", "https://me@app.example", "https://a.example *"],
)  # fmt: skip
def test_a_malformed_origin_prevents_the_start(value: str) -> None:
    origins = f"https://good.example,{value}"
    url = "sqlite:///x"
    done = run("-c", "import todo_project.settings", DATABASE_URL=url, CORS_ALLOWED_ORIGINS=origins)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"Configuration error: CORS_ALLOWED_ORIGINS {value!r} is not an origin such as "
        "https://example.com\n"
    )

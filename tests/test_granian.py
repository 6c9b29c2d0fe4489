"""The application is plain WSGI: granian serves it as well as gunicorn does."""

import re
import sys
from collections.abc import Iterator

import pytest

from tests.client import ALICE, TASKS
from tests.database_plugin import LiveServer, open_live_server
from tests.live import Client
from tools.servers import HOST, PROJECT_ROOT, Gunicorn

pytestmark = pytest.mark.live


class Granian(Gunicorn):
    """As in docs/performance.md."""

    def start(self) -> None:
        command = [sys.executable, "-m", "granian", "--interface=wsgi", "--http=1", "--no-ws"]
        command += ["--workers=1", "--blocking-threads=4", f"--host={HOST}", f"--port={self.port}"]
        command += ["--respawn-failed-workers", "todo_project.wsgi:application"]
        self._spawn(command, self._is_healthy, self.environment, PROJECT_ROOT)


@pytest.fixture(scope="module")
def database() -> Iterator[LiveServer]:
    with open_live_server(WEB_CONCURRENCY="1") as live:
        yield live


@pytest.fixture
def server(database: LiveServer) -> Iterator[Granian]:
    with Granian(database.environment) as server:
        yield server


@pytest.fixture
def client(server: Granian) -> Iterator[Client]:
    with Client(server) as client:
        yield client


def test_the_contract_holds_under_granian(client: Client, server: Granian) -> None:
    task = client.create()
    path = f"{TASKS}/{task['id']}"
    answer = client.ask("GET", path)
    assert (answer.status, answer.json()) == (200, task)
    assert answer.headers["ETag"]
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-ID"])
    head = client.ask("HEAD", path)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == answer.headers["Content-Length"]
    assert client.ask("GET", path, headers={"If-None-Match": answer.headers["ETag"]}).status == 304
    assert client.ask("GET", f"{TASKS}/").json()[0] == task
    # A body in chunks sets the value; only no body at all toggles it.
    for _ in range(2):
        chunked = client.ask("PATCH", f"{path}/complete", iter([b'{"is_completed"', b": true}"]))
        assert (chunked.status, chunked.json()["is_completed"]) == (200, True)
    assert client.ask("PATCH", f"{path}/complete").json()["is_completed"] is False
    large = b'{"title": "%b"}' % (b"x" * 1_000_000)
    for body in (large, iter([large])):
        answer = client.ask("POST", TASKS, body)
        assert (answer.status, answer.code) == (413, "content_too_large")
    answer = client.ask("POST", TASKS, b"{")
    assert (answer.status, answer.code) == (400, "parse_error")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert client.ask("GET", "/api/nowhere").code == "not_found"
    assert client.ask("GET", "/api/schema").status == 200
    assert client.ask("DELETE", path).status == 204
    assert client.ask("GET", f"/api/{ALICE}/tasks/{task['id']}").status == 404
    assert "Traceback" not in server.log()


def test_granian_ends_on_sigterm(server: Granian) -> None:
    with Client(server) as client:
        client.create()
    assert server.stop() == 0

"""Clients that take their time: what each can cost the service, and for how long.

With a tenth of the time that the service has for them; tests/test_gunicorn_worker.py has more.
"""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import psutil
import pytest

from tests.client import ALICE
from tests.database_plugin import LiveServer, open_live_server
from tools.servers import HOST, wait_until

pytestmark = pytest.mark.live

HEAD = f"POST /api/{ALICE}/tasks HTTP/1.1\r\nHost: localhost\r\n".encode()
JSON = b"Content-Type: application/json\r\n"
BUNDLE = b"/static/drf_spectacular_sidecar/swagger-ui-dist/swagger-ui-bundle.js"

# What a client sends before it falls silent, and reads nothing.
WITHOUT_THREAD = {
    "before a request": b"",
    "in the request line": b"GET /hea",
    "in the headers": HEAD + b"X-Slow: ",
}
WITH_THREAD = {
    "in the body": HEAD + JSON + b'Content-Length: 100\r\n\r\n{"title":',
    "in a chunk": HEAD + JSON + b'Transfer-Encoding: chunked\r\n\r\n20\r\n{"title":',
    # 30 MB: more than the buffers of both ends hold.
    "in reading": b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % BUNDLE * 20,
}

Connect = Callable[[bytes], socket.socket]


@pytest.fixture(scope="module")
def live() -> Iterator[LiveServer]:
    with open_live_server(
        vendor="sqlite",
        WEB_CONCURRENCY="1",
        WEB_THREADS=str(len(WITH_THREAD)),
        GUNICORN_CMD_ARGS="--worker-class=tests.wsgi_app.ShortTimeouts",
    ) as live:
        yield live
        assert "Traceback" not in live.log()


@pytest.fixture
def connect(live: LiveServer) -> Iterator[Connect]:
    with ExitStack() as stack:

        def connect(data: bytes) -> socket.socket:
            client = stack.enter_context(socket.socket())
            client.settimeout(30)
            client.connect((HOST, live.port))
            client.sendall(data)
            return client

        yield connect


def seconds_of_a_healthy_client(connect: Connect) -> float:
    began = time.perf_counter()
    client = connect(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.recv(100).startswith(b"HTTP/1.1 200 ")
    return time.perf_counter() - began


def test_stalled_clients_free_their_threads(live: LiveServer, connect: Connect) -> None:
    stalled = {name: connect(data) for name, data in WITH_THREAD.items()}
    # Until all threads are held: then it takes as long as the first client is waited for.
    assert wait_until(lambda: seconds_of_a_healthy_client(connect) > 0.3, 5)
    for name in ("in the body", "in a chunk"):
        answer = stalled[name].recv(4096)
        assert answer.startswith(b"HTTP/1.1 400 "), name
        assert b'"incomplete_body"' in answer
        assert stalled[name].recv(4096) == b""
    [worker] = live.worker_pids()
    reader = stalled["in reading"].getsockname()

    def is_given_up() -> bool:
        peers = [connection.raddr for connection in psutil.Process(worker).net_connections("tcp")]
        return reader not in peers

    assert wait_until(is_given_up, 20)
    assert seconds_of_a_healthy_client(connect) < 0.3


def test_clients_that_have_sent_no_whole_headers_cost_no_thread(connect: Connect) -> None:
    silent = [connect(data) for data in WITHOUT_THREAD.values() for _ in range(20)]
    assert seconds_of_a_healthy_client(connect) < 0.8
    silent[0].sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")  # and may speak later
    assert silent[0].recv(100).startswith(b"HTTP/1.1 200 ")
    assert silent[-1].recv(4096) == b""  # or are hung up on


def test_a_client_that_does_not_hang_up_holds_up_nobody(connect: Connect) -> None:
    """After a last answer, and after a refusal of gunicorn's own."""
    for request in (b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"?\r\n\r\n"):
        for client in [connect(request) for _ in range(20)]:
            assert client.recv(1000).startswith(b"HTTP/1.1 ")
    assert seconds_of_a_healthy_client(connect) < 5


def test_a_kept_connection_costs_no_thread(connect: Connect) -> None:
    for _ in range(4 * len(WITH_THREAD)):
        assert seconds_of_a_healthy_client(connect) < 5

"""Clients that stall: how long each can hold a thread of the service.

The timeouts are a tenth of production's; tests/test_gunicorn_worker.py has the other slow clients.
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

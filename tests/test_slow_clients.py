"""Clients that stall while a thread serves them do not hold it for long.

The timeouts are shorter than in production; tests/test_gunicorn_worker.py has other slow clients.
"""

import socket
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

# What a client sends before it stalls. It reads nothing.
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


def test_stalled_clients_free_their_threads(live: LiveServer, connect: Connect) -> None:
    stalled = {name: connect(data) for name, data in WITH_THREAD.items()}
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

    assert wait_until(is_given_up)
    healthy = connect(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert healthy.recv(100).startswith(b"HTTP/1.1 200 ")

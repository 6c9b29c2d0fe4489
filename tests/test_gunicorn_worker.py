"""The worker class, with a small application: HTTP, slow clients, signals and limits."""

import errno
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from tools.servers import CLEAN_ENVIRONMENT, HOST, PROJECT_ROOT, Gunicorn, is_gone, wait_until

pytestmark = pytest.mark.live

THREADS = 3
WORKER = "todo_project.worker.Worker"
SHORT_TIMEOUTS = "tests.wsgi_app.ShortTimeouts"  # two seconds instead of ten


class Small(Gunicorn):
    """gunicorn with this worker and the small application, by default in one process.

    Idle connections are kept, and requests finished, for longer than a test waits.
    """

    def __init__(self, *options: str, worker: str = WORKER, workers: int = 1) -> None:
        super().__init__({"PYTHONPATH": str(PROJECT_ROOT), "WEB_CONCURRENCY": str(workers)})
        self.options = [f"--worker-class={worker}", f"--threads={THREADS}", "--no-control-socket"]
        self.options += [f"--bind={HOST}:{self.port}", "--log-level=debug"]
        self.options += ["--keep-alive=120", "--graceful-timeout=120", *options]

    def start(self) -> None:
        # Not in the project's folder, where gunicorn.conf.py would be read.
        command = [sys.executable, "-m", "gunicorn", *self.options, "tests.wsgi_app:application"]
        self._spawn(command, self._is_healthy, self.environment)

    def connections(self) -> int:
        """The number of connections that its workers hold."""
        processes = map(psutil.Process, self.worker_pids())
        found = [c for p in processes for c in p.net_connections("tcp") if c.raddr]
        return len(found)


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def closes(self) -> bool:
        return self.headers["Connection"] == "close"


class Peer:
    """A client's connection, byte by byte."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection((HOST, port), timeout=60)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.sock.makefile("rb")

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def read(self, method: str = "GET") -> Answer:
        status = int(self.file.readline().split()[1])
        headers = http.client.parse_headers(self.file)
        body = b""
        if headers["Transfer-Encoding"] == "chunked":
            while size := int(self.file.readline(), 16):
                body += self.file.read(size)
                self.file.readline()
            self.file.readline()
        elif method != "HEAD":
            body = self.file.read(int(headers["Content-Length"] or 0))
        return Answer(status, headers, body)

    def ask(self, path: str, headers: str = "") -> Answer:
        self.send(get(path, headers))
        return self.read()

    def at_end(self) -> bool:
        """Wait for the server to close the connection; False when it says something first."""
        try:
            return self.file.read(1) == b""
        except ConnectionResetError:
            return True


def get(path: str, headers: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode()


def post(path: str, body: bytes, length: int | None = None) -> bytes:
    length = len(body) if length is None else length
    return b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (
        path.encode(),
        length,
        body,
    )


Connect = Callable[..., Peer]


@pytest.fixture(scope="module")
def server() -> Iterator[Small]:
    """A server for the tests that do not end it."""
    with Small() as server:
        yield server
        assert "Traceback" not in server.log()


@pytest.fixture(scope="module")
def impatient() -> Iterator[Small]:
    """The same with short timeouts."""
    with Small(worker=SHORT_TIMEOUTS) as server:
        yield server
        assert "Traceback" not in server.log()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def connect(server: Small, stack: ExitStack) -> Connect:
    def connect(data: bytes = b"", to: Small = server) -> Peer:
        peer = Peer(to.port)
        stack.callback(peer.sock.close)
        stack.callback(peer.file.close)
        peer.send(data)
        return peer

    return connect


@pytest.fixture
def start(stack: ExitStack) -> Callable[..., Small]:
    """Start a server that the test may end."""
    return lambda *options, **arguments: stack.enter_context(Small(*options, **arguments))


# HTTP -----------------------------------------------------------------------------------------


def test_a_connection_is_kept_for_the_next_request(connect: Connect) -> None:
    peer = connect()
    for _ in range(3):
        answer = peer.ask("/")
        assert (answer.status, answer.body, answer.closes) == (200, b"ok", False)
    assert peer.ask("/", "Connection: close\r\n").closes
    assert peer.at_end()


def test_http_1_0_is_closed_unless_it_asks_otherwise(connect: Connect) -> None:
    peer = connect(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert not peer.read().closes
    peer.send(b"GET /parts HTTP/1.0\r\n\r\n")
    answer = peer.read()
    assert answer.closes
    assert "Transfer-Encoding" not in answer.headers
    assert peer.file.read() == b"onetwo"


def test_requests_sent_at_once_are_answered_in_order(connect: Connect) -> None:
    peer = connect(get("/") + post("/echo", b"12345") + get("/parts") + get("/echo")[:30])
    assert [peer.read().body for _ in range(3)] == [b"ok", b"POST 5!", b"onetwo"]
    peer.send(get("/echo")[30:])
    assert peer.read().body == b"GET 0!"


def test_requests_may_come_in_any_pieces(connect: Connect) -> None:
    chunked = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    data = post("/echo", b"12345") + chunked + b"3\r\nabc\r\n0\r\n\r\n" + get("/")
    peer = connect()
    for byte in data:
        peer.send(bytes([byte]))
        time.sleep(0.0005)
    assert [peer.read().body for _ in range(3)] == [b"POST 5!", b"POST 3!", b"ok"]


def test_headers_and_body_leave_in_one_segment(connect: Connect) -> None:
    peer = connect()
    for asked, (path, length) in enumerate([("/", 2), ("/large?5000", 5000), ("/empty", 0)], 1):
        assert len(peer.ask(path).body) == length
        tcp_info = peer.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160)
        data_segments_in = int.from_bytes(tcp_info[152:156], sys.byteorder)  # linux/tcp.h
        assert data_segments_in == asked


def test_responses_are_valid_http(connect: Connect, server: Small) -> None:
    peer = connect()
    file = server.folder / "file"
    file.write_bytes(os.urandom(3_000_000))
    assert peer.ask(f"/file?{file}").body == file.read_bytes()
    file.write_bytes(b"")
    assert peer.ask(f"/file?{file}").body == b""
    assert peer.ask("/large?3000000").body == b"x" * 3_000_000
    for path in ("/", "/parts", "/large?1000"):
        peer.send(get(path).replace(b"GET", b"HEAD"))
        assert peer.read("HEAD").body == b""
    answer = peer.ask("/empty")
    assert (answer.status, answer.body) == (204, b"")
    assert "Content-Length" not in answer.headers
    assert answer.headers["Date"]
    peer.send(post("/echo", b"", 2).replace(b"Host", b"Expect: 100-continue\r\nHost"))
    assert peer.read().status == 100
    peer.send(b"ab")
    assert peer.read().body == b"POST 2!"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"?\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", 400),
        (b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * 9000), 414),
        (b"GET / HTTP/1.1\r\nX: %b\r\n\r\n" % (b"a" * 9000), 431),
        # 501 in gunicorn's own parser (RFC 9112 section 6.1).
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: x\r\n\r\n",
            400 if find_spec("gunicorn_h1c") else 501,
        ),
    ],
)
def test_malformed_http_is_refused(connect: Connect, request_: bytes, status: int) -> None:
    peer = connect(request_)
    answer = peer.read()
    assert (answer.status, answer.closes) == (status, True)
    assert peer.at_end()


def test_a_small_body_left_unread_does_not_become_the_next_request(connect: Connect) -> None:
    peer = connect(post("/", get("/echo")) + get("/process"))
    assert peer.read().body == b"ok"
    assert peer.read().body.isdigit()


def test_a_large_body_left_unread_closes_the_connection(connect: Connect) -> None:
    peer = connect(post("/", b"x" * 200_000))
    answer = peer.read()
    assert (answer.status, answer.closes) == (200, True)
    assert peer.at_end()


def test_a_malformed_body_left_unread_gets_no_second_answer(connect: Connect) -> None:
    peer = connect(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n?\r\n\r\n")
    assert peer.read().body == b"ok"
    assert peer.at_end()


def test_a_client_that_still_sends_gets_its_answer(connect: Connect) -> None:
    """A close with unread data resets the connection, and the client may lose the answer."""
    peer = connect(post("/", b"x" * 300_000, 1_000_000))
    peer.send(b"x" * 200_000)
    assert peer.read().body == b"ok"
    assert peer.at_end()


# Slow clients -----------------------------------------------------------------------------------


def test_silent_slow_and_kept_connections_hold_no_thread(connect: Connect) -> None:
    silent = [connect(data) for data in (b"", b"G", get("/")[:-2]) for _ in range(THREADS * 5)]
    for _ in range(THREADS * 5):
        assert connect(get("/")).read().body == b"ok"
    silent[0].send(get("/"))
    assert silent[0].read().body == b"ok"
    silent[-1].send(b"\r\n")
    assert silent[-1].read().body == b"ok"


def is_answered_or_closed(peer: Peer) -> bool:
    """Whether the server stops waiting for a client that goes on sending a byte now and then."""
    peer.sock.settimeout(0.2)
    try:
        for _ in range(150):
            peer.send(b"x")
            with suppress(TimeoutError):
                peer.sock.recv(1000)
                return True
    except ConnectionError:
        return True
    return False


@pytest.mark.parametrize(
    "data",
    [b"GET /", get("/")[:-2] + b"X: ", post("/echo", b"", 10_000)],
    ids=["request line", "headers", "body"],
)
def test_a_client_that_sends_a_byte_now_and_then_is_cut_off(
    connect: Connect, impatient: Small, data: bytes
) -> None:
    assert is_answered_or_closed(connect(data, to=impatient))


def test_a_body_may_take_longer_than_a_client_may_pause(connect: Connect, impatient: Small) -> None:
    peer = connect(post("/echo", b"", 12_000), to=impatient)
    for _ in range(12):
        peer.send(b"x" * 1000)
        time.sleep(0.25)
    assert peer.read().body == b"POST 12000!"


def test_what_follows_an_incomplete_body_is_not_a_request(
    connect: Connect, impatient: Small
) -> None:
    """A proxy may send the rest later, on a connection that it uses for others as well."""
    peer = connect(post("/echo", b"x", 1000), to=impatient)
    answer = peer.read()
    assert (answer.body, answer.closes) == (b"POST 1!", True)
    with suppress(ConnectionError):
        peer.send(get("/echo"))
    assert peer.at_end()


def test_a_client_that_does_not_read_frees_its_thread(
    connect: Connect, start: Callable[..., Small]
) -> None:
    server = start(worker=SHORT_TIMEOUTS)
    for peer in [connect(get("/large?20000000"), to=server) for _ in range(THREADS)]:
        assert peer.sock.recv(1)  # its thread now waits for the rest to be read
    assert connect(get("/"), to=server).read().body == b"ok"
    assert wait_until(lambda: server.connections() <= 1)


def test_a_client_that_disconnects_leaves_no_trace(connect: Connect) -> None:
    for data in (b"", b"GET", post("/echo", b"x", 10), get("/"), get("/large?9000000"), get("/x")):
        for linger in (0, 1):  # with a reset, and with a proper end
            peer = connect(data)
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1 - linger, *[0] * 7]))
            peer.file.close()
            peer.sock.close()
    assert connect(get("/")).read().body == b"ok"


def test_a_connection_that_the_client_does_not_close_is_closed(
    connect: Connect, server: Small
) -> None:
    closed = get("/", "Connection: close\r\n")
    peers = [connect(data) for data in (closed, b"?\r\n\r\n") for _ in range(THREADS * 5)]
    for peer in peers:
        peer.read()
    assert connect(get("/")).read().body == b"ok"
    assert wait_until(lambda: server.connections() <= 1)


def test_idle_connections_are_closed_in_time(start: Callable[..., Small], connect: Connect) -> None:
    server = start("--keep-alive=1", worker=SHORT_TIMEOUTS)
    used, unused, half = (connect(data, to=server) for data in (get("/"), b"", get("/")[:-2]))
    assert used.read().body == b"ok"
    for peer in (used, unused, half):
        assert peer.at_end()


# The application --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/error", "/exit"])
def test_an_exception_of_the_application_is_a_500(
    start: Callable[..., Small], connect: Connect, path: str
) -> None:
    server = start()
    peers = [connect(get(path), to=server) for _ in range(THREADS + 1)]
    for peer in peers:
        answer = peer.read()
        assert (answer.status, answer.closes) == (500, True)
        assert b"application" not in answer.body
    assert connect(get("/"), to=server).read().body == b"ok"
    assert f"Error handling request GET {path}" in server.log()


@pytest.mark.parametrize("path", ["/late-error", "/late-exit"])
def test_a_response_that_fails_half_way_is_cut_off(
    start: Callable[..., Small], connect: Connect, path: str
) -> None:
    server = start()
    peers = [connect(get(path), to=server) for _ in range(THREADS + 1)]
    for peer in peers:
        assert peer.file.read().endswith(b"so far")
    assert connect(get("/"), to=server).read().body == b"ok"
    assert "Error handling request" in server.log()


# gunicorn ---------------------------------------------------------------------------------------


def test_sigterm_does_not_wait_for_open_connections(
    start: Callable[..., Small], connect: Connect
) -> None:
    server = start(workers=2)
    kept, lingering = connect(get("/"), to=server), connect(b"?\r\n\r\n", to=server)
    kept.read()
    lingering.read()
    for data in (b"", b"GET / HT", get("/")[:-2], post("/echo", b"x", 10)):
        connect(data, to=server)
    assert wait_until(lambda: server.connections() >= 5)
    server.stop()
    assert kept.at_end()


def test_a_request_in_flight_is_finished_and_nothing_else_accepted(
    start: Callable[..., Small], connect: Connect
) -> None:
    server = start()
    go = server.folder / "go"
    [worker] = map(psutil.Process, server.worker_pids())
    kept = connect(get("/"), to=server)
    assert not kept.read().closes
    held = connect(get(f"/hold?{go}"), to=server)
    assert wait_until(lambda: held_by_a_thread(server))
    os.kill(server.pid, signal.SIGTERM)
    # Without a pause: a kept connection is closed a second after the signal.
    while not kept.ask("/").closes:
        time.sleep(0.01)
    assert kept.at_end()

    def refuses() -> bool:
        with socket.socket() as client:  # reset instead, if it connects just before the end
            return client.connect_ex((HOST, server.port)) == errno.ECONNREFUSED

    assert wait_until(refuses)
    go.touch()
    answer = held.read()
    assert (answer.body, answer.closes) == (b"ok", True)
    assert wait_until(lambda: is_gone(worker))


def held_by_a_thread(server: Small) -> bool:
    return "GET /hold" in server.log()


def test_shutdown_waits_for_a_request_no_longer_than_the_graceful_timeout(
    start: Callable[..., Small], connect: Connect
) -> None:
    server = start("--graceful-timeout=1")
    connect(get("/hold?/nowhere"), to=server)
    assert wait_until(lambda: held_by_a_thread(server))
    server.stop()


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGQUIT])
def test_a_quick_shutdown_does_not_wait_for_a_request(
    start: Callable[..., Small], connect: Connect, sig: signal.Signals
) -> None:
    server = start()
    connect(get("/hold?/nowhere"), to=server)
    assert wait_until(lambda: held_by_a_thread(server))
    server.stop(sig)


def test_a_reload_closes_kept_connections(start: Callable[..., Small], connect: Connect) -> None:
    server = start()
    kept, idle = connect(get("/process"), to=server), connect(get("/"), to=server)
    before = kept.read()
    assert not before.closes
    idle.read()
    os.kill(server.pid, signal.SIGHUP)
    while not (answer := kept.ask("/process")).closes:
        assert answer.body == before.body
        time.sleep(0.01)
    assert kept.at_end()
    assert idle.at_end()
    assert connect(get("/process"), to=server).read().body != before.body


def test_a_worker_is_replaced_after_max_requests(
    start: Callable[..., Small], connect: Connect
) -> None:
    server = start("--max-requests=3")
    processes: list[bytes] = []
    while len(set(processes)) < 3:
        peer = connect(to=server)
        answers = [peer.ask("/process")]
        while not answers[-1].closes:
            answers.append(peer.ask("/process"))
        assert peer.at_end()
        assert len(answers) <= 3
        assert len({answer.body for answer in answers}) == 1
        processes.append(answers[0].body)


def test_connections_are_limited(start: Callable[..., Small], connect: Connect) -> None:
    limit = 10
    server = start(f"--worker-connections={limit}")
    for _ in range(limit):
        connect(to=server)
    assert wait_until(lambda: server.connections() == limit)
    # Silent connections are closed to make room, so every client is served.
    peers = [connect(to=server) for _ in range(2 * limit)]
    for peer in peers:
        peer.send(get("/"))
    for peer in peers:
        assert peer.read().body == b"ok"
        assert server.connections() <= limit


def test_a_worker_ends_when_its_master_is_gone(start: Callable[..., Small]) -> None:
    server = start()
    [worker] = map(psutil.Process, server.worker_pids())
    os.kill(server.pid, signal.SIGKILL)
    assert wait_until(lambda: is_gone(worker))


def test_access_log_and_unix_sockets_work(start: Callable[..., Small], connect: Connect) -> None:
    server = Small("--access-logfile=-")
    path = server.folder / "socket"
    server.options.append(f"--bind=unix:{path}")
    with server, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(get("/large?7"))
        assert client.recv(1000).endswith(b"x" * 7)
        assert wait_until(lambda: '"GET /large?7 HTTP/1.1" 200 7' in server.log())


def test_the_proxy_protocol_works(start: Callable[..., Small], connect: Connect) -> None:
    server = Small("--proxy-protocol=v1")
    server._is_healthy = lambda: "Booting worker" in server.log()  # type: ignore[method-assign]
    with server:
        peer = connect(b"PROXY TCP4 192.0.2.1", to=server)
        time.sleep(0.1)
        peer.send(b" 127.0.0.1 1000 80\r\n" + get("/client"))
        assert peer.read().body == b"192.0.2.1"


@pytest.mark.parametrize("option", ["--certfile=x", "--protocol=uwsgi", "--keyfile=x"])
def test_unsupported_options_are_refused_at_the_start(option: str, tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    done = subprocess.run(
        [sys.executable, "-m", "gunicorn", f"-k{WORKER}", "-b127.0.0.1:0", option, "x:y"],
        env={**CLEAN_ENVIRONMENT, "PYTHONPATH": str(PROJECT_ROOT)},
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "Error: todo_project.worker serves plain HTTP/1.1" in done.stderr
    assert "Traceback" not in done.stderr

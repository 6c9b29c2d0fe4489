"""The requests that are measured, and a client that uses little CPU time."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jwt

from benchmarks import data


class Request(NamedTuple):
    method: str
    path: str
    body: bytes = b""


class Response(NamedTuple):
    status: int
    headers: bytes
    body: bytes


ROUTES = ("get", "list", "post", "put", "patch", "toggle", "delete")
STATUSES = {"post": 201, "delete": 204}


def request(route: str, user: int, task: int, n: int = 0) -> Request:
    """The request to a route for this user's task; another `n` writes other values."""
    tasks = f"/api/{data.user_id(user)}/tasks"
    path = f"{tasks}/{data.task_id(task)}"
    match route:
        case "get":
            return Request("GET", path)
        case "list":
            return Request("GET", tasks)
        case "post":
            return Request("POST", tasks, _body(n))
        case "put":
            return Request("PUT", path, _body(n))
        case "patch":
            return Request("PATCH", path, b'{"title": "Title %d"}' % n)
        case "toggle":
            return Request("PATCH", f"{path}/complete")
        case "delete":
            return Request("DELETE", path)
    raise ValueError(route)


def _body(n: int) -> bytes:
    return json.dumps(
        {"title": f"Title {n}", "description": f"A description {n}", "is_completed": n % 2 == 0}
    ).encode()


def token(user: int) -> str:
    claims = {"sub": str(data.user_id(user)), "exp": int(time.time()) + 3600}
    return jwt.encode(claims, data.JWT_SECRET, algorithm="HS256")


def encode(request: Request, headers: str = "") -> bytes:
    """The request as HTTP/1.1; `headers` are whole lines."""
    method, path, body = request
    if body:
        headers += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n{headers}\r\n".encode()
        + body
    )


class Client:
    """One keep-alive connection, opened again when the server has closed it."""

    def __init__(self, port: int, headers: str = "") -> None:
        self.port = port
        self.headers = headers
        self._socket: socket.socket | None = None

    def send(self, request: Request) -> Response:
        message = encode(request, self.headers)
        try:
            return self._exchange(message)
        except ConnectionError:
            # The server closed the idle connection: a client sends the request again.
            self._socket = None
            return self._exchange(message)

    def get(self, path: str) -> Response:
        return self.send(Request("GET", path))

    def seconds(self, request: Request, status: int) -> float:
        """Seconds that the request takes; RuntimeError if the answer has another status."""
        start = time.perf_counter()
        response = self.send(request)
        taken = time.perf_counter() - start
        if response.status != status:
            raise RuntimeError(f"{request.method} {request.path}: {response}")
        return taken

    def _exchange(self, message: bytes) -> Response:
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self.port), timeout=30)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(message)
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._receive()
        head, _, body = received.partition(b"\r\n\r\n")
        status = int(head[9:12])
        lower = head.lower()
        if status not in (204, 304):
            # All these servers send Content-Length; without it int() raises ValueError.
            left = int(lower.split(b"\r\ncontent-length:", 1)[1].split(b"\r\n")[0]) - len(body)
            parts = [body]
            while left > 0:
                parts.append(self._receive())
                left -= len(parts[-1])
            body = b"".join(parts)
        if b"\r\nconnection: close" in lower:
            self._socket = None
        return Response(status, head, body)

    def _receive(self) -> bytes:
        assert self._socket
        if received := self._socket.recv(262144):
            return received
        raise ConnectionResetError("closed by the server")


def send_all(clients: Sequence[Client], requests: Iterable[Request], status: int) -> None:
    """Send the requests, each client in a thread of its own; RuntimeError for another status."""
    todo = list(requests)
    step = len(clients)

    def work(number: int) -> None:
        for request in todo[number::step]:
            clients[number].seconds(request, status)

    with ThreadPoolExecutor(step) as pool:
        for _ in pool.map(work, range(step)):
            pass

"""A small WSGI application for the tests of the worker, and the worker with short timeouts."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import unquote

from todo_project.worker import Worker


class ShortTimeouts(Worker):
    stall = 2


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The path names a behaviour, the query string is its argument."""
    method, argument = environ["REQUEST_METHOD"], unquote(environ["QUERY_STRING"])
    length: int | None = None
    body: Iterable[bytes] = [b"ok"]
    match environ["PATH_INFO"]:
        case "/echo":
            data = environ["wsgi.input"].read()
            body = [b"%b %d" % (method.encode(), len(data)), b"!"]
        case "/process":
            body = [b"%d" % os.getpid()]
        case "/client":
            body = [environ["REMOTE_ADDR"].encode()]
        case "/hold":  # until there is such a file
            while not os.path.exists(argument):
                time.sleep(0.01)
        case "/large":
            body = [b"x" * int(argument)]
        case "/parts":
            start_response("200 OK", [])
            return [b"one", b"", b"two"]
        case "/empty":
            start_response("204 No Content", [])
            return []
        case "/file":
            file = open(argument, "rb")  # noqa: SIM115  # closed by the worker
            length = os.path.getsize(argument)
            body = environ["wsgi.file_wrapper"](file)
        case "/error":
            raise RuntimeError("of the application")
        case "/exit":
            raise SystemExit
        case "/late-error":
            body, length = broken(), 100
        case "/late-exit":
            body, length = broken(SystemExit), 100
    if length is None:
        length = sum(map(len, body))
    start_response("200 OK", [("Content-Length", str(length)), ("Server", "hidden")])
    return body


def broken(error: type[BaseException] = RuntimeError) -> Iterator[bytes]:
    yield b"so far"
    raise error

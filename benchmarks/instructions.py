"""Instructions per request in process, counted by callgrind: use these for optimization.

    python -m benchmarks.instructions                      every route of the service
    python -m benchmarks.instructions get put              these routes
    python -m benchmarks.instructions --peers              beside default DRF and FastAPI
    python -m benchmarks.instructions --profile get        where the time goes, by cProfile
    python -m benchmarks.instructions --keep DIR get       leave callgrind's files there

The application object is called directly, on a real PostgreSQL. Each route is warmed by 10
requests, then 30 are counted, in one run of Python for all routes. Counts do not depend on other
work on the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import importlib
import io
import os
import pstats
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import uvloop

from benchmarks import clients, data, report
from benchmarks.clients import Request

WARM, COUNTED = 10, 30
PROFILED = 2000
LISTED = 100

# Thousands per request: must, aim.
LIMITS = {
    "get": (1300, 1100),
    "list": (2800, 2400),
    "post": (1500, 1250),
    "put": (1430, 1200),
    "toggle": (1350, 1100),
}

APPLICATIONS = {
    "service": "todo_project.wsgi:application",
    "with HS256": "todo_project.wsgi:application",
    "with RATE_LIMIT": "todo_project.wsgi:application",
    "with ACCESS_LOG": "todo_project.wsgi:application",
    "with metrics": "todo_project.wsgi:application",
    "default DRF": "benchmarks.peer_drf:application",
    "FastAPI": "benchmarks.peer_fastapi:app",
}


VARIANTS = ("with HS256", "with RATE_LIMIT", "with ACCESS_LOG", "with metrics")
"""The service with other settings, compared by one route."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions")
    parser.add_argument("routes", nargs="*", metavar="route", help=" ".join(clients.ROUTES))
    parser.add_argument("--peers", action="store_true", help="default DRF and FastAPI as well")
    parser.add_argument("--profile", action="store_true", help="cProfile instead of callgrind")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="for callgrind_annotate")
    parser.add_argument("--inside", choices=APPLICATIONS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if unknown := set(options.routes) - set(clients.ROUTES):
        parser.error(f"no such route: {', '.join(sorted(unknown))}")
    routes = options.routes or clients.ROUTES
    if options.inside:
        _inside(options.inside, routes, profile=options.profile)
        return
    with data.databases() as databases:
        url = databases.empty()
        if options.profile:
            _fill(url, data.SERVICE_TABLE)
            subprocess.run(_command("service", [*routes, "--profile"]), check=True, **_place(url))
        else:
            compare(url, routes, peers=options.peers, keep=options.keep)


def compare(url: str, routes: Sequence[str], *, peers: bool, keep: Path | None = None) -> None:
    """Count and print one table. The database's tables must exist; their content is replaced."""
    names = ["service", *VARIANTS] if "get" in routes else ["service"]
    if peers:
        names += ["default DRF", "FastAPI"]
    counts = {}
    for name in names:
        _fill(url, data.PEER_TABLE if name in ("default DRF", "FastAPI") else data.SERVICE_TABLE)
        counts[name] = _count(url, name, ["get"] if name in VARIANTS else routes, keep)

    def row(route: str) -> list[report.Cell]:
        must, aim = LIMITS.get(route, (None, None))
        cells = [counts[name].get(route) for name in names]
        return [route, must, aim, report.at_most(cells[0], must, aim), *cells]

    title = "Instructions per request in process, thousands"
    report.table(title, ["route", "must", "aim", "", *names], map(row, routes))


def _fill(url: str, table: str) -> None:
    """Insert the tasks: user 0 has those to list, user 1 those to read and write."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"TRUNCATE {table}")
    data.load(url, range(LISTED), range(1), table)
    data.load(url, range(LISTED, LISTED + 2 * PROFILED), range(1, 2), table)


def _command(name: str, arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "benchmarks.instructions", "--inside", name, *arguments]


def _place(url: str, name: str = "service") -> dict[str, Any]:
    environment = data.environment(url, token=name == "with HS256")
    if name == "with RATE_LIMIT":
        environment["RATE_LIMIT"] = "1000000/minute"
    if name == "with ACCESS_LOG":
        environment["ACCESS_LOG"] = "true"
    if name == "with metrics":
        environment["METRICS_PORT"] = "9000"  # a port without a listener
    return {"cwd": data.ROOT, "env": environment}


def _count(url: str, name: str, routes: Sequence[str], keep: Path | None) -> dict[str, int]:
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        sys.exit("instructions: valgrind is not installed (Debian: apt-get install valgrind)")
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        done = subprocess.run(
            [
                valgrind,
                "--tool=callgrind",
                f"--callgrind-out-file={directory}/out",
                "--dump-before=getppid*",
                *_command(name, routes),
            ],
            capture_output=True,
            text=True,
            check=False,
            **_place(url, name),
        )
        if done.returncode:
            print(f"{name} failed:\n{done.stdout}{done.stderr[-4000:]}", file=sys.stderr)
            return {}
        # Parts are numbered from 1: a warm-up, then the counted requests, for each route.
        counts = {}
        for number, route in enumerate(routes):
            part = directory / f"out.{2 * number + 2}"
            counts[route] = round(_total(part) / COUNTED / 1000)
            if keep:
                keep.mkdir(parents=True, exist_ok=True)
                shutil.copy(part, keep / f"callgrind.out.{name.replace(' ', '-')}.{route}")
        return counts


def _total(part: Path) -> int:
    for line in part.read_text().splitlines():
        if line.startswith("summary:"):
            return int(line.split()[1])
    raise ValueError(f"no summary in {part}")


# Inside valgrind or the profiler


def _inside(name: str, routes: Sequence[str], *, profile: bool) -> None:
    if name == "with metrics":  # as gunicorn.conf.py does
        importlib.import_module("todo_project.exporter")
    module, attribute = APPLICATIONS[name].split(":")
    application = getattr(importlib.import_module(module), attribute)
    if name == "with metrics":  # metrics written each second are not part of a request
        importlib.import_module("todo_project.metrics").process.writer = threading.current_thread()
    headers = {"HTTP_AUTHORIZATION": f"Bearer {clients.token(1)}"} if name == "with HS256" else {}
    call = _asgi(application) if name == "FastAPI" else _wsgi(application, headers)
    # Called only here: callgrind writes its counts at this function.
    mark = os.getppid
    # Under callgrind on a busy machine the first connection can take longer than the service waits.
    first = clients.request("get", 1, LISTED)
    for _ in range(10):
        if call(first) != 503:
            break
        time.sleep(1)
    for route in routes:
        requests = _requests(route, PROFILED if profile else COUNTED)
        for _, request in zip(range(WARM), requests, strict=False):
            _expect(route, call(request))
        if profile:
            profiler = cProfile.Profile()
            profiler.enable()
            statuses = [call(request) for request in requests]
            profiler.disable()
            _print_profile(route, profiler)
        else:
            gc.collect()
            mark()
            statuses = [call(request) for request in requests]
            mark()
        for status in statuses:
            _expect(route, status)


def _requests(route: str, counted: int) -> Iterator[Request]:
    """The requests, made before the count begins, because the client's work does not count."""
    user = 0 if route == "list" else 1
    # Deletions begin with the last task, so that the other routes still find theirs.
    tasks = [
        LISTED + (2 * PROFILED - 1 - n if route == "delete" else n) for n in range(WARM + counted)
    ]
    return iter([clients.request(route, user, task, task) for task in tasks])


def _expect(route: str, status: int) -> None:
    if status != clients.STATUSES.get(route, 200):
        sys.exit(f"{route}: status {status}")


def _wsgi(application: Any, headers: dict[str, str]) -> Callable[[Request], int]:
    template = {
        "SCRIPT_NAME": "",
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "localhost",
        "HTTP_ACCEPT": "*/*",
        "HTTP_USER_AGENT": "benchmarks",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        **headers,
    }
    statuses: list[str] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
        statuses.append(status)

    def call(request: Request) -> int:
        method, path, body = request
        environ = template | {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "RAW_URI": path,
            "wsgi.input": io.BytesIO(body),
        }
        if body:
            environ["CONTENT_TYPE"] = "application/json"
            environ["CONTENT_LENGTH"] = str(len(body))
        response = application(environ, start_response)
        try:
            for _ in response:
                pass
        finally:
            if hasattr(response, "close"):
                response.close()
        return int(statuses.pop()[:3])

    return call


def _asgi(application: Any) -> Callable[[Request], int]:
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    template = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "scheme": "http",
        "root_path": "",
        "query_string": b"",
        "client": ("127.0.0.1", 40000),
        "server": ("127.0.0.1", 8000),
    }
    headers = [(b"host", b"localhost"), (b"accept", b"*/*"), (b"user-agent", b"benchmarks")]

    async def request_response(request: Request) -> int:
        method, path, body = request
        statuses = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        own = [(b"content-type", b"application/json")] if body else []
        scope = {
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "headers": headers + own,
        }
        await application(template | scope, receive, send)
        return statuses[0]

    return lambda request: loop.run_until_complete(request_response(request))


def _print_profile(route: str, profiler: cProfile.Profile) -> None:
    for order in ("tottime", "cumulative"):
        out = io.StringIO()
        statistics = pstats.Stats(profiler, stream=out)
        statistics.sort_stats(order).print_stats(25)
        print(f"\n{route}: {PROFILED} requests by {order}\n", out.getvalue()[:6000])


if __name__ == "__main__":
    main()

"""Database round trips per request, warm, and p50 with 10 ms to the database.

Each server connects to PostgreSQL through the tests' proxy, first without delay and then with
5 ms in each direction. The service also verifies an HS256 token; the peers do not.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import ExitStack

from benchmarks import clients, data, report
from benchmarks.clients import Client, Request
from benchmarks.data import Databases
from benchmarks.servers import NAMES, Web
from tools.proxy import Proxy

WARM = 30
COUNTED = 40
ONE_WAY_SECONDS = 0.005
# How many times faster than the peer: must, aim.
READS, WRITES = (1.5, 2), (3, 5)


def main(databases: Databases) -> None:
    trips: dict[tuple[str, str], float] = {}
    p50: dict[tuple[str, str], float] = {}
    refused = []
    user = databases.users - 1
    authorization = f"Authorization: Bearer {clients.token(user)}\r\n"
    for name in NAMES:
        with ExitStack() as stack:
            url = databases.large()
            proxy = stack.enter_context(Proxy(databases.server.port))
            through = proxy.url(url)
            server = stack.enter_context(Web(name, through, threads=1, token=name == "service"))
            client = Client(server.port, authorization)
            for route in clients.ROUTES:
                status = clients.STATUSES.get(route, 200)

                def send(
                    n: int, client: Client = client, route: str = route, status: int = status
                ) -> float:
                    # Each deletion needs another task: the last third is for deletions.
                    number = 99 - n if route == "delete" else n % 60
                    task = user + databases.users * number
                    return client.seconds(clients.request(route, user, task, n), status)

                counted, warm, slow = (5, 10, 5) if route == "delete" else (COUNTED, WARM, COUNTED)
                proxy.delay = 0
                for n in range(warm):
                    send(n)
                trips[name, route] = _round_trips(proxy, send, range(warm, warm + counted))
                proxy.delay = ONE_WAY_SECONDS
                times = [send(warm + counted + n) for n in range(slow)]
                p50[name, route] = statistics.median(times) * 1000
            if name == "service":
                proxy.delay = 0
                refused = _refused(proxy, server.port, authorization, user)
    _report(trips, p50, refused)


def _round_trips(proxy: Proxy, send: Callable[[int], object], numbers: range) -> float:
    before = proxy.round_trips
    for n in numbers:
        send(n)
    return (proxy.round_trips - before) / len(numbers)


def _refused(
    proxy: Proxy, port: int, authorization: str, user: int
) -> list[tuple[str, int, float]]:
    """Round trips of requests that must not reach the database: what, status, round trips."""
    own, other = f"/api/{data.user_id(user)}/tasks", f"/api/{data.user_id(0)}/tasks"
    task = f"{own}/{data.task_id(user)}"
    rows = []
    for what, headers, request, status in (
        ("health", "", Request("GET", "/healthz"), 200),
        ("no token", "", Request("GET", own), 401),
        ("bad token", authorization[:-4] + "x\r\n", Request("GET", own), 401),
        ("another's tasks", authorization, Request("GET", other), 403),
        ("unknown URL", authorization, Request("GET", "/api/none"), 404),
        ("bad id", authorization, Request("GET", f"{own}/none"), 400),
        ("bad parameter", authorization, Request("GET", f"{own}?limit=0"), 400),
        ("method", authorization, Request("DELETE", own), 405),
        ("not JSON", authorization, Request("PUT", task, b"{"), 400),
        ("not valid", authorization, Request("PUT", task, b"{}"), 422),
    ):
        client = Client(port, headers)

        def send(
            _: int, client: Client = client, request: Request = request, s: int = status
        ) -> float:
            return client.seconds(request, s)

        rows.append((what, status, _round_trips(proxy, send, range(5))))
    return rows


def _report(
    trips: dict[tuple[str, str], float],
    p50: dict[tuple[str, str], float],
    refused: list[tuple[str, int, float]],
) -> None:
    report.table(
        "Database round trips per request, warm",
        ["route", "must", "", *NAMES],
        [
            [
                route,
                1,
                report.at_most(trips["service", route], 1, 1),
                *(trips[name, route] for name in NAMES),
            ]
            for route in clients.ROUTES
        ],
    )
    report.table(
        "Database round trips of requests that need none",
        ["request", "status", "must", "", "service"],
        [[what, status, 0, report.at_most(n, 0, 0), n] for what, status, n in refused],
    )
    rows = []
    for route in clients.ROUTES:
        must, aim = READS if route in ("get", "list") else WRITES
        gain = round(p50["FastAPI", route] / p50["service", route], 2)
        rows.append(
            [
                route,
                *(p50[name, route] for name in NAMES),
                gain,
                must,
                aim,
                report.at_least(gain, must, aim),
            ]
        )
    report.table(
        "p50 with 10 ms to the database, ms, and how many times faster than FastAPI",
        ["route", *NAMES, "times", "must", "aim", ""],
        rows,
    )

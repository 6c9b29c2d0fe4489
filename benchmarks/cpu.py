"""Server CPU per request: user and system time of all processes of a server.

The `GET` of one task under this service's worker, gunicorn's own threaded worker and granian, and
the FastAPI peer under uvicorn: one process with all cores, and one per core; 1, 4 and 32 keep-alive
connections. An empty application under the same server shows the share of the server. Then the
other routes, with a process for each core and four connections, compared with the peer.

No token. Rounds alternate between the servers, and the best round of each counts, because other
work only adds. `docs/cpu.svg` is drawn from the result, except for a --quick run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from itertools import product
from typing import Any

from benchmarks import clients, data, plot, report
from benchmarks.clients import Client, Request
from benchmarks.data import Databases
from benchmarks.servers import EMPTY, Web

ROUNDS = 4
CONNECTIONS = (1, 4, 32)
CORES = os.cpu_count() or 1
PLOT = data.ROOT / "docs" / "cpu.svg"

# How each server is started, with the measured application and with the empty one.
SERVERS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "service": ({}, {"application": EMPTY}),
    "gunicorn gthread": (
        {"server": "gunicorn"},
        {"server": "gunicorn", "application": EMPTY},
    ),
    "granian": ({"server": "granian"}, {"server": "granian", "application": EMPTY}),
    "FastAPI": ({}, {"server": "uvicorn"}),
}
NOT_PINNED = "service, WEB_PIN_PROCESSES=false"
# Minimum and target of the gain over FastAPI, by number of processes; and the minimum of that over
# granian.
GET_GAINS = {1: (1.5, 1.8), CORES: (1.6, 2.0)}
GRANIAN_GAIN = (0.85, 1.0)

# Measurement: requests per round, and the minimum and target of the gain.
MEASUREMENTS = {
    "list of 100": (1000, 4, 5),
    "list of 1000": (200, 8, 10),
    "post": (1500, 2.4, 3),
    "put": (1500, 3, 4),
    "toggle": (1500, 3, 4),
}

# Microseconds by (processes, connections, server).
Costs = dict[tuple[int, int, str], float]


def main(databases: Databases) -> None:
    url = databases.large()
    whole: Costs = {}
    empty: Costs = {}
    for processes in sorted({1, CORES}):
        with ExitStack() as stack:
            for costs, variant in ((whole, 0), (empty, 1)):
                webs = {
                    name: stack.enter_context(_web(name, url, processes, variants[variant]))
                    for name, variants in SERVERS.items()
                }
                if costs is whole:
                    web = Web("service", url, processes=processes, pinned=False)
                    webs[NOT_PINNED] = stack.enter_context(web)
                for connections in CONNECTIONS:
                    best = _measure(databases, webs, connections, "get", 800)
                    costs |= {(processes, connections, name): v for name, v in best.items()}
        _print_get(whole, empty, processes)
    if not databases.quick:
        PLOT.write_text(_plot(whole, empty))
    with ExitStack() as stack:
        webs = {
            name: stack.enter_context(_web(name, url, CORES, SERVERS[name][0]))
            for name in ("service", "FastAPI")
        }
        rows: list[list[report.Cell]] = []
        for measurement, (count, must, aim) in MEASUREMENTS.items():
            best = _measure(databases, webs, 4, measurement, count)
            gain = round(best["FastAPI"] / best["service"], 2)
            verdict = report.at_least(gain, must, aim)
            rows.append([measurement, *map(round, best.values()), gain, must, aim, verdict])
    report.table(
        f"Server CPU per request, µs, {CORES} processes, 4 connections",
        ["measurement", "service", "FastAPI", "times less", "must", "aim", ""],
        rows,
    )


def _web(name: str, url: str, processes: int, variant: Mapping[str, Any]) -> Web:
    kind = "FastAPI" if name == "FastAPI" else "service"
    return Web(kind, url, processes=processes, **variant)


def _measure(
    databases: Databases, webs: Mapping[str, Web], connections: int, measurement: str, full: int
) -> dict[str, float]:
    """Microseconds of the best round of each server."""
    best: dict[str, float] = {}
    peers = {name: [Client(web.port) for _ in range(connections)] for name, web in webs.items()}
    for round_ in range(ROUNDS + 1):
        count = full // 10 if databases.quick or round_ == 0 else full  # round 0 warms
        requests = _requests(databases, measurement, round_, count)
        status = clients.STATUSES.get(measurement, 200)
        for name, web in webs.items():
            before = web.cpu_seconds()
            clients.send_all(peers[name], requests, status)
            cost = (web.cpu_seconds() - before) / count * 1e6
            if round_:
                best[name] = min(best.get(name, cost), cost)
    return best


def _print_get(whole: Costs, empty: Costs, processes: int) -> None:
    rows: list[list[report.Cell]] = []
    for connections, name in product(CONNECTIONS, SERVERS):
        key = processes, connections, name
        service = whole[processes, connections, "service"]
        gain: float | None = round(whole[key] / service, 2)
        must, aim = {"FastAPI": GET_GAINS[processes], "granian": GRANIAN_GAIN}.get(
            name, (None, None)
        )
        costs = [whole[key], empty[key], whole[key] - empty[key]]
        verdict = report.at_least(gain, must, aim)
        rows.append([f"{connections}, {name}", *map(round, costs), gain, must, aim, verdict])
        if name == "service" and (total := whole.get((processes, connections, NOT_PINNED))):
            gain = round(total / service, 2)
            rows.append(
                [f"{connections}, {NOT_PINNED}", round(total), *[None] * 2, gain, *[None] * 3]
            )
    report.table(
        f"Server CPU per GET, µs, {processes} process{'es' * (processes > 1)}",
        ["connections", "total", "server", "application", "times the service", "must", "aim", ""],
        rows,
    )


def _plot(whole: Costs, empty: Costs) -> str:
    groups = {
        f"{processes} process{'es' * (processes > 1)}, {connections} "
        f"connection{'s' * (connections > 1)}": {
            name: (empty[processes, connections, name], whole[processes, connections, name])
            for name in SERVERS
        }
        for processes, connections in product(sorted({1, CORES}), CONNECTIONS)
    }
    return plot.bars("Server CPU per GET of one task, µs (dark: the server's share)", groups)


def _requests(databases: Databases, measurement: str, round_: int, count: int) -> list[Request]:
    numbers = [round_ * count + n for n in range(count)]
    if measurement == "list of 1000":
        return [clients.request("list", databases.reader, 0)] * count
    # POST adds to the user with the most tasks, so that the lists of the others stay the same.
    if measurement == "post":
        return [clients.request("post", databases.heavy_user, 0, n) for n in numbers]
    route = "list" if measurement == "list of 100" else measurement
    total = 100 * databases.users
    # All over the table, not only in its first pages.
    scattered = [n * 7919 % total for n in numbers]
    return [clients.request(route, task % databases.users, task, task) for task in scattered]

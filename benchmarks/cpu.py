"""Server CPU per request, user and system time of all the server's processes, beside the peer.

A process for each core, as both are deployed, four keep-alive connections, no token. Rounds
alternate between the two, and the best round of each counts: other work only ever adds.
"""

from __future__ import annotations

import os
from contextlib import ExitStack

from benchmarks import clients, report
from benchmarks.clients import Client, Request
from benchmarks.data import Databases
from benchmarks.servers import Web

ROUNDS = 4
CONNECTIONS = 4
# Measurement: requests per round, and the gain that must be and that is aimed at.
MEASUREMENTS = {
    "get": (2000, 1.2, 2),
    "list of 100": (1000, 3, 5),
    "list of 1000": (200, 3, 5),
    "post": (1500, 1.6, 3),
    "put": (1500, 1.6, 3),
    "toggle": (1500, 1.6, 3),
}


def main(databases: Databases) -> None:
    best: dict[tuple[str, str], float] = {}
    with ExitStack() as stack:
        servers = [
            stack.enter_context(Web(name, databases.large(), processes=os.cpu_count() or 1))
            for name in ("service", "FastAPI")
        ]
        connections = [[Client(server.port) for _ in range(CONNECTIONS)] for server in servers]
        for round_ in range(ROUNDS + 1):
            for measurement, (full, _, _) in MEASUREMENTS.items():
                count = full // 10 if databases.quick or round_ == 0 else full  # round 0 warms
                requests = _requests(databases, measurement, round_, count)
                status = clients.STATUSES.get(measurement, 200)
                for server, connection in zip(servers, connections, strict=True):
                    before = server.cpu_seconds()
                    clients.send_all(connection, requests, status)
                    milliseconds = (server.cpu_seconds() - before) / count * 1000
                    key = server.name, measurement
                    if round_:
                        best[key] = min(best.get(key, milliseconds), milliseconds)
    rows: list[list[report.Cell]] = []
    for measurement, (_, must, aim) in MEASUREMENTS.items():
        service, peer = best["service", measurement], best["FastAPI", measurement]
        gain = round(peer / service, 2)
        verdict = report.at_least(gain, must, aim)
        rows.append([measurement, service, peer, gain, must, aim, verdict])
    report.table(
        "Server CPU per request, ms",
        ["measurement", "service", "FastAPI", "times less", "must", "aim", ""],
        rows,
    )


def _requests(databases: Databases, measurement: str, round_: int, count: int) -> list[Request]:
    numbers = [round_ * count + n for n in range(count)]
    if measurement == "list of 1000":
        return [clients.request("list", databases.reader, 0)] * count
    # Lists are of users to whom nothing is added: POST goes to the greatest one.
    if measurement == "post":
        return [clients.request("post", databases.hoarder, 0, n) for n in numbers]
    route = "list" if measurement == "list of 100" else measurement
    total = 100 * databases.users
    # Spread over the whole table, not its first pages.
    scattered = [n * 7919 % total for n in numbers]
    return [clients.request(route, task % databases.users, task, task) for task in scattered]

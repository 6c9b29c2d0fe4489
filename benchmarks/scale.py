"""`python -m benchmarks.scale [--quick]`: one PostgreSQL compared with Citus, and bytes per task.

The same requests to the service on one PostgreSQL, on the coordinator of a cluster with two
workers, and on one of these workers. All servers share this machine, so this measures the cost of
the cluster, not its gain. The rounds alternate; the best of each counts.

Then the size of 1,000,000 tasks on disk.
"""

from __future__ import annotations

import os
import statistics
import sys
from contextlib import ExitStack

import psutil
import psycopg

from benchmarks import clients, data, report
from benchmarks.clients import Client, Request
from benchmarks.data import manage
from benchmarks.servers import Web, cpu_seconds
from tools.citus import Citus
from tools.proxy import Proxy
from tools.servers import PostgreSQL

PLACES = ("one PostgreSQL", "coordinator", "worker")
ROUTES = ("get", "list", "post", "put", "toggle")
ROUNDS = 4

SIZES = """
    SELECT 'table', pg_table_size('tasks_task')
    UNION ALL
    SELECT * FROM (SELECT indexrelid::regclass::text, pg_relation_size(indexrelid)
                   FROM pg_index WHERE indrelid = 'tasks_task'::regclass ORDER BY 1) AS indexes"""


class Measured:
    """The service at one place, and the servers of its database."""

    def __init__(self, stack: ExitStack, url: str, servers: list[PostgreSQL]) -> None:
        self.servers = servers
        self.web = stack.enter_context(Web("service", url, threads=1))
        self.client = Client(self.web.port)
        proxy_port = int(str(psycopg.conninfo.conninfo_to_dict(url)["port"]))
        self.proxy = stack.enter_context(Proxy(proxy_port))
        through = stack.enter_context(Web("service", self.proxy.url(url), threads=1))
        self.counted = Client(through.port)

    def round_trips(self, requests: list[Request], status: int) -> float:
        before = self.proxy.round_trips
        for request in requests:
            self.counted.seconds(request, status)
        return (self.proxy.round_trips - before) / len(requests)

    def times(self, requests: list[Request], status: int) -> tuple[float, float, float]:
        """Milliseconds: p50, CPU of the service and of all database servers per request."""
        web, database = self.web.cpu_seconds(), self._database_cpu()
        p50 = statistics.median(self.client.seconds(request, status) for request in requests)
        web, database = self.web.cpu_seconds() - web, self._database_cpu() - database
        each = 1000 / len(requests)
        return p50 * 1000, web * each, database * each

    def _database_cpu(self) -> float:
        mains = [psutil.Process(server.pid) for server in self.servers]
        return cpu_seconds(mains + [child for main in mains for child in main.children()])


def compare(users: int, count: int) -> None:
    with ExitStack() as stack:
        cluster = stack.enter_context(Citus(shared_buffers="256MB", max_wal_size="4GB"))
        os.environ["POSTGRES_BIN"] = str(cluster.coordinator.bin)
        single = stack.enter_context(PostgreSQL(shared_buffers="256MB", max_wal_size="4GB"))
        urls = [single.create_database("scale"), cluster.create_database("scale")]
        for url in urls:
            manage(url, "migrate", "--verbosity=0")
            data.load(url, range(100 * users), range(users), data.SERVICE_TABLE)
        print(manage(urls[1], "distribute"))
        urls.append(cluster.workers[0].url("scale"))
        servers: list[list[PostgreSQL]] = [[single], [*cluster.nodes], [*cluster.nodes]]
        places = [Measured(stack, url, at) for url, at in zip(urls, servers, strict=True)]
        print(f"{cluster.version('scale')}, {os.cpu_count()} cores, {100 * users} tasks")
        rows: list[list[report.Cell]] = []
        for route in ROUTES:
            status = clients.STATUSES.get(route, 200)
            best = [[float("inf")] * 3 for _ in PLACES]
            for round_ in range(ROUNDS + 1):  # round 0 warms
                numbers = [
                    n * 7919 % (100 * users) for n in range(round_ * count, -~round_ * count)
                ]
                requests = [clients.request(route, n % users, n, n) for n in numbers]
                trips = [place.round_trips(requests[:20], status) for place in places]
                for number, place in enumerate(places):
                    found = place.times(requests, status)
                    if round_:
                        best[number] = list(map(min, best[number], found))
            for name, trip, times in zip(PLACES, trips, best, strict=True):
                rows.append([f"{route}, {name}", trip, *times])
        header = ["request", "round trips", "p50, ms", "service CPU, ms", "database CPU, ms"]
        report.table("One PostgreSQL beside a cluster on the same machine", header, rows)


def sizes(tasks: int) -> None:
    with PostgreSQL(shared_buffers="1GB", max_wal_size="8GB") as server:
        url = server.create_database("sizes")
        manage(url, "migrate", "--verbosity=0")
        data.load(url, range(tasks), range(tasks // 100), data.SERVICE_TABLE)
        rows = [(name, size / tasks) for name, size in server.execute(SIZES, None, "sizes")]
    total = ("all", sum(size for _, size in rows))
    report.table(f"Bytes per task, of {tasks} tasks", ["", "bytes"], [*rows, total])


def main() -> None:
    quick = "--quick" in sys.argv
    compare(*((20, 20) if quick else (2000, 400)))
    sizes(10_000 if quick else 1_000_000)


if __name__ == "__main__":
    main()

"""The cost of growth: 1,000,000 tasks compared with 10,000, and page 1000 with page 1.

The same requests go to two databases in turn (a user has 100 tasks in both), or for two pages in
turn; p50 of each, over one connection. The buffers of the table and its indexes that PostgreSQL
reads for one request are shown as well: a count that does not depend on the machine.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack

import psycopg

from benchmarks import clients, data, report
from benchmarks.clients import Client, Request
from benchmarks.data import Databases
from benchmarks.servers import Web
from tools.servers import wait_until

WARM, SAMPLES, ROUNDS = 20, 330, 6
SECONDS = 5  # at most per row, unless warming takes longer
MUST, AIM = 1.15, 1.05
PAGE_MUST, PAGE_AIM = 1.1, 1.0
ORDERINGS = ("-created_at", "created_at", "-updated_at", "updated_at", "title", "-title")
LIMIT = 100


def main(databases: Databases) -> None:
    urls = databases.small(), databases.large()
    users = (10 if databases.quick else 100), databases.users
    rows: list[list[report.Cell]] = []
    with ExitStack() as stack:
        servers = [stack.enter_context(Web("service", url, threads=1)) for url in urls]
        connections = [Client(server.port) for server in servers]
        for route in clients.ROUTES:
            status = clients.STATUSES.get(route, 200)

            def sample(which: int, n: int, route: str = route, status: int = status) -> float:
                return connections[which].seconds(_request(route, users[which], n), status)

            times = _alternate(sample)
            touched = [_buffers(urls[which], sample, which) for which in (0, 1)]
            ratio = times[1] / times[0]
            verdict = report.at_most(round(ratio, 2), MUST, AIM)
            rows.append([route, times[0] * 1000, times[1] * 1000, ratio, verdict, *touched])
    report.table(
        f"Growth from {100 * users[0]:,} tasks to {100 * users[1]:,}: p50 in ms"
        f" (must {MUST}, aim {AIM} times), buffers per request",
        ["route", "small", "large", "times", "", "buffers", "buffers"],
        rows,
    )


def _request(route: str, users: int, n: int) -> Request:
    """Request number n, for one of the 100 tasks of a user, all over the table."""
    # Each deletion needs another task; the last 40 tasks of every user are for deletions.
    user = n * 7919 % users
    if route == "delete":
        task = user + users * (99 - n // users)
    elif route == "list":
        return clients.request(route, users - 1 - n % 2, 0)
    else:
        task = user + users * (n // users % 60)
    return clients.request(route, user, task, n)


def pages(databases: Databases) -> None:
    url = databases.large()
    deep = databases.heavy_tasks // 110  # page 1000 of 100 tasks, of 110,000
    first_page = f"/api/{data.user_id(databases.heavy_user)}/tasks"
    rows: list[list[report.Cell]] = []
    with Web("service", url, threads=1) as server:
        client = Client(server.port)
        for ordering in ORDERINGS:
            paths = [
                f"{first_page}?ordering={ordering}&limit={LIMIT}",
                _page(client, f"{first_page}?ordering={ordering}", deep),
            ]
            _check_page(databases, url, client, paths[1], ordering, deep)

            def sample(which: int, n: int, paths: list[str] = paths) -> float:
                return client.seconds(Request("GET", paths[which]), 200)

            times = _alternate(sample)
            touched = [_buffers(url, sample, which) for which in (0, 1)]
            ratio = times[1] / times[0]
            verdict = report.at_most(round(ratio, 2), PAGE_MUST, PAGE_AIM)
            rows.append([ordering, times[0] * 1000, times[1] * 1000, ratio, verdict, *touched])
    report.table(
        f"Page 1 against page {deep} of {LIMIT} tasks, of a user with {databases.heavy_tasks:,}:"
        f" p50 in ms (must {PAGE_MUST}, aim {PAGE_AIM} times), buffers per request",
        ["ordering", "first", "deep", "times", "", "buffers", "buffers"],
        rows,
    )


def _page(client: Client, path: str, page: int) -> str:
    """The path of that page, found by following links, ten pages at a time if possible."""
    path += "&limit="
    at, limit = 1, 10 * LIMIT
    path += str(limit)
    while at < page:
        if page - at < 10 and limit != LIMIT:
            limit = LIMIT
            path = re.sub(r"\blimit=\d+", f"limit={limit}", path)
        response = client.get(path)
        link = re.search(rb'<([^>]+)>; *rel="next"', response.headers, re.IGNORECASE)
        if link is None:
            raise RuntimeError(f"no next page after {path}: {response.headers!r}")
        path = link[1].decode()
        at += limit // LIMIT
    return re.sub(r"\blimit=\d+", f"limit={LIMIT}", path)


def _check_page(
    databases: Databases, url: str, client: Client, path: str, ordering: str, page: int
) -> None:
    """Compare the page with the rows at that OFFSET; RuntimeError if they differ."""
    field, direction = ordering.lstrip("-"), "DESC" if ordering[0] == "-" else "ASC"
    collation = ' COLLATE "C"' if field == "title" else ""
    with psycopg.connect(url) as connection:
        row = connection.execute(
            f"SELECT id FROM {data.SERVICE_TABLE} WHERE user_id = %s"
            f" ORDER BY {field}{collation} {direction}, id {direction} OFFSET %s LIMIT 1",
            [data.user_id(databases.heavy_user), (page - 1) * LIMIT],
        ).fetchone()
    body = client.get(path).body
    if row is None or not re.match(rb'\[\{"id": ?"%s"' % str(row[0]).encode(), body):
        raise RuntimeError(f"page {page} by {ordering} begins with {body[:80]!r}, not {row}")


def _alternate(sample: Callable[[int, int], float]) -> tuple[float, float]:
    """The p50 of both sides, in seconds, with requests in turn until the time is over.

    The lowest p50 of six rounds, because other work on the machine comes in bursts and only adds.
    """
    times: tuple[list[float], list[float]] = [], []
    deadline = time.monotonic() + SECONDS
    for n in range(WARM + SAMPLES):
        for which in (0, 1):
            times[which].append(sample(which, n))
        if n > 2 * WARM and time.monotonic() > deadline:
            break
    step = -(-len(times[0][WARM:]) // ROUNDS)
    first, second = (
        min(statistics.median(side[at : at + step]) for at in range(WARM, len(side), step))
        for side in times
    )
    return first, second


def _buffers(url: str, sample: Callable[[int, int], object], which: int) -> int:
    """The buffers of table and indexes that a request reads, on average."""
    first, count = WARM + SAMPLES, 20
    _disconnect_others(url)
    before = _blocks(url)
    for n in range(first, first + count):
        sample(which, n)
    _disconnect_others(url)
    return round((_blocks(url) - before) / count)


def _blocks(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit"
            " FROM pg_statio_user_tables WHERE relname = %s",
            [data.SERVICE_TABLE],
        ).fetchone()
    assert row
    return int(row[0])


def _disconnect_others(url: str) -> None:
    """End the service's connections: a backend's statistics are complete after its end."""
    others = "pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    others += " AND backend_type = 'client backend'"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"SELECT pg_terminate_backend(pid) FROM {others}")

        def gone() -> bool:
            return not connection.execute(f"SELECT 1 FROM {others}").fetchone()

        if not wait_until(gone):
            raise RuntimeError("connections do not end")

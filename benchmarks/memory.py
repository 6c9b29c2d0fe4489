"""The memory of a worker, fresh and after 500 lists of 1000 tasks with long descriptions."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import psycopg

from benchmarks.clients import Client
from benchmarks.data import Databases
from benchmarks.servers import Web

OWNER = UUID("a11ce000-0000-4000-8000-000000000001")
CLIENTS = 8
FILL = """
    INSERT INTO tasks_task
        (id, user_id, title, description, is_completed, created_at, updated_at)
    SELECT gen_random_uuid(), %s, 'Task ' || n, left(repeat(md5(n::text), 63), 2000), false,
        now(), now()
    FROM generate_series(1, 1000) n"""


def main(databases: Databases) -> None:
    lists = 16 if databases.quick else 504
    url = databases.empty()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(FILL, [OWNER])
    with Web("service", url) as server:

        def read(_: int) -> None:
            client = Client(server.port)
            for _ in range(lists // CLIENTS):
                response = client.get(f"/api/{OWNER}/tasks")
                assert len(response.body) > 2_000_000, response.status

        Client(server.port).get("/healthz")  # the worker exists
        (worker,) = server.workers()
        fresh = worker.memory_info().rss
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(read, range(CLIENTS)))
        after = worker.memory_info().rss
    print("\nMemory of a worker (RSS), MB: must 85 fresh and 130 after; aim 70 and 100\n")
    print(f"fresh                                          {fresh / 1e6:.0f}")
    print(f"after {lists} lists of 1000 tasks of 2000 characters {after / 1e6:.0f}")

"""`python -m benchmarks [--quick] [name…]`: run the benchmarks, or those named.

round_trips   database round trips of every route, and p50 with 10 ms to the database
instructions  per request in process, by callgrind; more with `python -m benchmarks.instructions`
cpu           server CPU per request
load          1000 users, each a request a second; and the memory of a worker after it
memory        of a worker, fresh and after 500 lists of 1000 long tasks
growth        10,000 tasks against 1,000,000
pages         page 1 against page 1000

--quick: small tables and few requests, to check that everything runs; its numbers mean nothing.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import time

from benchmarks import clients, cpu, data, growth, instructions, load, memory, round_trips
from benchmarks.data import Databases

PACKAGES = (
    *("django", "djangorestframework", "psycopg", "gunicorn"),
    *("fastapi", "sqlmodel", "sqlalchemy", "asyncpg", "uvicorn"),
)


def count_instructions(databases: Databases) -> None:
    routes = ("get",) if databases.quick else clients.ROUTES
    instructions.compare(databases.empty(), routes, peers=True)


BENCHMARKS = {
    "round_trips": round_trips.main,
    "instructions": count_instructions,
    "cpu": cpu.main,
    "load": load.main,
    "memory": memory.main,
    "growth": growth.main,
    "pages": growth.pages,
}


def main() -> None:
    arguments = sys.argv[1:]
    names = [name for name in arguments if name != "--quick"] or list(BENCHMARKS)
    if set(names) - set(BENCHMARKS):
        sys.exit(__doc__)
    with data.databases(quick="--quick" in arguments) as databases:
        versions = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
        print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.2f},", end=" ")
        print(f"Python {platform.python_version()}, PostgreSQL {databases.server.version},")
        print(", ".join(versions))
        for name in names:
            start = time.monotonic()
            BENCHMARKS[name](databases)
            average = os.getloadavg()[0]
            print(f"\n({name}: {time.monotonic() - start:.0f} s, load average {average:.2f})")
            sys.stdout.flush()


if __name__ == "__main__":
    main()

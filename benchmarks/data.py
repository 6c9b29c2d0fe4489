"""The databases of the benchmarks: a PostgreSQL, the tables, and tasks with known ids.

Task number `n` of N users belongs to user `n % N`. The ids of tasks and users are the MD5 of their
numbers, so a client knows them, and they are as scattered as random ones.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from tasks.management.commands.load_demo import task_id as task_id  # for clients
from tasks.management.commands.load_demo import user_id as user_id
from tools.servers import PostgreSQL

ROOT = Path(__file__).parent.parent
SERVICE_TABLE = "tasks_task"
PEER_TABLE = "peer_task"
JWT_SECRET = "a-secret-of-the-benchmarks-32-bytes-long"

_PEER_SCHEMA = f"""
CREATE TABLE {PEER_TABLE} (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL,
    title varchar(255) NOT NULL,
    description varchar(2000),
    is_completed boolean NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE INDEX ix_{PEER_TABLE}_user_id ON {PEER_TABLE} (user_id);
"""

_TASKS = """
INSERT INTO {table} (id, user_id, title, description, is_completed, created_at, updated_at)
SELECT md5('task' || n)::uuid,
       md5('user' || {first} + n %% {users})::uuid,
       'Task number ' || n || ' of the list',
       CASE WHEN n %% 3 > 0 THEN 'What is to be done about number ' || n || ', in one line.' END,
       n %% 4 = 0,
       timestamptz '2025-01-01Z' + n * interval '1.000007 second',
       timestamptz '2025-01-01Z' + n * interval '1.000007 second'
  FROM generate_series(%s::int, %s::int) AS n
"""


def environment(database_url: str, *, token: bool = False) -> dict[str, str]:
    """The environment of the service as in production, without the caller's settings."""
    values = {
        "PATH": os.environ["PATH"],
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": str(ROOT),
        "DJANGO_SETTINGS_MODULE": "todo_project.settings",
        "DEBUG": "false",
        "SECRET_KEY": "a-secret-key-of-the-benchmarks-with-more-than-fifty-characters-in-it",
        "ALLOWED_HOSTS": "localhost,127.0.0.1",
        "DATABASE_URL": database_url,
        "AUTH_MODE": "none",
        "ACCESS_LOG": "false",  # like the peers
    }
    if token:
        values |= {"AUTH_MODE": "jwt", "JWT_SECRET": JWT_SECRET}
    return values


def manage(database_url: str, *arguments: str) -> str:
    """Run manage.py on a database; return its output."""
    command = [sys.executable, "manage.py", *arguments]
    env = environment(database_url)
    return subprocess.run(
        command, cwd=ROOT, env=env, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def create_tables(database_url: str) -> None:
    """Migrate the service and create the peers' table."""
    manage(database_url, "migrate", "--verbosity=0")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(_PEER_SCHEMA)


def load(database_url: str, tasks: range, users: range, *tables: str) -> None:
    """Insert the tasks with these numbers, of these users in turn, and analyze the tables."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        for table in tables:
            statement = _TASKS.format(table=table, users=len(users), first=users.start)
            connection.execute(statement, [tasks.start, tasks.stop - 1])
            connection.execute(f"VACUUM ANALYZE {table}")
        connection.execute("CHECKPOINT")


@dataclass
class Databases:
    """A throw-away server with a new database for each benchmark.

    Each kind of database is filled once and then copied.
    """

    server: PostgreSQL
    quick: bool
    _made: dict[str, int] = field(default_factory=dict)

    @property
    def users(self) -> int:
        """The number of users of the large database; each has 100 tasks."""
        return 200 if self.quick else 10_000

    @property
    def reader(self) -> int:
        """A user of the large database with 1000 tasks."""
        return self.users

    @property
    def heavy_user(self) -> int:
        """A user of the large database with 110,000 tasks."""
        return self.users + 1

    @property
    def heavy_tasks(self) -> int:
        return 11_000 if self.quick else 110_000

    def empty(self) -> str:
        """The URL of a new database with the tables."""
        return self._copy("empty", lambda url: None)

    def small(self) -> str:
        """The URL of a new database: 10,000 tasks of 100 users (quick: 1000 of 10)."""
        users = self.users // 100 if not self.quick else 10
        return self._copy(
            "small", lambda url: load(url, range(users * 100), range(users), SERVICE_TABLE)
        )

    def large(self) -> str:
        """The URL of a new database: 1,000,000 tasks of 10,000 users, and two users with more."""
        return self._copy("large", self._fill_large)

    def _fill_large(self, url: str) -> None:
        tables = SERVICE_TABLE, PEER_TABLE
        first = 0
        for tasks, users in (
            (100 * self.users, range(self.users)),
            (1000, range(self.reader, self.reader + 1)),
            (self.heavy_tasks, range(self.heavy_user, self.heavy_user + 1)),
        ):
            load(url, range(first, first + tasks), users, *tables)
            first += tasks

    def _copy(self, kind: str, fill: Callable[[str], None]) -> str:
        if kind not in self._made:
            url = self.server.create_database(kind)
            create_tables(url)
            fill(url)
            self._made[kind] = 0
        self._made[kind] += 1
        return self.server.create_database(
            f"{kind}_{self._made[kind]}", f"TEMPLATE {kind} STRATEGY file_copy"
        )


@contextmanager
def databases(*, quick: bool = False) -> Iterator[Databases]:
    # All data fits in memory, and no checkpoint happens during a measurement.
    with PostgreSQL(shared_buffers="1GB", max_wal_size="8GB", checkpoint_timeout="1h") as server:
        yield Databases(server, quick)

"""What every yardstick stands on: a PostgreSQL, the tables, and tasks whose names are known.

Task number `n` of a load for N users belongs to the `n % N`-th of them; its id and its owner's are
the MD5 of their numbers, so a client can name any task without asking, and the ids are as
scattered as random ones.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

ROOT = Path(__file__).parent.parent
SERVICE_TABLE = "tasks_task"
PEER_TABLE = "peer_task"
JWT_SECRET = "a-secret-of-the-benchmarks-32-bytes-long"

_PEER_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS {PEER_TABLE} (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL,
    title varchar(255) NOT NULL,
    description varchar(2000),
    is_completed boolean NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS ix_{PEER_TABLE}_user_id ON {PEER_TABLE} (user_id);
"""

_TASKS = """
INSERT INTO {table} (id, user_id, title, description, is_completed, created_at, updated_at)
SELECT md5('task' || n)::uuid,
       md5('user' || {first} + n %% {users})::uuid,
       'Task number ' || n || ' of the list',
       CASE WHEN n %% 3 > 0 THEN 'What is to be done about number ' || n || ', in one sentence.' END,
       n %% 4 = 0,
       timestamptz '2025-01-01Z' + n * interval '1.000007 second',
       timestamptz '2025-01-01Z' + n * interval '1.000007 second'
  FROM generate_series(%s::int, %s::int) AS n
"""


def user_id(user: int) -> uuid.UUID:
    return uuid.UUID(hashlib.md5(b"user%d" % user).hexdigest())


def task_id(task: int) -> uuid.UUID:
    return uuid.UUID(hashlib.md5(b"task%d" % task).hexdigest())


@contextmanager
def postgresql() -> Iterator[str]:
    """The URL of an empty database: a throw-away server's, or BENCHMARK_DATABASE_URL's."""
    if url := os.environ.get("BENCHMARK_DATABASE_URL"):
        yield url
        return
    from tests.servers import PostgreSQL

    # Room for all data in memory, and no checkpoint in the middle of a measurement.
    with PostgreSQL(shared_buffers="1GB", max_wal_size="8GB", checkpoint_timeout="1h") as server:
        yield server.url()


def service_environment(database_url: str, *, token: bool = False) -> dict[str, str]:
    """The environment of the service as in production; nothing of the caller's settings."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": str(ROOT),
        "DJANGO_SETTINGS_MODULE": "todo_project.settings",
        "DEBUG": "false",
        "SECRET_KEY": "a-secret-key-of-the-benchmarks-with-more-than-fifty-characters-in-it",
        "ALLOWED_HOSTS": "localhost,127.0.0.1",
        "DATABASE_URL": database_url,
        "AUTH_MODE": "none",
    }
    if token:
        environment |= {"AUTH_MODE": "jwt", "JWT_SECRET": JWT_SECRET}
    return environment


def create_tables(database_url: str) -> None:
    """Migrate the service and make the peers' table."""
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "--verbosity=0"],
        cwd=ROOT,
        env=service_environment(database_url),
        check=True,
    )
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(_PEER_SCHEMA)


def load(database_url: str, tasks: range, users: range, *tables: str) -> None:
    """Deal the tasks of these numbers to the users in turn, and let PostgreSQL look at them."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        for table in tables:
            statement = _TASKS.format(table=table, users=len(users), first=users.start)
            connection.execute(statement, [tasks.start, tasks.stop - 1])
            connection.execute(f"VACUUM ANALYZE {table}")
        connection.execute("CHECKPOINT")

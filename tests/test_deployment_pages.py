"""The commands of docs/deployment/ do what the pages say, as far as a test can run them."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from tests.client import ALICE, BOB
from tests.database_plugin import LiveServer, manage
from tests.live import Client
from tools.servers import CLEAN_ENVIRONMENT, HOST, PROJECT_ROOT, PostgreSQL

pytestmark = pytest.mark.live
PAGES = PROJECT_ROOT / "docs/deployment"


def blocks(page: str) -> list[str]:
    return re.findall(r"```sh\n(.*?)```", (PAGES / page).read_text(), re.DOTALL)


def run(script: str, server: PostgreSQL, folder: Path, **environment: str) -> None:
    """Run commands as the database's superuser, with the programs of that server."""
    path = f"{server.bin}:{CLEAN_ENVIRONMENT['PATH']}"
    if not all(shutil.which(name, path=path) for name in ("psql", "pg_dump", "pg_restore")):
        pytest.skip("psql, pg_dump or pg_restore is not installed")
    connection = {"PGHOST": HOST, "PGPORT": str(server.port), "PGUSER": "postgres"}
    script = f'set -e; psql() {{ command psql --set=ON_ERROR_STOP=1 "$@"; }}\n{script}'
    done = subprocess.run(
        ["bash"], input=script, cwd=folder, capture_output=True, text=True,
        env={**CLEAN_ENVIRONMENT, "PATH": path, **connection, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_dump_restores_everything_or_one_owners_tasks(
    live_server_factory: Callable[..., LiveServer], tmp_path: Path
) -> None:
    server = live_server_factory()
    with Client(server) as client:
        for owner in (ALICE, BOB):
            for title in ("Buy milk", "naïve\t\\N ☃"):
                client.ask("POST", f"/api/{owner}/tasks", {"title": title, "description": "a\nb"})

    def tasks(database: str) -> list[tuple[object, ...]]:
        return server.postgres.execute("SELECT * FROM tasks_task ORDER BY id", database=database)

    before, restored = tasks(server.database), f"{server.database}_restored"
    dump, restore, one_owner = blocks("backup.md")
    here = {"DATABASE_URL": server.database_url}
    run(dump + restore.replace("todo_restored", restored), server.postgres, tmp_path, **here)
    assert tasks(restored) == before
    assert len(before) == 4
    server.postgres.execute(
        f"DELETE FROM tasks_task WHERE user_id = '{ALICE}'", database=server.database
    )
    one_owner = one_owner.replace("todo_restored", restored).replace("USER_ID", ALICE)
    run(one_owner.replace("psql todo <<", f"psql {server.database} <<"), server.postgres, tmp_path)
    assert tasks(server.database) == before
    server.postgres.execute(f"DROP DATABASE {restored}")


def test_the_documented_roles_migrate_and_serve(tmp_path: Path) -> None:
    [database] = [block for block in blocks("install.md") if "CREATE ROLE" in block]
    sql = database.partition("runuser -u postgres -- ")[2]
    with PostgreSQL() as server:
        run(sql, server, tmp_path)
        url = server.url("todo", "todo")
        owner = server.url("todo", "todo_owner")
        manage(url, "migrate", "--verbosity=0", DATABASE_URL_UNPOOLED=owner)
        with psycopg.connect(url, autocommit=True) as connection:
            assert connection.execute("SELECT count(*) FROM tasks_task").fetchall() == [(0,)]
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("ALTER TABLE tasks_task ADD x int")
        assert server.execute("SHOW server_encoding", database="todo") == [("UTF8",)]

"""Migrations bypass the pooler, do not wait long for locks, and are safe on a table in use."""

import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import PIPE
from typing import Any

import psycopg
import pytest

from tests.client import TASKS
from tests.database_plugin import open_live_server, require_pgbouncer
from tests.live import OPERATIONS, Client, lock, waiting
from tools.proxy import Proxy
from tools.servers import (
    ENVIRONMENT,
    PROJECT_ROOT,
    Gunicorn,
    PgBouncer,
    PostgreSQL,
    free_port,
    run,
    wait_until,
)

pytestmark = pytest.mark.live


def test_migrate_goes_to_the_unpooled_server(postgres: PostgreSQL) -> None:
    url = postgres.create_database("unpooled")
    with Proxy(postgres.port) as pooled, Proxy(postgres.port) as unpooled:
        urls = {"DATABASE_URL": pooled.url(url), "DATABASE_URL_UNPOOLED": unpooled.url(url)}
        done = run("manage.py", "migrate", **urls)
        assert done.returncode == 0, done.stderr
        assert pooled.connections == 0
        assert any("tasks_task" in statement for statement in unpooled.statements)
        # Other commands use the service's URL, and `migrate` does with --database=default.
        unpooled.reset()
        done = run("manage.py", "migrate", "--check", "--database=default", **urls)
        assert done.returncode == 0, done.stderr
        assert (unpooled.connections, pooled.connections) == (0, 1)


@pytest.mark.parametrize("via_pgbouncer", [False, True])
def test_a_migration_gives_up_behind_a_held_lock(via_pgbouncer: bool) -> None:
    """In less time than a request may take, so that requests that wait for it are served."""
    with open_live_server(via_pgbouncer=via_pgbouncer) as server, Client(server) as client:
        task = client.create()
        environment = {"DATABASE_URL": server.environment["DATABASE_URL"]}
        with lock(server, "SELECT 1 FROM tasks_task"), ThreadPoolExecutor() as pool:
            migrating = pool.submit(run, "manage.py", "migrate", "tasks", "zero", **environment)
            assert wait_until(lambda: waiting(server) == 1)
            answer = client.ask("GET", f"{TASKS}/{task['id']}")
            done = migrating.result()
        assert (answer.status, answer.json()) == (200, task)
        assert done.returncode == 1
        assert re.search("^CommandError: .* lock timeout.*: another session", done.stderr, re.M)
        assert "Traceback" not in done.stderr
        assert client.ask("GET", "/readyz").status == 200
        # No setting stayed in a session that a pooler reuses.
        sql = "SELECT current_setting('lock_timeout')"
        with psycopg.connect(environment["DATABASE_URL"]) as session:
            assert session.execute(sql).fetchall() == [("0",)]


def test_the_guide_leads_from_an_empty_project_to_a_served_api(postgres: PostgreSQL) -> None:
    """The SQL of docs/neon.md is run unchanged, by an owner who is not a superuser."""
    (sql,) = re.findall("```sql\n(.*?)```", (PROJECT_ROOT / "docs/neon.md").read_text(), re.DOTALL)
    postgres.execute("CREATE ROLE neondb_owner LOGIN CREATEROLE")
    postgres.create_database("neondb", "OWNER neondb_owner")
    owner = postgres.url("neondb", "neondb_owner")
    with psycopg.connect(owner) as session:
        session.execute(sql)
    urls = {"DATABASE_URL": postgres.url("neondb", "todo"), "DATABASE_URL_UNPOOLED": owner}
    try:
        done = run("manage.py", "migrate", **urls)
        assert done.returncode == 0, done.stderr
        me = {f"DJANGO_SUPERUSER_{name}": "me" for name in ("USERNAME", "PASSWORD")}
        command = ("manage.py", "createsuperuser", "--no-input", "--email=me@example.org")
        done = run(*command, **urls, **me)
        assert done.returncode == 0, done.stderr
        served = {**ENVIRONMENT, "DATABASE_URL": urls["DATABASE_URL"], "WEB_CONCURRENCY": "1"}
        with Gunicorn(served) as server, Client(server) as client:
            assert client.ask("GET", "/readyz").status == 200
            for row in OPERATIONS:
                assert row.ask(client, client.create()).status == row.status
        with psycopg.connect(urls["DATABASE_URL"]) as session:
            for name, value in {"statement_timeout": "5s", "lock_timeout": "3s"}.items():
                assert session.execute(f"SHOW {name}").fetchall() == [(value,)]
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute("DROP TABLE tasks_task")
    finally:
        postgres.execute("DROP DATABASE neondb WITH (FORCE)")
        postgres.execute("DROP ROLE todo, neondb_owner")


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The message of a failed command: one line, and no traceback."""
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_is_not_in_utf_8_is_refused(postgres: PostgreSQL, encoding: str) -> None:
    name = f"in_{encoding.lower()}"
    options = f"ENCODING {encoding} LOCALE 'C' TEMPLATE template0"
    url = postgres.create_database(name, options)
    try:
        line = one_line(run("manage.py", "migrate", DATABASE_URL=url))
        assert line == f"CommandError: The database is in {encoding}, and must be in UTF8"
        served = run("-m", "gunicorn", "todo_project.wsgi", DATABASE_URL=url, WEB_CONCURRENCY="1")
        line = one_line(served)
        assert line.startswith("Configuration error: DATABASE_URL ")
        assert encoding in line
    finally:
        postgres.execute(f"DROP DATABASE {name}")


def test_behind_pgbouncer_the_encoding_is_checked_too(postgres: PostgreSQL) -> None:
    require_pgbouncer()
    postgres.create_database("behind", "ENCODING LATIN1 LOCALE 'C' TEMPLATE template0")
    with PgBouncer(postgres) as pgbouncer:
        line = one_line(run("manage.py", "migrate", DATABASE_URL=pgbouncer.url("behind")))
    assert "LATIN1" in line


def test_without_its_database_the_web_server_starts_and_migrate_says_so() -> None:
    url = f"postgresql://postgres@127.0.0.1:{free_port()}/away"
    assert "Connection refused" in one_line(run("manage.py", "migrate", DATABASE_URL=url))
    environment = {**ENVIRONMENT, "DATABASE_URL": url, "WEB_CONCURRENCY": "1"}
    with Gunicorn(environment) as server, Client(server) as client:
        assert client.ask("GET", "/healthz").status == 200
        answer = client.ask("GET", "/readyz")
        assert (answer.status, answer.code) == (503, "database_unavailable")
        assert "cannot be reached" in answer.json()["detail"]


def test_migrate_reports_a_folder_that_cannot_be_written() -> None:
    """Even root, who may run the tests, cannot write to /proc."""
    line = one_line(run("manage.py", "migrate", DATABASE_URL="sqlite:////proc/db.sqlite3"))
    assert line == "CommandError: unable to open database file: /proc/db.sqlite3"


def test_migrate_reports_a_role_that_may_not_create_tables(postgres: PostgreSQL) -> None:
    postgres.create_database("closed")
    postgres.execute("CREATE ROLE stranger LOGIN")
    try:
        url = postgres.url("closed", "stranger")
        line = one_line(run("manage.py", "migrate", DATABASE_URL=url))
        assert "permission denied for schema public" in line
    finally:
        postgres.execute("DROP DATABASE closed WITH (FORCE)")
        postgres.execute("DROP ROLE stranger")


def test_a_second_make_waits_and_says_so(tmp_path: Path) -> None:
    alone = [sys.executable, "tools/one_at_a_time.py", str(tmp_path / "lock")]
    pipes: dict[str, Any] = {"stdout": PIPE, "stderr": PIPE, "text": True, "cwd": PROJECT_ROOT}
    first = subprocess.Popen([*alone, "sh", "-c", "echo begun; read line"], stdin=PIPE, **pipes)
    assert first.stdout.readline() == "begun\n"
    with first, subprocess.Popen([*alone, "echo", "second"], **pipes) as second:
        assert "waiting" in second.stderr.readline()
        assert second.poll() is None
        first.communicate("\n")
        assert second.communicate()[0] == "second\n"
        assert (first.returncode, second.returncode) == (0, 0)


UNSAFE = """
from django.contrib.postgres import operations
from django.db import migrations, models

class Migration(migrations.Migration):
    dependencies = [("tasks", "0001_create_task")]
    operations = [
        migrations.AddIndex("task", models.Index(fields=["user_id", "title"], name="by_title")),
    ]
"""


SAFE = UNSAFE.replace("migrations.AddIndex", "operations.AddIndexConcurrently").replace(
    "    dependencies", "    atomic = False\n    dependencies"
)


NO_DEFAULT = re.sub(
    "migrations.AddIndex.*",
    'migrations.AddField("task", "priority", models.SmallIntegerField(default=3)),',
    UNSAFE,
)


@pytest.mark.parametrize(
    ("migration", "status", "told"),
    [
        (UNSAFE, 1, r"0002_more\.sql:.* require-concurrent-index-creation"),
        (NO_DEFAULT, 1, r'0002_more\.sql: "priority" keeps no default'),
        (NO_DEFAULT.replace("default=3", "default=3, db_default=3"), 0, "^$"),
        (SAFE, 0, "^$"),
    ],
    ids=["unsafe", "no default", "default", "safe"],
)
def test_the_linter_rejects_an_unsafe_migration(
    tmp_path: Path, migration: str, status: int, told: str
) -> None:
    shutil.copytree(PROJECT_ROOT / "tasks" / "migrations", tmp_path / "more")
    (tmp_path / "more" / "0002_more.py").write_text(migration)
    (tmp_path / "more_settings.py").write_text(
        "from todo_project.settings import *\nMIGRATION_MODULES = {'tasks': 'more'}\n"
    )
    environment = {"PYTHONPATH": str(tmp_path), "DJANGO_SETTINGS_MODULE": "more_settings"}
    done = run("-m", "tools.migration_lint", **environment)
    assert done.returncode == status, done.stderr
    assert re.search(told, done.stdout)

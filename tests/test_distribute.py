"""manage.py distribute"""

from __future__ import annotations

import re
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.client import TASKS
from tests.database_plugin import create_migrated, manage, open_live_server
from tests.live import Client
from tools.citus import Citus
from tools.servers import PROJECT_ROOT, Gunicorn, PostgreSQL, ServerError

pytestmark = pytest.mark.live

FILL = """
    INSERT INTO tasks_task (id, user_id, title, is_completed, created_at, updated_at)
    SELECT gen_random_uuid(), md5((n % 50)::text)::uuid, 'Task ' || n, false, now(), now()
    FROM generate_series(1, 1000) AS n"""

INSERT = """
    INSERT INTO tasks_task (id, user_id, title, is_completed, created_at, updated_at)
    VALUES (%s, %s, 'Buy milk', false, now(), now())"""

DEFINITIONS = """
    SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = 'tasks_task'::regclass
    UNION ALL
    SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'tasks_task'::regclass"""


@pytest.fixture
def name(citus: Citus) -> Iterator[str]:
    """A migrated database of the cluster, not yet distributed."""
    create_migrated(citus, "plain")
    yield "plain"
    citus.drop_database("plain")


def test_it_moves_rows_while_clients_write(citus: Citus, name: str) -> None:
    coordinator = citus.coordinator
    coordinator.execute(FILL, database=name)
    before = set(coordinator.execute("SELECT id, user_id, title FROM tasks_task", None, name))
    written: list[uuid.UUID] = []
    slowest = 0.0
    stop = threading.Event()

    def write() -> None:
        nonlocal slowest
        with psycopg.connect(coordinator.url(name), autocommit=True) as session:
            while not stop.is_set():
                started = time.monotonic()
                session.execute(INSERT, [id := uuid.uuid4(), uuid.uuid4()])
                written.append(id)
                slowest = max(slowest, time.monotonic() - started)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        output = manage(coordinator.url(name), "distribute", "--shards=4")
    finally:
        stop.set()
        writer.join()
    *steps, copied, _ = output.splitlines()
    assert re.fullmatch(r"copy tasks_task into 4 shards on 2 workers \.\.\. \d+\.\d s", copied)
    assert len(steps) == 4
    rows = coordinator.execute("SELECT id, user_id, title FROM tasks_task", None, name)
    assert len(rows) == 1000 + len(written)
    assert before < set(rows)
    assert set(written) < {id for id, _, _ in rows}
    seconds = float(copied.split()[-2])
    assert len(written) > 10
    assert slowest < seconds  # no write waited for all of the copy


def test_it_gives_up_behind_a_held_lock(citus: Citus, name: str) -> None:
    """As `migrate` does, so that requests do not queue up behind it; then it goes on."""
    url = citus.coordinator.url(name)
    with psycopg.connect(url) as session:
        session.execute("SELECT 1 FROM tasks_task")
        assert "lock timeout" in refusal(url)
    manage(url, "distribute", "--shards=4")
    citus.coordinator.execute("SELECT undistribute_table('tasks_task')", database=name)
    with psycopg.connect(url) as session:
        session.execute(INSERT, [uuid.uuid4()] * 2)
        assert "lock timeout" in refusal(url, "--block-writes")
    assert "copy tasks_task into 32 shards" in manage(url, "distribute", "--block-writes")


def test_each_shard_has_every_index_and_constraint(citus: Citus, name: str) -> None:
    def definitions(database: str = name) -> set[str]:
        return {sql for (sql,) in citus.coordinator.execute(DEFINITIONS, None, database)}

    before = definitions()
    manage(citus.coordinator.url(name), "distribute", "--shards=4")
    assert definitions() - before == {
        "CREATE UNIQUE INDEX tasks_task_pkey ON public.tasks_task USING btree (user_id, id)",
        "CREATE INDEX task_id ON public.tasks_task USING btree (id)",
        "PRIMARY KEY (user_id, id)",
    }
    assert len(before - definitions()) == 2  # the primary key and its index
    shards = citus.coordinator.execute(
        "SELECT result FROM run_command_on_shards('tasks_task', $$SELECT count(*) FROM pg_index"
        " WHERE indrelid = '%s'::regclass AND indisvalid$$)",
        database=name,
    )
    assert shards == [(str(len([d for d in definitions() if "INDEX" in d])),)] * 4


def test_it_is_repeatable_and_finishes_what_was_interrupted(citus: Citus, name: str) -> None:
    """An index made concurrently, and interrupted, stays behind as an invalid one."""
    coordinator = citus.coordinator
    coordinator.execute("CREATE INDEX task_id ON tasks_task (id)", database=name)
    sql = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'task_id'::regclass"
    coordinator.execute(sql, database=name)
    url = coordinator.url(name)
    status = "tasks_task is {}distributed{}".format
    assert manage(url, "distribute", "--status").strip() == status("not ", ".")
    assert "create task_id" in manage(url, "distribute", "--shards=4")
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'task_id'::regclass"
    assert coordinator.execute(valid, None, name) == [(True,)]
    again = manage(url, "distribute", "--shards=9").strip()
    assert again == "Nothing to do: " + status("", " by user_id over 4 shards.")


def test_status_shows_what_each_node_has(citus: Citus, name: str) -> None:
    citus.coordinator.execute(FILL, database=name)
    manage(citus.coordinator.url(name), "distribute", "--shards=4")
    first, header, *lines = manage(
        citus.coordinator.url(name), "distribute", "--status"
    ).splitlines()
    assert first == "tasks_task is distributed by user_id over 4 shards."
    assert header.split() == ["node", "shards", "rows", "(estimate)", "bytes"]
    names, shards, rows, sizes = zip(*map(str.split, lines), strict=True)
    assert list(names) == [f"127.0.0.1:{node.port}" for node in citus.nodes]
    assert shards == ("0", "2", "2")
    assert sum(map(int, rows)) == 1000
    assert [int(size) > 0 for size in sizes] == [False, True, True]


def refusal(url: str, *options: str) -> str:
    with pytest.raises(ServerError) as caught:
        manage(url, "distribute", *options)
    _, told = str(caught.value).split("CommandError: ")
    assert len(told.splitlines()) == 1
    return told


def test_it_refuses_unsuitable_databases_with_one_line(
    citus: Citus, name: str, postgres: PostgreSQL, tmp_path: Path
) -> None:
    assert "Only PostgreSQL" in refusal(f"sqlite:///{tmp_path}/db.sqlite3")
    assert "no Citus extension" in refusal(postgres.url())
    assert "run the command on the coordinator" in refusal(citus.workers[0].url(name))
    lonely, empty = citus.coordinator.create_database("lonely"), citus.create_database("empty")
    try:
        citus.coordinator.execute("CREATE EXTENSION citus", database="lonely")
        assert "run migrate first" in refusal(empty)
        manage(lonely, "migrate", "--verbosity=0")
        assert "no workers" in refusal(lonely)
    finally:
        citus.coordinator.execute("DROP DATABASE lonely WITH (FORCE)")
        citus.drop_database("empty")
    citus.coordinator.execute("ALTER TABLE tasks_task DROP CONSTRAINT tasks_task_pkey", None, name)
    sql = "SELECT create_distributed_table('tasks_task', 'title')"
    citus.coordinator.execute("DROP INDEX task_idempotency_key", database=name)
    citus.coordinator.execute(sql, database=name)
    assert (
        refusal(citus.coordinator.url(name))
        == "tasks_task is distributed by title, not by user_id.\n"
    )


MIGRATION = """
from django.contrib.postgres import operations
from django.db import migrations, models

class Migration(migrations.Migration):
    dependencies = [("tasks", "{}")]
    atomic = {}
    operations = [{}]
"""
COLUMN = 'migrations.AddField("task", "note", models.TextField(null=True))'
INDEX = """operations.AddIndexConcurrently(
    "task", models.Index(fields=["user_id", "note"], name="task_note"))"""


def test_migrations_reach_every_shard_and_readiness_follows(citus: Citus, tmp_path: Path) -> None:
    """A nullable column and an index, as the recipe for a new field makes them."""
    own = PROJECT_ROOT / "tasks" / "migrations"
    shutil.copytree(own, tmp_path / "more")
    last = max(path.stem for path in own.glob("0*.py"))
    (tmp_path / "more" / "1001_note.py").write_text(MIGRATION.format(last, True, COLUMN))
    (tmp_path / "more" / "1002_index.py").write_text(MIGRATION.format("1001_note", False, INDEX))
    (tmp_path / "more_settings.py").write_text(
        "from todo_project.settings import *\nMIGRATION_MODULES = {'tasks': 'more'}\n"
    )
    more: Any = {"PYTHONPATH": str(tmp_path), "DJANGO_SETTINGS_MODULE": "more_settings"}
    with open_live_server("citus", **more) as server, ExitStack() as stack:
        node = citus.workers[0].url(server.database)
        elsewhere = stack.enter_context(Gunicorn({**server.environment, "DATABASE_URL": node}))
        clients = [stack.enter_context(Client(at)) for at in (server, elsewhere)]
        task = clients[0].create()
        for client in clients:
            answer = client.ask("GET", "/readyz")
            assert (answer.status, answer.code) == (503, "migrations_pending")
        manage(server.database_url, "migrate", "--verbosity=0", **more)
        for client in clients:
            assert client.ask("GET", "/readyz").status == 200
            assert client.ask("GET", f"{TASKS}/{task['id']}").json() == task
        found = server.postgres.execute(
            "SELECT result FROM run_command_on_shards('tasks_task', $$SELECT count(note) || ' ' ||"
            " (SELECT count(*) FROM pg_index JOIN pg_class i ON i.oid = indexrelid WHERE indisvalid"
            "  AND indrelid = '%1$s'::regclass AND relname ~ 'task_note') FROM %1$s$$)",
            database=server.database,
        )
        assert found == [("0 1",)] * 8

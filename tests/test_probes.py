"""GET /healthz and GET /readyz"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import connection, transaction
from django.db.migrations import Migration
from django.db.migrations.recorder import MigrationRecorder

from tests.database_plugin import LiveServer, open_live_server
from tests.live import Client, lock
from todo_project.api.health import migrations
from tools.servers import PostgreSQL


@pytest.mark.parametrize("path", ["/healthz", "/healthz/"])
def test_health_touches_no_database(api, path, django_assert_num_queries):
    with django_assert_num_queries(0):
        assert api.get(path) == {"status": "ok"}
    assert api.last["Cache-Control"] == "private, no-cache"


def test_health_needs_no_database(client):
    """No `db` fixture: pytest-django would refuse the connection."""
    assert client.get("/healthz").json() == {"status": "ok"}


@pytest.mark.parametrize("path", ["/readyz", "/readyz/"])
def test_it_is_ready_when_every_migration_is_applied(api, path):
    assert api.get(path) == {"status": "ok", "database": "ok", "migrations": "ok"}


@pytest.mark.parametrize("app", ["tasks", "auth"])
def test_it_is_not_ready_while_a_migration_is_pending(api, app):
    last = MigrationRecorder.Migration.objects.filter(app=app).latest("id")
    last.delete()
    problem = api.get("/readyz", 503)
    assert problem["code"] == "migrations_pending"
    assert f"{app}.{last.name}" in problem["detail"]
    assert int(api.last["Retry-After"]) > 0
    # Health and the API itself do not depend on it.
    assert api.get("/healthz") == {"status": "ok"}
    last.save(force_insert=True)
    assert api.get("/readyz")["migrations"] == "ok"


@contextmanager
def changed(sql: str) -> Iterator[None]:
    """Change the database, and undo it after the block."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(sql)
        yield
        transaction.set_rollback(True)


def test_a_squashed_migration_is_applied_when_those_that_it_replaces_are(api, monkeypatch):
    class Squashed(Migration):
        replaces = [("tasks", "0001_create_task"), ("tasks", "0002_missing")]

    squashed = Squashed("squashed", "tasks")
    monkeypatch.setitem(migrations(), ("tasks", "squashed"), squashed)
    assert "tasks.squashed" in api.get("/readyz", 503)["detail"]
    squashed.replaces.pop()
    api.get("/readyz")


def test_it_is_not_ready_on_an_empty_database(api):
    with changed("DROP TABLE django_migrations"):
        assert api.get("/readyz", 503)["code"] == "migrations_pending"


@pytest.mark.parametrize("column", ["id", "title", "updated_at", "idempotency_digest"])
def test_it_is_not_ready_without_a_column(api, column):
    with changed(f"ALTER TABLE tasks_task RENAME COLUMN {column} TO other"):
        problem = api.get("/readyz", 503)
    assert problem["code"] == "not_ready"
    assert column in problem["detail"]


def test_it_is_not_ready_without_the_table(api):
    with changed("ALTER TABLE tasks_task RENAME TO other"):
        problem = api.get("/readyz", 503)
    assert problem["code"] == "not_ready"
    assert "tasks_task" in problem["detail"]


def test_it_is_not_ready_on_a_file_that_cannot_be_written(api):
    if connection.vendor != "sqlite":
        pytest.skip("SQLite's alone")
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA query_only = on")
        try:
            problem = api.get("/readyz", 503)
        finally:
            cursor.execute("PRAGMA query_only = off")
    assert "read-only" in problem["detail"]


@pytest.fixture(scope="module")
def restricted(postgres: PostgreSQL) -> Iterator[LiveServer]:
    """A service whose role has only the rights it needs."""
    postgres.execute("CREATE ROLE restricted LOGIN")
    with open_live_server(user="restricted", WEB_CONCURRENCY="1", WEB_THREADS="1") as server:
        for sql in (
            "GRANT SELECT ON django_migrations TO restricted",
            "GRANT SELECT, INSERT, DELETE ON tasks_task TO restricted",
            # Not the columns that never change.
            "GRANT UPDATE (title, description, is_completed, updated_at, idempotency_key)"
            " ON tasks_task TO restricted",
        ):
            postgres.execute(sql, database=server.database)
        yield server
        postgres.execute("DROP OWNED BY restricted", database=server.database)
    postgres.execute("DROP ROLE restricted")


@pytest.mark.live
@pytest.mark.parametrize(
    ("right", "missing"),
    [
        ("SELECT ON tasks_task", "SELECT on tasks_task.id, "),
        ("INSERT ON tasks_task", "INSERT on tasks_task.id, "),
        ("DELETE ON tasks_task", "DELETE on tasks_task."),
        ("UPDATE (title) ON tasks_task", "UPDATE on tasks_task.title."),
        ("SELECT ON django_migrations", "django_migrations"),
    ],
)
def test_it_is_not_ready_without_a_right(restricted: LiveServer, right: str, missing: str) -> None:
    def execute(sql: str) -> None:
        restricted.postgres.execute(sql, database=restricted.database)

    with Client(restricted) as client:
        assert client.ask("GET", "/readyz").status == 200
        client.create()
        execute(f"REVOKE {right} FROM restricted")
        try:
            answer = client.ask("GET", "/readyz")
        finally:
            execute(f"GRANT {right} TO restricted")
        assert (answer.status, answer.code) == (503, "not_ready")
        assert missing in answer.json()["detail"].replace('"', "")
        assert client.ask("GET", "/readyz").status == 200


@pytest.mark.live
def test_it_is_ready_while_the_table_is_locked(restricted: LiveServer) -> None:
    with lock(restricted), Client(restricted) as client:
        assert client.ask("GET", "/readyz").status == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
@pytest.mark.parametrize("headers", [{"Accept": "text/plain"}, {"Accept": "image/*;q=0"}, {}])
def test_probes_require_no_headers(api, path, headers):
    """No token, no host, no Accept."""
    headers = {**headers, "Host": "10.0.0.1:8000", "Authorization": "Bearer nonsense"}
    assert api.get(path, headers=headers)["status"] == "ok"
    assert api.last["Content-Type"] == "application/json"
    assert api.request("HEAD", path, headers=headers) is None

"""GET /healthz and GET /readyz"""

import pytest
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder


@pytest.mark.parametrize("path", ["/healthz", "/healthz/"])
def test_health_touches_no_database(api, path, django_assert_num_queries):
    with django_assert_num_queries(0):
        assert api.get(path) == {"status": "ok"}
    assert api.last["Cache-Control"] == "private, no-cache"


def test_health_is_well_without_a_database(client):
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
    # Health and the API itself do not wait for it.
    assert api.get("/healthz") == {"status": "ok"}
    last.save(force_insert=True)
    assert api.get("/readyz")["migrations"] == "ok"


def test_it_is_not_ready_on_an_empty_database(api):
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE django_migrations")
    assert api.get("/readyz", 503)["code"] == "migrations_pending"


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
@pytest.mark.parametrize("headers", [{"Accept": "text/plain"}, {"Accept": "image/*;q=0"}, {}])
def test_probes_ask_for_nothing(api, path, headers):
    """No token, no host, no Accept."""
    headers = {**headers, "Host": "10.0.0.1:8000", "Authorization": "Bearer nonsense"}
    assert api.get(path, headers=headers)["status"] == "ok"
    assert api.last["Content-Type"] == "application/json"
    assert api.request("HEAD", path, headers=headers) is None

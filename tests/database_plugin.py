"""pytest plugin: the database of the run, and the service itself on databases of its own.

`TEST_DATABASE=postgresql` (default) runs the suite on a throw-away PostgreSQL,
`TEST_DATABASE=sqlite` on a temporary file. Loaded with `-p tests.database_plugin`, early enough to
set the environment before Django reads its settings.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.servers import PostgreSQL, ServerError

# What every run has, whatever the developer's shell or .env file says. An empty value counts as
# not set, but keeps the .env file's from being read.
ENVIRONMENT = {
    "DJANGO_SETTINGS_MODULE": "todo_project.settings",
    "DEBUG": "false",
    "SECRET_KEY": "a key for tests alone, long enough that Django's check is content with it",
    "ALLOWED_HOSTS": "testserver,localhost,127.0.0.1",
    "AUTH_MODE": "none",
    "DATABASE_URL_UNPOOLED": "",
    "JWT_SECRET": "",
    "BETTER_AUTH_SECRET": "",
    "JWT_JWKS_URL": "",
    "JWT_ISSUER": "",
    "JWT_AUDIENCE": "",
    "JWT_LEEWAY": "",
    "CORS_ALLOWED_ORIGINS": "",
    "PORT": "",
    "WEB_CONCURRENCY": "",
    "WEB_THREADS": "",
    "LOG_LEVEL": "",
}


@cache
def _postgres() -> PostgreSQL:
    """The PostgreSQL of the run, started when first asked for."""
    server = PostgreSQL()
    server.start()
    return server


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    """The folder of the run's SQLite file."""
    return tempfile.TemporaryDirectory(prefix="todo-sqlite-")


# Wrappers run before all others, so before pytest-django's hook of the same name.
@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests() -> Iterator[None]:
    vendor = os.environ.get("TEST_DATABASE") or "postgresql"
    if vendor not in ("postgresql", "sqlite"):
        raise pytest.UsageError(f"TEST_DATABASE must be postgresql or sqlite, not {vendor!r}")
    # libpq reads PGSSLMODE, PGOPTIONS and the like; the URL alone shall rule.
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]
    os.environ.update(ENVIRONMENT)
    if vendor == "postgresql":
        try:
            os.environ["DATABASE_URL"] = _postgres().url()
        except ServerError as error:
            raise pytest.UsageError(str(error)) from None
    else:
        path = Path(_scratch().name, "db.sqlite3")
        os.environ["DATABASE_URL"] = f"sqlite:///{path}"
    yield


def pytest_report_header() -> str:
    if os.environ["DATABASE_URL"].startswith("postgresql"):
        server = _postgres()
        return f"database: PostgreSQL {server.version} from {server.bin}"
    return f"database: SQLite {sqlite3.sqlite_version}"


def pytest_unconfigure() -> None:
    if _postgres.cache_info().currsize:
        _postgres().close()


@pytest.fixture(scope="session")
def postgres() -> PostgreSQL:
    """The PostgreSQL of the run; a run on SQLite starts one when a test asks for it."""
    return _postgres()

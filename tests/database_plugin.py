"""pytest plugin: the database of the run, and live servers with databases of their own.

`TEST_DATABASE=postgresql` (default) runs the suite on a throw-away PostgreSQL,
`TEST_DATABASE=sqlite` on a temporary file, and `TEST_DATABASE=citus` on a coordinator and two
workers, where a PostgreSQL with the Citus extension is installed. Loaded with
`-p tests.database_plugin`, early enough to set the environment before Django reads its settings.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from itertools import count
from pathlib import Path

import pytest

from tools.citus import Citus, NotInstalled
from tools.proxy import Proxy
from tools.servers import (
    ENVIRONMENT,
    Gunicorn,
    PgBouncer,
    PostgreSQL,
    ServerError,
    run,
)


@cache
def _postgres() -> PostgreSQL:
    """The PostgreSQL of the run, started when first asked for."""
    server = PostgreSQL()
    server.start()
    return server


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    """The folder of the run's SQLite files."""
    return tempfile.TemporaryDirectory(prefix="todo-sqlite-")


def on_citus() -> bool:
    """Whether the run's database is distributed."""
    return os.environ.get("TEST_DATABASE") == "citus"


def require(found: object, name: str, package: str) -> None:
    """Skip the test if a program is not `found`; under CI fail it."""
    if not found:
        reason = f"{name} is not installed (apt-get install {package})"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)


def require_pgbouncer() -> None:
    require(PgBouncer.program(), "pgbouncer", "pgbouncer")


@cache
def _citus() -> Citus:
    """The cluster of the run, started when first asked for."""
    return Citus()


# Wrappers run before all others, so before pytest-django's hook of the same name.
@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests() -> Iterator[None]:
    vendor = os.environ.get("TEST_DATABASE") or "postgresql"
    if vendor not in ("postgresql", "sqlite", "citus"):
        raise pytest.UsageError(
            f"TEST_DATABASE must be postgresql, sqlite or citus, not {vendor!r}"
        )
    # libpq would read PGSSLMODE, PGOPTIONS and others.
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]
    os.environ.update(ENVIRONMENT)
    if vendor == "postgresql":
        try:
            os.environ["DATABASE_URL"] = _postgres().url()
        except ServerError as error:
            raise pytest.UsageError(str(error)) from None
    elif vendor == "citus":
        try:
            # The name that Django gives the tests' database; conftest.py distributes it.
            _citus().create_database("test_postgres")
        except NotInstalled as error:
            sys.stderr.write(f"skipped: {error}\n")
            sys.exit(0)
        os.environ["DATABASE_URL"] = _citus().coordinator.url()
    else:
        path = Path(_scratch().name, "db.sqlite3")
        os.environ["DATABASE_URL"] = f"sqlite:///{path}"
    yield


def pytest_report_header() -> str:
    if on_citus():
        return f"database: {_citus().version('test_postgres')}"
    if os.environ["DATABASE_URL"].startswith("postgresql"):
        server = _postgres()
        return f"database: PostgreSQL {server.version} from {server.bin}"
    return f"database: SQLite {sqlite3.sqlite_version}"


def pytest_unconfigure() -> None:
    for server in (_postgres, _citus):
        if server.cache_info().currsize:
            server().close()


@pytest.fixture(scope="session")
def postgres() -> PostgreSQL:
    """The PostgreSQL of the run; with SQLite it starts when a test needs it."""
    return _postgres()


def require_citus() -> Citus:
    """The cluster of the run; skips the test if no PostgreSQL has the extension."""
    try:
        return _citus()
    except NotInstalled as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def citus() -> Citus:
    """A coordinator and two workers."""
    return require_citus()


class LiveServer(Gunicorn):
    """The service under gunicorn on a fresh, migrated database of its own."""

    # The database's name on `postgres`, or the path of the SQLite file.
    database: str
    # For the test itself, without proxy and PgBouncer.
    database_url: str
    # If there is one:
    postgres: PostgreSQL
    pgbouncer: PgBouncer
    proxy: Proxy


_names = count()


def manage(url: str, *arguments: str, **environment: str) -> str:
    """Run manage.py on a database; return its output, or raise ServerError with it."""
    done = run("manage.py", *arguments, DATABASE_URL=url, **environment)
    if done.returncode:
        output = done.stdout + done.stderr
        raise ServerError(f"{arguments[0]} exited with {done.returncode}:\n{output}")
    return done.stdout


def _migrate(url: str) -> None:
    manage(url, "migrate", "--no-input", "--verbosity=0")


# Migrating takes one or two seconds, copying a migrated database 0.05 s.
@cache
def _migrated_template(server: PostgreSQL) -> str:
    name = f"template_{next(_names)}"
    _migrate(server.create_database(name))
    return name


@cache
def _migrated_file() -> Path:
    path = Path(_scratch().name, f"template_{next(_names)}.sqlite3")
    _migrate(f"sqlite:///{path}")
    return path


def create_migrated(cluster: Citus, name: str) -> str:
    """Create a database of the cluster, migrated and not yet distributed; return its URL."""
    return cluster.create_database(name, f"TEMPLATE {_migrated_template(cluster.coordinator)}")


@contextmanager
def open_live_server(
    vendor: str = "postgresql",
    via_pgbouncer: bool = False,
    proxy: bool = False,
    postgres: PostgreSQL | None = None,
    user: str = "postgres",
    **environment: str,
) -> Iterator[LiveServer]:
    """Run the service until the block ends, on a fresh, migrated database.

    `vendor` is "postgresql", "sqlite" or "citus" (distributed over the run's cluster; the service
    connects to the coordinator). `via_pgbouncer` adds a PgBouncer in front of the database, `proxy`
    a proxy in front of both; a test may break them. A test that breaks PostgreSQL passes its own as
    `postgres`; the default is that of the run. `user` is the service's role, by default a
    superuser; PgBouncer has no other. `environment` changes the service's environment, which has
    production's settings and two processes of four threads.
    """
    name = f"live_{next(_names)}"
    parts: dict[str, object] = {}
    with ExitStack() as stack:
        if vendor == "postgresql":
            server = parts["postgres"] = postgres or _postgres()
            template = _migrated_template(server)
            parts["database_url"] = server.create_database(name, f"TEMPLATE {template}")
            url = server.url(name, user)
            if postgres is None:
                stack.callback(server.execute, f"DROP DATABASE {name} WITH (FORCE)")
            if via_pgbouncer:
                require_pgbouncer()
                pgbouncer = parts["pgbouncer"] = stack.enter_context(PgBouncer(server))
                url = pgbouncer.url(name)
        elif vendor == "citus" and not (via_pgbouncer or postgres):
            cluster = require_citus()
            parts["postgres"] = cluster.coordinator
            url = parts["database_url"] = create_migrated(cluster, name)
            stack.callback(cluster.drop_database, name)
            manage(url, "distribute", "--shards=8")
        elif vendor == "sqlite" and not (via_pgbouncer or proxy or postgres):
            name = str(Path(_scratch().name, f"{name}.sqlite3"))
            shutil.copy(_migrated_file(), name)
            url = parts["database_url"] = f"sqlite:///{name}"
        else:
            raise ValueError(f"no live server on {vendor!r} with these options")
        if proxy:
            between = stack.enter_context(Proxy(int(url.rpartition(":")[2].split("/")[0])))
            parts["proxy"] = between
            url = between.url(url)
        settings = {"DATABASE_URL": url, "WEB_CONCURRENCY": "2", "WEB_THREADS": "4"}
        live = LiveServer({**ENVIRONMENT, **settings, **environment})
        vars(live).update(parts, database=name)
        stack.enter_context(live)
        yield live
        if live.environment["DEBUG"] == "false":
            check_log(live.log())


def check_log(log: str) -> None:
    """Check that every line is a JSON object, and that none contains what a client sent."""
    for line in log.splitlines():
        assert {"time", "level", "logger", "request_id"} <= json.loads(line).keys()
        # A token's first part, a query string, and the titles of many tests.
        assert not re.search(r"eyJ[A-Za-z]|[?&](search|cursor|ordering)=|Buy (milk|bread)", line)


@pytest.fixture
def live_server_factory() -> Iterator[Callable[..., LiveServer]]:
    """`open_live_server()` as a function; its servers end with the test."""
    with ExitStack() as stack:
        yield lambda *args, **kwargs: stack.enter_context(open_live_server(*args, **kwargs))

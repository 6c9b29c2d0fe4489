"""Lint the SQL of every migration with squawk: `python -m tools.migration_lint`.

Exits with 1 and squawk's messages if a migration would block a table in use.
"""

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import django
from django.core.management import call_command
from django.db.migrations.loader import MigrationLoader

from tools.servers import ENVIRONMENT, PostgreSQL

APP = "tasks"
EXCLUDED = [
    # Requests wait for the lock, and lock_timeout limits that. Other rules find statements that are
    # slow while they hold a lock, and an index created concurrently may take long.
    "require-statement-timeout",
    # The API refuses a number beyond its column's range.
    "prefer-bigint-over-int",
    "prefer-bigint-over-smallint",
]
# CREATE INDEX CONCURRENTLY waits for a lock that blocks neither readers nor writers. If it fails
# it leaves an invalid index, for which IF NOT EXISTS would create no other.
CONCURRENTLY = re.compile(r"^(?=(CREATE|CREATE UNIQUE|DROP) INDEX CONCURRENTLY)", re.MULTILINE)
# Processes of the previous release insert rows without the new column.
LOST_DEFAULT = re.compile(r'ALTER COLUMN ("\w+") DROP DEFAULT')
CONCURRENTLY_EXCLUDED = "require-lock-timeout, prefer-robust-stmts"


def lint_migrations() -> int:
    """Lint the migrations with a throw-away PostgreSQL, and return the exit status."""
    settings = os.environ.get("DJANGO_SETTINGS_MODULE", ENVIRONMENT["DJANGO_SETTINGS_MODULE"])
    squawk = shutil.which("squawk", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if squawk is None:
        sys.exit("squawk is missing: pip install -r requirements-dev.txt")
    with PostgreSQL() as server:
        os.environ.update(ENVIRONMENT, DATABASE_URL=server.url(), DJANGO_SETTINGS_MODULE=settings)
        django.setup()
        # In the server's folder, which is removed with it. The file is named after the migration.
        folder = server.folder / "sql"
        folder.mkdir()
        loader = MigrationLoader(None)
        status = 0
        names = sorted(name for app, name in loader.disk_migrations if app == APP)
        for name in names:
            sql = io.StringIO()
            call_command("sqlmigrate", APP, name, no_color=True, stdout=sql)
            for column in LOST_DEFAULT.findall(sql.getvalue()):
                line = f"{name}.sql: {column} keeps no default: give its field a db_default\n"
                sys.stdout.write(line)
                status = 1
            (folder / f"{name}.sql").write_text(
                CONCURRENTLY.sub(f"-- squawk-ignore {CONCURRENTLY_EXCLUDED}\n", sql.getvalue())
            )
        command = [squawk, "--reporter=gcc", f"--exclude={','.join(EXCLUDED)}"]
        files = [f"{name}.sql" for name in names]
        return subprocess.run([*command, *files], cwd=folder, check=False).returncode or status


if __name__ == "__main__":
    sys.exit(lint_migrations())

"""Liveness and readiness."""

from functools import cache

from django.db import DatabaseError
from django.db.migrations import Migration
from django.db.migrations.loader import MigrationLoader
from rest_framework.request import Request
from rest_framework.response import Response

from todo_project.api import openapi
from todo_project.api.problems import Problem, declare
from todo_project.api.views import PublicView
from todo_project.database.errors import is_unavailable, sqlstate
from todo_project.database.execute import run
from todo_project.database.requirements import missing_rights

INSUFFICIENT_PRIVILEGE = "42501"

declare(503, migrations_pending="Migrations are not applied: {names}.", not_ready="{problem}.")


class HealthView(PublicView):
    """The process lives. Touches no database, so that probes let a sleeping one sleep."""

    document = openapi.BASE

    def get(self, request: Request) -> Response:
        return Response({"status": "ok"})


class ReadyView(PublicView):
    """The database answers, has what requests use, and every migration is applied.

    Two round trips. A database that is away ends in the middleware's 503, as everywhere.
    """

    document = openapi.BASE

    def get(self, request: Request) -> Response:
        try:
            if missing := pending_migrations():
                raise Problem("migrations_pending", names=", ".join(missing))
            if missing := missing_rights():
                raise Problem(
                    "not_ready", problem=f"The service has no right to {', '.join(missing)}"
                )
        except DatabaseError as error:
            if is_unavailable(error):
                raise
            problem = str(error).partition("\n")[0]
            raise Problem("not_ready", problem=f"The database is incomplete: {problem}") from error
        return Response({"status": "ok", "database": "ok", "migrations": "ok"})


def pending_migrations() -> list[str]:
    """The migrations that are not applied, such as "tasks.0001_create_task"."""
    try:
        rows = run("SELECT app, name FROM django_migrations", (), read=True)
    except DatabaseError as error:
        if is_unavailable(error) or sqlstate(error) == INSUFFICIENT_PRIVILEGE:
            raise
        rows = []  # there is no such table before the first migration
    applied = {(app, name) for app, name in rows}
    for key, migration in migrations().items():
        if migration.replaces and applied.issuperset(migration.replaces):
            applied.add(key)
    return [f"{app}.{name}" for app, name in sorted(migrations().keys() - applied)]


@cache
def migrations() -> dict[tuple[str, str], Migration]:
    """All migrations of the installed apps. The first call reads about thirty files."""
    return MigrationLoader(None, ignore_no_migrations=True).disk_migrations

"""Liveness and readiness."""

from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from rest_framework.request import Request
from rest_framework.response import Response

from todo_project.api import openapi
from todo_project.api.problems import ServiceUnavailable
from todo_project.api.views import PublicView
from todo_project.database.execute import run


class HealthView(PublicView):
    """The process lives. Touches no database, so that probes let a sleeping one sleep."""

    document = openapi.BASE

    def get(self, request: Request) -> Response:
        return Response({"status": "ok"})


class ReadyView(PublicView):
    """The database answers, and every migration is applied."""

    document = openapi.BASE

    def get(self, request: Request) -> Response:
        # A database that is away ends in the middleware's 503, as everywhere.
        run("SELECT 1", (), read=True)
        executor = MigrationExecutor(connection)
        missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
        if missing:
            names = ", ".join(f"{m.app_label}.{m.name}" for m, _ in missing)
            raise ServiceUnavailable(f"Migrations are not applied: {names}.", "migrations_pending")
        return Response({"status": "ok", "database": "ok", "migrations": "ok"})

"""What all API views share, and the probes."""

import logging
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpResponse
from django.shortcuts import render
from drf_spectacular.utils import extend_schema
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from todo_project import database, openapi
from todo_project.media import JSONRenderer, Negotiation, OneRenderer
from todo_project.middleware import page_policy
from todo_project.problems import BadRequest, ContentTooLarge, ServiceUnavailable

logger = logging.getLogger(__name__)


class APIMixin(APIView):
    """The order of the checks, and lean headers. Goes before REST framework's view class."""

    @property
    def default_response_headers(self) -> dict[str, str]:
        # Django REST framework would send Allow with every response.
        return {"Vary": "Accept"} if settings.DEBUG else {}

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        if getattr(request._request, "body_too_large", False):
            raise ContentTooLarge
        super().initial(request, *args, **kwargs)

    def check_permissions(self, request: Request) -> None:
        """Between authentication and permission: a malformed id is 400, and nobody's."""
        for name, value in self.kwargs.items():
            if not isinstance(value, UUID):
                raise BadRequest(f"{name} in the path is not a UUID.", "malformed_id")
        super().check_permissions(request)

    def options(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        return Response(headers={"Allow": ", ".join(self.allowed_methods)})


class Probe(APIMixin):
    """Open to everybody, and answers in JSON whatever the prober accepts."""

    authentication_classes = ()
    permission_classes = ()
    renderer_classes: Sequence[type[BaseRenderer]] = (JSONRenderer,)
    content_negotiation_class: type[Negotiation] = OneRenderer
    http_method_names = ["get", "head", "options"]


class HealthView(Probe):
    """The process lives. Touches no database, so that probes let a sleeping one sleep."""

    @openapi.get_health
    def get(self, request: Request) -> Response:
        return Response({"status": "ok"})


class ReadyView(Probe):
    """The database answers, and every migration is applied."""

    @openapi.get_readiness
    def get(self, request: Request) -> Response:
        # A database that is away ends in the middleware's 503, as everywhere.
        database.run("SELECT 1", (), read=True)
        executor = MigrationExecutor(connection)
        missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
        if missing:
            names = ", ".join(f"{m.app_label}.{m.name}" for m, _ in missing)
            raise ServiceUnavailable(f"Migrations are not applied: {names}.", "migrations_pending")
        return Response({"status": "ok", "database": "ok", "migrations": "ok"})


class SchemaView(Probe):
    """The OpenAPI document, in JSON or, if the client prefers it, in YAML."""

    renderer_classes = (JSONRenderer, *openapi.OTHER_RENDERERS)
    content_negotiation_class = Negotiation

    @extend_schema(exclude=True)
    def get(self, request: Request) -> HttpResponse:
        media_type = request.accepted_media_type
        content = openapi.document(settings.AUTH_MODE, media_type)
        return HttpResponse(content, media_type, headers={"Vary": "Accept"})

    def handle_exception(self, exc: Exception) -> Response:
        """Problems are JSON, whatever the document would have been."""
        self.request.accepted_renderer = JSONRenderer()
        self.request.accepted_media_type = JSONRenderer.media_type
        return super().handle_exception(exc)


class DocsView(Probe):
    """Swagger UI, from files that this service has itself."""

    @extend_schema(exclude=True)
    def get(self, request: Request) -> HttpResponse:
        response = render(request, "todo_project/docs.html")
        response["Content-Security-Policy"] = page_policy(form_action="'none'")
        return response

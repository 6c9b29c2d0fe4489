"""The OpenAPI document, Swagger UI, and the start page of development."""

from django.conf import settings
from django.http import HttpResponse
from django.shortcuts import render
from drf_spectacular.views import SpectacularAPIView
from rest_framework.request import Request
from rest_framework.response import Response

from todo_project import first_steps
from todo_project.api import openapi
from todo_project.api.middleware import page_policy
from todo_project.api.renderers import JSONRenderer
from todo_project.api.views import PublicView


class SchemaView(PublicView):
    """The OpenAPI document, in JSON or, if the client prefers it, in YAML."""

    renderer_classes = (JSONRenderer, *SpectacularAPIView.renderer_classes)

    def get(self, request: Request) -> HttpResponse:
        media_type = request.accepted_media_type
        content = openapi.document(settings.AUTH_MODE, media_type)
        return HttpResponse(content, media_type, headers={"Vary": "Accept"})

    def handle_exception(self, exc: Exception) -> Response:
        """Problems are JSON, whatever the document would have been."""
        self.request.accepted_renderer = JSONRenderer()
        self.request.accepted_media_type = JSONRenderer.media_type
        return super().handle_exception(exc)


class DocsView(PublicView):
    """Swagger UI, from files that this service has itself."""

    def get(self, request: Request) -> HttpResponse:
        response = render(request, "todo_project/docs.html")
        response["Content-Security-Policy"] = page_policy(form_action="'none'")
        return response


class IndexView(PublicView):
    """Where to go from `/` in development."""

    def get(self, request: Request) -> HttpResponse:
        url = request.build_absolute_uri("/").removesuffix("/")
        context = {
            "title": settings.SPECTACULAR_SETTINGS["TITLE"],
            "sample_user": first_steps.SAMPLE_USER,
            "commands": "\n".join(first_steps.commands(url)),
            "manage": first_steps.MANAGE,
            "auth_mode": settings.AUTH_MODE,
        }
        response = render(request, "todo_project/index.html", context)
        response["Content-Security-Policy"] = page_policy(form_action="'none'")
        return response

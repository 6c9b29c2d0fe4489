"""What all API views share."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import orjson
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from todo_project.api.openapi import Document
from todo_project.api.problems import Problem
from todo_project.api.renderers import JSONRenderer


class APIMixin(APIView):
    """The order of the checks, and lean headers. Goes before REST framework's view class."""

    document: Document = {}
    """What the OpenAPI document says of the operations; empty leaves them out."""

    @property
    def default_response_headers(self) -> dict[str, str]:
        # Django REST framework would send Allow with every response.
        return {"Vary": "Accept"} if settings.DEBUG else {}

    def json_response(
        self, body: bytes, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> HttpResponse:
        """A response with this JSON, or for a browser the page that shows it.

        REST framework's own Response takes five times as long to make.
        """
        if self.request.accepted_renderer.format != JSONRenderer.format:
            return Response(orjson.loads(body), status, headers=headers)
        return HttpResponse(body, JSONRenderer.media_type, status, headers=headers)

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Without the reference from the view to its response: view and request refer to each
        other, and a page of tasks would stay in memory until the garbage collector runs."""
        try:
            return super().dispatch(request, *args, **kwargs)
        finally:
            vars(self).pop("response", None)

    def check_permissions(self, request: Request) -> None:
        """Between authentication and permission: a malformed id is 400, and nobody's."""
        for name, value in self.kwargs.items():
            if not isinstance(value, UUID):
                raise Problem("malformed_id", name=name)
        super().check_permissions(request)

    def options(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        return Response(headers={"Allow": ", ".join(self.allowed_methods)})


class PublicView(APIMixin):
    """Open to everybody."""

    authentication_classes = ()
    permission_classes = ()
    throttle_classes = ()
    renderer_classes: Sequence[type[BaseRenderer]] = (JSONRenderer,)
    http_method_names = ["get", "head", "options"]

    def perform_content_negotiation(self, request: Request, force: bool = False) -> Any:
        """With one renderer, whatever `Accept` says: probes set it to anything."""
        ignored = len(self.renderer_classes) == 1
        return super().perform_content_negotiation(request, force or ignored)

"""Content negotiation: which renderer and parser a request gets."""

from collections.abc import Iterable
from operator import attrgetter
from typing import Any

from django.http import HttpRequest
from django.http.request import MediaType
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from todo_project.api.problems import Problem


class Negotiation(BaseContentNegotiation):
    """Chooses by `Accept` (RFC 9110 section 12.5.1) and `Content-Type`."""

    def select_renderer(
        self, request: HttpRequest, renderers: Iterable[BaseRenderer], format_suffix: Any = None
    ) -> tuple[BaseRenderer, str]:
        renderers = list(renderers)
        accept = request.META.get("HTTP_ACCEPT") or "*/*"
        if accept in ("*/*", "application/json"):  # what most clients send
            return renderers[0], renderers[0].media_type
        ranges = [MediaType(text) for text in accept.split(",") if text.strip()]

        def preference(renderer: BaseRenderer) -> tuple[float, int]:
            """Quality and specificity of the most specific range that matches: of two equal
            qualities, as in `text/html, */*`, the type that is named wins. Parameters are
            ignored: many clients send charset=utf-8."""
            main, sub = renderer.media_type.split("/")
            matching = [
                range
                for range in ranges
                if range.main_type in ("*", main) and range.sub_type in ("*", sub)
            ]
            closest = max(matching, key=attrgetter("specificity"), default=None)
            return (closest.quality, closest.specificity) if closest else (0.0, 0)

        best = max(renderers, key=preference)
        if preference(best)[0] == 0.0:
            types = " or ".join(dict.fromkeys(renderer.media_type for renderer in renderers))
            raise Problem("not_acceptable", media_types=types)
        return best, best.media_type

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser | None:
        if request.META.get("HTTP_CONTENT_ENCODING"):
            raise Problem(  # RFC 9110 sections 12.5.3 and 15.5.16
                "unsupported_media_type",
                "The body has a Content-Encoding: send it without one.",
                headers={"Accept-Encoding": "identity"},
            )
        media_type = request.content_type.partition(";")[0].strip().lower()
        for parser in parsers:
            if parser.media_type == media_type:
                return parser
        return None

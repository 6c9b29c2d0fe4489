"""What the API speaks: JSON in, JSON out, and which of its renderers a client gets."""

from collections.abc import Iterable
from operator import attrgetter
from typing import Any

import orjson
from django.http import HttpRequest
from django.http.request import MediaType
from rest_framework.exceptions import NotAcceptable, ParseError
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request


class JSONRenderer(BaseRenderer):
    media_type = "application/json"
    format = "json"
    charset = None  # RFC 8259 section 11: JSON has no charset parameter
    render_style = "text"

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None
    ) -> bytes:
        if data is None:
            return b""
        # A browsable page shows it to a person.
        option = orjson.OPT_INDENT_2 if (renderer_context or {}).get("indent") else None
        return orjson.dumps(data, option=option)


class JSONParser(BaseParser):
    """Strict JSON (RFC 8259): UTF-8 without a BOM, no NaN, no lone surrogates, bounded nesting.

    The standard library's parser, and with it REST framework's, ends in a RecursionError on some
    hundred bytes of `[`.
    """

    media_type = "application/json"
    renderer_class = JSONRenderer

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> Any:
        try:
            return orjson.loads(stream.read())
        except orjson.JSONDecodeError as error:
            raise ParseError(f"The body is not JSON, or beyond its limits: {error}.") from None


class MergePatchParser(JSONParser):
    """RFC 7396: a member that is present is set, null included; one that is absent stays."""

    media_type = "application/merge-patch+json"


class Negotiation(BaseContentNegotiation):
    """Chooses by `Accept` (RFC 9110 section 12.5.1) and `Content-Type`."""

    def select_renderer(
        self, request: HttpRequest, renderers: Iterable[BaseRenderer], format_suffix: Any = None
    ) -> tuple[BaseRenderer, str]:
        renderers = list(renderers)
        accept = request.META.get("HTTP_ACCEPT") or "*/*"
        if accept in ("*/*", "application/json"):  # nearly every client
            return renderers[0], renderers[0].media_type
        ranges = [MediaType(text) for text in accept.split(",") if text.strip()]

        def quality(renderer: BaseRenderer) -> float:
            """As the most specific range that fits says. Parameters do not count: many a client
            says charset=utf-8, which JSON has anyway."""
            main, sub = renderer.media_type.split("/")
            fitting = [
                wanted
                for wanted in ranges
                if wanted.main_type in ("*", main) and wanted.sub_type in ("*", sub)
            ]
            return max(fitting, key=attrgetter("specificity")).quality if fitting else 0.0

        best = max(renderers, key=quality)
        if quality(best) == 0.0:
            raise NotAcceptable("The API answers in application/json.")
        return best, best.media_type

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser | None:
        media_type = request.content_type.partition(";")[0].strip().lower()
        for parser in parsers:
            if parser.media_type == media_type:
                return parser
        return None


class OneRenderer(Negotiation):
    """For views whose answer does not depend on `Accept`: probes send all kinds of it."""

    def select_renderer(
        self, request: HttpRequest, renderers: Iterable[BaseRenderer], format_suffix: Any = None
    ) -> tuple[BaseRenderer, str]:
        first = next(iter(renderers))
        return first, first.media_type

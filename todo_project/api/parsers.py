"""JSON in."""

from typing import Any

import orjson
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser

from todo_project.api.renderers import JSONRenderer


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

"""Parsers of request bodies."""

from typing import Any

import orjson
from rest_framework.parsers import BaseParser

from todo_project.api.problems import Problem
from todo_project.api.renderers import JSONRenderer


class JSONParser(BaseParser):
    """Strict JSON (RFC 8259): UTF-8 without a BOM, no NaN, no lone surrogates, limited nesting.

    REST framework's parser, which is the standard library's, raises RecursionError for a thousand
    bytes of `[`.
    """

    media_type = "application/json"
    renderer_class = JSONRenderer

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> Any:
        try:
            return orjson.loads(stream.read())
        except orjson.JSONDecodeError as error:
            raise Problem("parse_error", error=error) from None


class MergePatchParser(JSONParser):
    """RFC 7396: a member that is present is set, also to null; one that is absent is unchanged."""

    media_type = "application/merge-patch+json"

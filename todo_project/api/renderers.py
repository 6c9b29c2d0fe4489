"""Renderers of responses."""

from typing import Any

import orjson
from rest_framework.renderers import BaseRenderer


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
        indented = (renderer_context or {}).get("indent")  # for a page of the browsable API
        return orjson.dumps(data, option=orjson.OPT_INDENT_2 if indented else None)

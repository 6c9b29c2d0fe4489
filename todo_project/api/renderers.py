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
        # REST framework's Response puts itself in here: a cycle, which would keep a page of tasks
        # in memory until the garbage collector runs.
        (renderer_context or {}).pop("response", None)
        if data is None:
            return b""
        indented = (renderer_context or {}).get("indent")  # for a page of the browsable API
        if isinstance(data, bytes):  # JSON already
            if not indented:
                return data
            data = orjson.loads(data)
        return orjson.dumps(data, option=orjson.OPT_INDENT_2 if indented else None)

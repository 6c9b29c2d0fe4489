"""JSON out."""

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
        # A browsable page shows it to a person.
        option = orjson.OPT_INDENT_2 if (renderer_context or {}).get("indent") else None
        return orjson.dumps(data, option=option)

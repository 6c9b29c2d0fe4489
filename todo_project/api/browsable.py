"""The browsable API of development."""

import re
from collections.abc import Mapping
from typing import Any

import orjson
from django.conf import settings
from django.utils.html import escape, urlize
from django.utils.safestring import SafeString, mark_safe
from rest_framework.renderers import BaseRenderer, BrowsableAPIRenderer

from todo_project.api.middleware import page_policy

# The ids of a list's objects, in indented and escaped JSON: no text of a user begins a line.
_listed_id = re.compile(r"^(    &quot;id&quot;: &quot;)([^&]+)", re.MULTILINE)
_link_target = re.compile(r"&lt;(/.*?)&gt;")


class Renderer(BrowsableAPIRenderer):
    """REST framework's pages with links, forms that hold values, and nothing inline."""

    template = "todo_project/browsable.html"
    renderer_context: dict[str, Any]

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> Any:
        assert renderer_context is not None
        page = super().render(data, accepted_media_type, renderer_context)
        renderer_context["response"]["Content-Security-Policy"] = page_policy(form_action="'self'")
        return page

    def get_context(self, *args: Any) -> dict[str, Any]:
        context: dict[str, Any] = super().get_context(*args)
        headers = context["response_headers"]
        if "Location" in headers:
            headers["Location"] = _linked(f"<{headers['Location']}>")
        if "Link" in headers:
            headers["Link"] = _linked(headers["Link"])
        service = settings.SPECTACULAR_SETTINGS["TITLE"]
        return context | {"service": service, "code_style": ""}

    def get_content(
        self,
        renderer: BaseRenderer | None,
        data: Any,
        accepted_media_type: str | None,
        renderer_context: Mapping[str, Any],
    ) -> SafeString:
        text = orjson.dumps(data, option=orjson.OPT_INDENT_2).decode() if data is not None else ""
        html = urlize(text, nofollow=True, autoescape=True)
        if isinstance(data, list):
            path = renderer_context["request"].path.rstrip("/")
            html = _listed_id.sub(rf'\1<a href="{path}/\2">\2</a>', html)
        return mark_safe(html)  # noqa: S308  # urlize has escaped it

    def get_raw_data_form(self, data: Any, view: Any, method: str, request: Any) -> Any:
        """As REST framework's, with the values of the object shown, or those that were refused."""
        form = super().get_raw_data_form(data, view, method, request)
        status = self.renderer_context["response"].status_code
        shown = request.data if status in (412, 422) else data if status < 400 else None
        if form and isinstance(shown, dict):
            content = form.fields["_content"]
            values = orjson.loads(content.initial)
            values |= {name: shown[name] for name in values if name in shown}
            content.initial = orjson.dumps(values, option=orjson.OPT_INDENT_2).decode()
        return form


def _linked(header: str) -> SafeString:
    """The header (RFC 8288 section 3) with its targets as links."""
    return mark_safe(_link_target.sub(r'<a href="\1">\1</a>', escape(header)))  # noqa: S308

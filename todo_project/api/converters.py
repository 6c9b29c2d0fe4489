"""The `uuid` of the routes."""

import re
from uuid import UUID

from django.urls.converters import REGISTERED_CONVERTERS, get_converters

_is_uuid = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE
).fullmatch


def parse_uuid(text: str) -> UUID | None:
    """The UUID that a text spells out in its 8-4-4-4-12 form, in either case; else None."""
    return UUID(text) if _is_uuid(text) else None


class UUIDConverter:
    """Replaces Django's own `uuid`, which accepts lower case only, and for which a malformed id is
    an unknown URL: here the text is passed on, and the view answers 400."""

    regex = "[^/]+"

    def to_python(self, value: str) -> UUID | str:
        return parse_uuid(value) or value

    def to_url(self, value: UUID | str) -> str:
        return str(value)


def install() -> None:
    """Make this the `uuid` of every route.

    Django 6's `register_converter` refuses the names of its own converters.
    """
    REGISTERED_CONVERTERS["uuid"] = UUIDConverter()
    get_converters.cache_clear()  # type: ignore[attr-defined]

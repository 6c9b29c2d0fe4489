"""ETag, If-None-Match and If-Match (RFC 9110 sections 8.8.3 and 13.1).

A task's ETag is its `updated_at` in quotes: that rises with every change, so the tag is strong,
and a writing statement can compare it without reading the task first.
"""

import hashlib
import re
from collections.abc import Iterable

from django.http import HttpRequest

from tasks.models import Row

_is_strong = re.compile(r'"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{15}Z"').fullmatch


def etag(row: Row) -> str:
    return f'"{row.updated_at}"'


def page_etag(rows: Iterable[Row], links: str) -> str:
    """The tag of a page, which changes exactly when one of its tasks or its links do."""
    content = "".join([part for row in rows for part in (row.id, row.updated_at)]) + links
    return f'"{hashlib.blake2b(content.encode(), digest_size=16).hexdigest()}"'


def is_fresh(request: HttpRequest, current: str) -> bool:
    """Whether the client's If-None-Match names the current tag, by weak comparison."""
    header = request.META.get("HTTP_IF_NONE_MATCH")
    if header is None:
        return False
    tags = [tag.strip() for tag in header.split(",")]
    return tags == ["*"] or current in (tag.removeprefix("W/") for tag in tags)


def if_match(request: HttpRequest) -> list[str] | None:
    """The `updated_at` that a task may have for the request to go on; None: whatever it has.

    By strong comparison: a weak tag matches nothing, and neither does a malformed one. None of
    our tags has a comma in it, so that splitting at commas loses nothing that could match. What
    has not the form of ours stays out of the statement: it may hold what no database takes.
    """
    header = request.META.get("HTTP_IF_MATCH")
    if header is None or header.strip() == "*":
        return None
    return [tag[1:-1] for tag in map(str.strip, header.split(",")) if _is_strong(tag)]

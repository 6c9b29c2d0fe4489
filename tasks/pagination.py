"""Strict list parameters, opaque cursors, and the links from page to page (RFC 8288)."""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, urlencode
from uuid import UUID

import orjson
from django.conf import settings
from django.http import HttpRequest

from tasks.models import ListQuery, Position, Row
from todo_project.api.problems import BadRequest, FieldError, field_error

ORDERINGS = ("-created_at", "created_at", "-updated_at", "updated_at", "title", "-title")
MOST = 1000
SEARCH_LENGTH = 255


_is_not_utf8 = re.compile("[\ud800-\udfff]").search


class ListParameters:
    """The query string of a list request.

    Raises `BadRequest` that names every parameter which is unknown, given twice or bad: nothing
    is clamped or ignored in silence.
    """

    def __init__(self, request: HttpRequest, owner: UUID) -> None:
        self.given: dict[str, str] = {}
        self.owner = owner
        self._errors: list[FieldError] = []
        raw = request.META.get("QUERY_STRING", "")
        if not raw:  # most requests
            self.query = ListQuery()
            return
        # WSGI hands bytes over as Latin-1 (PEP 3333); what is not UTF-8 becomes lone surrogates.
        decoded = raw.encode("latin-1").decode(errors="surrogateescape")
        for name, value in parse_qsl(decoded, keep_blank_values=True, errors="surrogateescape"):
            if _is_not_utf8(name + value):
                self._wrong(name.encode(errors="replace").decode(), "invalid", "It is not UTF-8.")
            elif name not in READERS:
                self._wrong(name, "unknown_parameter", "There is no such parameter.")
            elif name in self.given:
                self._wrong(name, "repeated_parameter", "This parameter is given twice.")
            else:
                self.given[name] = value
        values: dict[str, Any] = {}
        for name, value in self.given.items():
            try:
                if name != "cursor":
                    values[name] = READERS[name](value)
            except ValueError as error:
                self._wrong(name, "invalid", str(error))
        self._raise()
        self.query = ListQuery(**values)
        if "cursor" in self.given:
            try:
                self.query = self.query._replace(after=self._position(self.given["cursor"]))
            except ValueError:
                self._wrong("cursor", "invalid_cursor", "This cursor is not of this list.")
                self._raise()

    def _wrong(self, name: str, code: str, detail: str) -> None:
        self._errors.append(field_error(name, code, detail))

    def _raise(self) -> None:
        if self._errors:
            first = self._errors[0]
            code = "invalid_cursor" if first["code"] == "invalid_cursor" else "invalid_parameter"
            detail = f"Bad query parameter {first['field']}: {first['detail']}"
            raise BadRequest(detail, code, errors=self._errors[:100])

    def window(self, found: list[Row]) -> tuple[list[Row], list[tuple[str, Position]]]:
        """The page, and the ways on from it, out of what `TaskQuerySet.page` found.

        A page that came from a cursor has something, or had, on the side that it came from.
        """
        query, after = self.query, self.query.after
        more = len(found) > query.limit
        rows = found[: query.limit]
        backward = after is not None and after.backward
        if backward:
            rows.reverse()
        ways: list[tuple[str, Position]] = []
        if rows:
            field = query.ordering.removeprefix("-")
            if more or backward:
                last = rows[-1]
                ways.append(("next", Position(False, False, getattr(last, field), last.id)))
            if after is not None and (more or not backward):
                first = rows[0]
                ways.append(("prev", Position(True, False, getattr(first, field), first.id)))
        elif after is not None:
            # Emptied meanwhile: the way back counts the task at the cursor in.
            way = "next" if backward else "prev"
            ways.append((way, after._replace(backward=not backward, inclusive=True)))
        return rows, ways

    def link(self, path: str, position: Position) -> str:
        """The path-absolute address of the page at a position."""
        return f"{path}?{urlencode({**self.given, 'cursor': self._cursor(position)})}"

    def _cursor(self, position: Position) -> str:
        flags = position.backward + 2 * position.inclusive
        payload = bytes([flags]) + UUID(position.id).bytes + position.value.encode()
        return _base64(self._mac(payload) + payload)

    def _position(self, cursor: str) -> Position:
        """Raises ValueError for a cursor that `_cursor` has not made for this very list."""
        try:
            decoded = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        except binascii.Error as error:
            raise ValueError from error
        mac, payload = decoded[:16], decoded[16:]
        # The spelling is compared as well: base64 has several for the same bytes.
        if not hmac.compare_digest(mac, self._mac(payload)) or _base64(decoded) != cursor:
            raise ValueError
        return Position(
            backward=bool(payload[0] & 1),
            inclusive=bool(payload[0] & 2),
            value=payload[17:].decode(),
            id=str(UUID(bytes=payload[1:17])),
        )

    def _mac(self, payload: bytes) -> bytes:
        query = self.query
        scope = [str(self.owner), query.ordering, query.is_completed, query.search]
        return hmac.digest(_key(settings.SECRET_KEY), orjson.dumps(scope) + payload, "sha256")[:16]


@lru_cache(maxsize=2)
def _key(secret: str) -> bytes:
    return hashlib.sha256(b"tasks.pagination:" + secret.encode()).digest()


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _is_completed(value: str) -> bool:
    if value not in ("true", "false"):
        raise ValueError("It must be true or false.")
    return value == "true"


def _search(value: str) -> str:
    if not 1 <= len(value) <= SEARCH_LENGTH:
        raise ValueError(f"It must have 1 to {SEARCH_LENGTH} characters.")
    if "\0" in value:
        raise ValueError("Null characters are not allowed.")
    return value


def _ordering(value: str) -> str:
    if value not in ORDERINGS:
        raise ValueError(f"It must be one of {', '.join(ORDERINGS)}.")
    return value


def _limit(value: str) -> int:
    if not re.fullmatch("[0-9]{1,4}", value) or not 1 <= int(value) <= MOST:
        raise ValueError(f"It must be a whole number from 1 to {MOST}.")
    return int(value)


READERS: dict[str, Callable[[str], Any]] = {
    "is_completed": _is_completed,
    "search": _search,
    "ordering": _ordering,
    "limit": _limit,
    "cursor": str,
}

"""The query string of a list, and the links from page to page (RFC 8288)."""

import re
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import parse_qsl, urlencode
from uuid import UUID

import orjson
from django.http import HttpRequest
from rest_framework.exceptions import ErrorDetail, ValidationError

from tasks import cursors
from tasks.models import Task, TaskJSON
from tasks.statements import Cursor, PageQuery
from todo_project.api.fields import ChoiceField, IntegerField, StrictField, TextField
from todo_project.api.problems import FieldError, Problem, declare, field_error
from todo_project.api.serializers import MAX_ERRORS

MAX_LIMIT = 1000
MAX_SEARCH_LENGTH = 255
_both_ways = [way + name for name in Task.resource.orderable for way in ("", "-")]
ORDERINGS = tuple(dict.fromkeys([PageQuery().ordering, *_both_ways]))  # the default first

_has_surrogates = re.compile("[\ud800-\udfff]").search


class LimitField(IntegerField):
    def parse_parameter(self, text: str) -> int:
        """Allows leading zeros."""
        return self.to_internal_value(
            int(text) if re.fullmatch("[0-9]{1,4}", text, re.ASCII) else text
        )


FILTERS: dict[str, StrictField] = {
    name: Task.resource.output[name] for name in Task.resource.filterable
}
FIELDS: dict[str, StrictField] = FILTERS | {
    "search": TextField(
        help_text=f"Only tasks with this text in {' or '.join(Task.resource.searchable)}, "
        "whatever the case.",
        max_length=MAX_SEARCH_LENGTH,
        trim_whitespace=False,
        error_messages=dict.fromkeys(
            ["blank", "max_length"], f"It must have 1 to {MAX_SEARCH_LENGTH} characters."
        ),
    ),
    "ordering": ChoiceField(
        help_text="A field to order by, descending with `-`. Text is ordered by code point.",
        choices=ORDERINGS,
        error_messages={"invalid_choice": f"It must be one of {', '.join(ORDERINGS)}."},
    ),
    "limit": LimitField(
        help_text="The number of tasks on a page. It may change between pages.",
        min_value=1,
        max_value=MAX_LIMIT,
        error_messages=dict.fromkeys(
            ["invalid", "min_value", "max_value"],
            f"It must be a whole number from 1 to {MAX_LIMIT}.",
        ),
    ),
}
PARSERS: dict[str, Callable[[str], Any]] = {
    **{name: field.parse_parameter for name, field in FIELDS.items()},
    "cursor": str,
}


BAD_PARAMETER = "Bad query parameter {errors[0][field]}: {errors[0][detail]}"
declare(400, invalid_parameter=BAD_PARAMETER, invalid_cursor=BAD_PARAMETER)


class ListParameters:
    """The parameters of one request for a list.

    Raises Problem naming every parameter that is unknown, repeated or bad: nothing is
    clamped or ignored.
    """

    def __init__(self, request: HttpRequest, owner: UUID) -> None:
        self.given: dict[str, str] = {}
        self.query = PageQuery()
        self._owner = owner
        if query_string := request.META.get("QUERY_STRING", ""):  # most requests have none
            self._parse(query_string)

    def _parse(self, query_string: str) -> None:
        # WSGI decodes bytes as Latin-1 (PEP 3333); what is not UTF-8 becomes lone surrogates.
        decoded = query_string.encode("latin-1").decode(errors="surrogateescape")
        errors: list[FieldError] = []
        for name, value in parse_qsl(decoded, keep_blank_values=True, errors="surrogateescape"):
            if _has_surrogates(name + value):
                shown = name.encode(errors="replace").decode()
                errors.append(field_error(shown, "invalid", "It is not UTF-8."))
            elif name not in PARSERS:
                errors.append(field_error(name, "unknown_parameter", "There is no such parameter."))
            elif name in self.given:
                errors.append(
                    field_error(name, "repeated_parameter", "This parameter is given twice.")
                )
            else:
                self.given[name] = value
        values: dict[str, Any] = {}
        for name, value in self.given.items():
            try:
                values[name] = PARSERS[name](value)
            except ValidationError as error:
                (detail,) = cast("list[ErrorDetail]", error.detail)
                errors.append(field_error(name, str(detail.code), str(detail)))
        if errors:
            raise Problem("invalid_parameter", errors=errors[:MAX_ERRORS])
        cursor = values.pop("cursor", None)
        filters = tuple((name, values.pop(name)) for name in FILTERS if name in values)
        self.query = PageQuery(filters=filters, **values)
        if cursor is not None:
            try:
                place = cursors.decode(cursor, self.query.ordering, self._scope())
            except ValueError:
                errors = [
                    field_error("cursor", "invalid_cursor", "This is no cursor of this list.")
                ]
                raise Problem("invalid_cursor", errors=errors) from None
            self.query = self.query._replace(cursor=place)

    def _scope(self) -> bytes:
        """What a cursor is for: one owner's list with its filters and order."""
        return orjson.dumps(
            [self._owner, self.query.filters, self.query.search, self.query.ordering]
        )

    def paginate(self, found: list[str], path: str) -> tuple[list[str], str]:
        """The page out of what `TaskQuerySet.page` found, and its `Link` header.

        A page that came from a cursor has something, or had, on the side that it came from.
        """
        query, cursor = self.query, self.query.cursor
        has_more = len(found) > query.limit
        page = found[: query.limit]
        backward = cursor is not None and cursor.backward
        if backward:
            page.reverse()
        links: dict[str, Cursor] = {}
        if page:
            if has_more or backward:
                links["next"] = self._cursor(page[-1], backward=False)
            if cursor is not None and (has_more or not backward):
                links["prev"] = self._cursor(page[0], backward=True)
        elif cursor is not None:
            # All of its tasks are gone: the way back includes the task at the cursor.
            links["next" if backward else "prev"] = cursor._replace(
                backward=not backward, inclusive=True
            )
        return page, ", ".join(f'<{path}?{self._link(to)}>; rel="{r}"' for r, to in links.items())

    def _cursor(self, task_json: str, backward: bool) -> Cursor:
        task: TaskJSON = orjson.loads(task_json)
        field = self.query.ordering.removeprefix("-")
        value = Task.resource.output[field].from_representation(task[field])
        return Cursor(backward, inclusive=False, value=value, id=UUID(task["id"]))

    def _link(self, cursor: Cursor) -> str:
        encoded = cursors.encode(cursor, self.query.ordering, self._scope())
        return urlencode({**self.given, "cursor": encoded})

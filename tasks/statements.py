"""The statements on tasks: one for each operation, put together from the declaration.

They are written out, because the ORM would build and compile a text that never changes again for
each request. Every one is narrowed to one owner.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import cache, lru_cache
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from django.db import connection, models

from todo_project.api.resource import Resource
from todo_project.database.dialects import DIALECTS

TABLE = "tasks_task"
OWNED = "user_id = %s"
ONE = "user_id = %s AND id = %s"


class Cursor(NamedTuple):
    """Where a page begins: before or behind a task's place in an order.

    `backward` looks from there towards the beginning. With `inclusive` a task at exactly that place
    belongs to the page. `value` is the task's value of the ordering field.
    """

    backward: bool
    inclusive: bool
    value: Any
    id: UUID


class PageQuery(NamedTuple):
    """Which of an owner's tasks make a page: filters by field, order, and where it begins."""

    filters: tuple[tuple[str, Any], ...] = ()
    search: str | None = None
    ordering: str = "-created_at"
    limit: int = 1000
    cursor: Cursor | None = None


class Statements:
    """The statements for one database, and how their rows are read.

    `read` makes a task, as JSON has it, of a row of RETURNING; `read_selected` and
    `read_selected_json` make a task and its text of a row of SELECT.
    """

    def __init__(self, resource: Resource, vendor: str) -> None:
        self.dialect = DIALECTS[vendor]
        self.fields = resource.model_fields
        self.searchable = resource.searchable
        returned = [self.fields[name] for name in resource.returned]
        self.returning = ", ".join(map(self.dialect.returned, returned))
        self.selected = self.dialect.selected(returned)
        self._readers = [
            (name, _reader(self.dialect.converter(self.fields[name]), field))
            for name, field in resource.output.items()
        ]
        # Built once for each combination of arguments that requests use.
        self.insert = cache(self._insert)
        self.update = lru_cache(maxsize=256)(self._update)
        self.delete = cache(self._delete)
        self.page = lru_cache(maxsize=256)(self._page)
        self.select = f"SELECT {self.selected} FROM {TABLE} WHERE {ONE}"
        self.erase = f"""
            DELETE FROM {TABLE} WHERE {OWNED} AND id IN
            (SELECT id FROM {TABLE} WHERE {OWNED} ORDER BY created_at, id LIMIT %s) RETURNING 1"""
        self.key_exists = f"SELECT 1 FROM {TABLE} WHERE {OWNED} AND idempotency_key = %s"

    # Rows ---------------------------------------------------------------------------------

    def read(self, row: tuple[Any, ...]) -> dict[str, Any]:
        return {
            name: value if reader is None or value is None else reader(value)
            for (name, reader), value in zip(self._readers, row, strict=True)
        }

    def read_selected(self, row: tuple[Any, ...]) -> dict[str, Any]:
        return orjson.loads(row[0]) if self.dialect.selects_json else self.read(row)

    def read_selected_json(self, row: tuple[Any, ...]) -> str:
        return row[0] if self.dialect.selects_json else orjson.dumps(self.read(row)).decode()

    def parameters(self, values: Mapping[str, Any]) -> list[Any]:
        """The parameters for some fields of a task."""
        return [self.dialect.parameter(self.fields[name], value) for name, value in values.items()]

    def _columns(self, names: Iterable[str]) -> str:
        return ", ".join(str(self.fields[name].column) for name in names)

    # Texts --------------------------------------------------------------------------------

    def _insert(self, limited: bool) -> str:
        """A key used before touches its row, so that RETURNING has it, unless the values differ.

        `limited` to a number of tasks of the owner, unless the key was used before.
        """
        values = ", ".join(["%s"] * len(self.fields))
        source = f"VALUES ({values})"
        if limited:
            typed = ", ".join(f"CAST(%s AS {_type(field)})" for field in self.fields.values())
            source = f"""SELECT {typed}
                WHERE %s > (SELECT count(*) FROM (SELECT 1 FROM {TABLE} WHERE {OWNED} LIMIT %s) t)
                OR EXISTS ({self.key_exists})"""
        return f"""
            INSERT INTO {TABLE} ({self._columns(self.fields)})
            {source}
            ON CONFLICT (user_id, idempotency_key) WHERE idempotency_key IS NOT NULL
            DO UPDATE SET idempotency_key = excluded.idempotency_key
            WHERE {TABLE}.idempotency_digest = excluded.idempotency_digest
            RETURNING {self.returning}"""

    def _update(self, fields: tuple[str, ...], match: bool, none_match: bool) -> str:
        """Set some fields, or with none toggle; `updated_at` moves only if a value does.

        The time is a parameter and rises past the row's own. `now()` would be the start of the
        transaction, and go back behind a writer that waited less.
        """
        next_time = self.dialect.next_time.format("updated_at")
        if fields:
            values = ", ".join(["%s"] * len(fields))
            differ = self.dialect.differ.format(self._columns(fields), values)
            changes = ", ".join(f"{self.fields[name].column} = %s" for name in fields)
            changes += f", updated_at = CASE WHEN {differ} THEN {next_time} ELSE updated_at END"
        else:
            changes = f"is_completed = NOT is_completed, updated_at = {next_time}"
        where = ONE + self._conditions(match, none_match)
        return f"UPDATE {TABLE} SET {changes} WHERE {where} RETURNING {self.returning}"

    def _delete(self, match: bool, none_match: bool) -> str:
        where = ONE + self._conditions(match, none_match)
        return f"DELETE FROM {TABLE} WHERE {where} RETURNING 1"

    def _conditions(self, match: bool, none_match: bool) -> str:
        is_one_of = self.dialect.is_one_of.format("updated_at", _type(self.fields["updated_at"]))
        where = f" AND {is_one_of}" if match else ""
        return where + (f" AND NOT {is_one_of}" if none_match else "")

    def _page(
        self, ordering: str, filters: tuple[str, ...], searched: bool, cursor: tuple[Any, ...]
    ) -> str:
        """One page by keyset: the index is entered where the page begins, at any depth.

        `cursor` is empty, or says of the page's `Cursor` (backward, inclusive, value is null).
        Null is greater than every value, as PostgreSQL has it.
        """
        descending, name = ordering.startswith("-"), ordering.removeprefix("-")
        field = self.fields[name]
        column = str(field.column)
        if isinstance(field, models.TextField | models.CharField):
            column = self.dialect.by_code_point.format(column)
        where = [OWNED, *(f"{self.fields[name].column} = %s" for name in filters)]
        if searched:
            columns = (self.fields[name].column for name in self.searchable)
            where.append(f"({' OR '.join(map(self.dialect.contains.format, columns))})")
        if cursor:
            backward, inclusive, is_null = cursor
            descending ^= backward  # looking backward is the same query in the opposite order
            sign = ("<" if descending else ">") + ("=" if inclusive else "")
            if is_null:
                where.append(
                    f"({column} IS NOT NULL OR id {sign} %s)"
                    if descending
                    else f"({column} IS NULL AND id {sign} %s)"
                )
            elif field.null and not descending:
                where.append(f"(({column}, id) {sign} (%s, %s) OR {column} IS NULL)")
            else:
                where.append(f"({column}, id) {sign} (%s, %s)")
        direction = "DESC" if descending else "ASC"
        nulls = f" NULLS {'FIRST' if descending else 'LAST'}" if field.null else ""
        return f"""
            SELECT {self.selected} FROM {TABLE} WHERE {" AND ".join(where)}
            ORDER BY {column} {direction}{nulls}, id {direction} LIMIT %s"""


def _reader(convert: Callable[[Any], Any] | None, field: Any) -> Callable[[Any], Any] | None:
    """From a database value to JSON; None if it is that already."""
    represent = None if field.is_json_type else field.to_representation
    if convert is None or represent is None:
        return convert or represent
    return lambda value: represent(convert(value))


def _type(field: models.Field) -> str:
    return str(field.db_type(connection))

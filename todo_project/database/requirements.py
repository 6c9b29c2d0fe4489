"""What the service needs of its database: tables with their columns, and rights on them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from django.db import connection

from todo_project.database.execute import run


class Table(NamedTuple):
    """A table that requests use.

    `rights` has the columns for which each of SELECT, INSERT and UPDATE is needed; DELETE, which
    is a right on the whole table, has none.
    """

    name: str
    rights: Mapping[str, Sequence[str]]


tables: list[Table] = []
"""Apps add theirs when they are ready."""

# Asks the catalog alone: it reads no row, takes no lock on the table and works on Citus as well. A
# table or column that does not exist is an error.
MISSING = """
    SELECT "right", "table", "column"
    FROM unnest(%s::text[], %s::text[], %s::text[]) AS needed ("table", "right", "column")
    WHERE NOT CASE "column" WHEN '' THEN has_table_privilege("table", "right")
                            ELSE has_column_privilege("table", "column", "right") END"""


def missing_rights() -> list[str]:
    """The rights that the service lacks, such as "UPDATE on tasks_task.title".

    One round trip. Raises DatabaseError for a table or column that does not exist.
    """
    if connection.vendor == "sqlite":
        for table in tables:  # there are no rights there, but files that cannot be written
            columns = {column for columns in table.rights.values() for column in columns}
            changes = ", ".join(f'"{column}" = "{table.name}"."{column}"' for column in columns)
            run(f'UPDATE "{table.name}" SET {changes} WHERE 0', ())
        return []
    needed = list(zip(*_needed(), strict=True))
    rows = run(MISSING, [list(values) for values in needed], read=True)
    return [f"{right} on {table}.{column}".rstrip(".") for right, table, column in rows]


def _needed() -> Iterator[tuple[str, str, str]]:
    for table in tables:
        for right, columns in table.rights.items():
            for column in columns or [""]:
                yield f'"{table.name}"', right, column

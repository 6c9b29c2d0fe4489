"""What the service needs of its database: tables with their columns, and rights on them."""

from collections.abc import Mapping, Sequence

from django.db import connection

from todo_project.database.execute import run

tables: dict[str, Mapping[str, Sequence[str]]] = {}
"""By table, the columns for which requests need each of SELECT, INSERT and UPDATE; DELETE, which is
a right on the whole table, has none. Apps add theirs when they are ready."""

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
        for table, rights in tables.items():  # no rights there, but files that cannot be written
            columns = {column for columns in rights.values() for column in columns}
            changes = ", ".join(f'"{column}" = "{table}"."{column}"' for column in columns)
            run(f'UPDATE "{table}" SET {changes} WHERE 0', ())
        return []
    needed = [
        (f'"{table}"', right, column)
        for table, rights in tables.items()
        for right, columns in rights.items()
        for column in columns or [""]
    ]
    rows = run(MISSING, [list(values) for values in zip(*needed, strict=True)], read=True)
    return [f"{right} on {table}.{column}".rstrip(".") for right, table, column in rows]

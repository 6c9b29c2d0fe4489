"""Django's `migrate`, on the connection that migrations belong on."""

from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from django.core.management.commands import migrate
from django.db import Error
from django.db.migrations.exceptions import MigrationSchemaMissing

from todo_project.database.errors import Reason, is_unavailable, unavailable_reason


class Command(migrate.Command):
    """`--database` is by default the one of `DATABASE_URL_UNPOOLED`, where that is set.

    Raises CommandError for a database that is away, not in UTF-8 or cannot be written, and for a
    migration that cannot get its lock (see `SchemaEditor`).
    """

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        if "unpooled" in settings.DATABASES:
            parser.set_defaults(database="unpooled")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            super().handle(*args, **options)
        except MigrationSchemaMissing as error:
            raise CommandError(one_line(error)) from error
        except Error as error:
            if not is_unavailable(error):
                raise
            problem = one_line(error)
            if unavailable_reason(error) is Reason.LOCKED:
                problem += (
                    ": another session holds a lock that this migration needs. It was undone, the"
                    " ones before it stay applied; run migrate again when the session has ended."
                )
            elif settings.DATABASES[options["database"]]["ENGINE"].endswith("sqlite"):
                problem += f": {settings.DATABASES[options['database']]['NAME']}"
            raise CommandError(problem) from error


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())

"""Django's `migrate`, on the connection that migrations belong on."""

from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from django.core.management.commands import migrate
from django.db import Error
from django.db.migrations.exceptions import MigrationSchemaMissing

from todo_project.database.errors import Reason, unavailable_reason
from todo_project.management.command_line import one_line


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
        except Error as error:
            problem, reason = one_line(error), unavailable_reason(error)
            if reason is None and not isinstance(error, MigrationSchemaMissing):
                raise
            if reason is Reason.LOCKED:
                problem += (
                    ": another session holds a lock that this migration needs. It was undone, the"
                    " ones before it stay applied; run migrate again when the session has ended."
                )
            elif settings.DATABASES[options["database"]]["ENGINE"].endswith("sqlite"):
                problem += f": {settings.DATABASES[options['database']]['NAME']}"
            raise CommandError(problem) from error

"""Django's `migrate`, on the connection that migrations belong on."""

from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from django.core.management.commands import migrate
from django.db import OperationalError

LOCK_NOT_AVAILABLE = "55P03"


class Command(migrate.Command):
    """`--database` is by default the one of `DATABASE_URL_UNPOOLED`, where that is set.

    A migration that cannot get its lock gives up (see `SchemaEditor`): CommandError.
    """

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        if "unpooled" in settings.DATABASES:
            parser.set_defaults(database="unpooled")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            super().handle(*args, **options)
        except OperationalError as error:
            if getattr(error.__cause__, "sqlstate", None) != LOCK_NOT_AVAILABLE:
                raise
            raise CommandError(
                f"{error}: another session holds a lock that this migration needs. It was undone,"
                " the ones before it stay applied; run migrate again when the session has ended."
            ) from error

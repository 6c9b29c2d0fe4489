"""`manage.py erase_user USER_ID`: delete all tasks of a user for good."""

import logging
import time
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error

from tasks.models import Task
from todo_project.api.converters import parse_uuid
from todo_project.database.errors import is_unavailable
from todo_project.management.command_line import one_line, show_progress, uuid

logger = logging.getLogger(__name__)


class Command(BaseCommand):
    help = (
        "Delete all tasks of a user for good, in batches. It can be interrupted: what is deleted "
        "stays deleted, and the next run goes on."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("user_id", type=uuid)
        parser.add_argument("--yes", action="store_true", help="do not ask for the id once more")

    def handle(self, *args: Any, user_id: UUID, yes: bool, **options: Any) -> None:
        """Raises CommandError if it was not confirmed, or did not finish."""
        erased = 0
        try:
            tasks = Task.objects.owned_by(user_id)
            totals = tasks.totals()
            if totals is None:
                self.stdout.write(f"User {user_id} has no tasks.")
                return
            total = totals["open"] + totals["completed"]
            if not yes:
                self.confirm(user_id, total)
            began = time.monotonic()
            for batch in tasks.erase():
                erased += batch
                show_progress(self.stdout, erased, total, erased / (time.monotonic() - began))
        except KeyboardInterrupt:
            raise CommandError(f"Interrupted: {erased:,} tasks erased. Run it again.") from None
        except Error as error:
            if not is_unavailable(error):
                raise
            problem = f"{erased:,} tasks erased, then: {one_line(error)}. Run it again."
            raise CommandError(problem) from error
        finally:
            if erased:
                logger.info("erase_user: %s tasks of user %s erased", erased, user_id)
        self.stdout.write(f"{erased:,} tasks of user {user_id} erased.")

    def confirm(self, user_id: UUID, total: int) -> None:
        question = f"User {user_id} has {total:,} tasks. Type the id to delete them for good: "
        try:
            typed = input(question)
        except EOFError:
            raise CommandError("Nothing was erased: there is no input. See --yes.") from None
        if parse_uuid(typed.strip()) != user_id:
            raise CommandError("Nothing was erased: this is not the user's id.")

"""`manage.py load_demo`: tasks to look at, or to try the service's speed with."""

import hashlib
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.apps import apps
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection, reset_queries

from todo_project.first_steps import SAMPLE_USER
from todo_project.management.command_line import positive, show_progress

BATCH = 10_000
"""Tasks in a transaction, and in a step of the progress bar."""

TITLES = ("Buy milk", "Call Mum", "Pay the rent", "Book a train", "Water the plants")


# The benchmarks name users and tasks by these as well.
def user_id(user: int) -> UUID:
    return UUID(hashlib.md5(b"user%d" % user, usedforsecurity=False).hexdigest())


def task_id(task: int) -> UUID:
    return UUID(hashlib.md5(b"task%d" % task, usedforsecurity=False).hexdigest())


def demo_values(task: int, users: int) -> dict[str, Any]:
    """The fields of a demo task. Each user in turn gets one."""
    created = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(seconds=task)
    user = task % users
    return {
        "id": task_id(task),
        "user_id": user_id(user) if user else UUID(SAMPLE_USER),
        "title": f"{TITLES[task % len(TITLES)]} ({task})",
        "description": f"Details of task {task}" if task % 3 else None,
        "is_completed": task % 4 == 0,
        "created_at": created,
        "updated_at": created,
    }


class Command(BaseCommand):
    help = (
        "Add demo tasks. They have fixed ids, and those that are there are left as they are: the"
        " same command again adds nothing, one with more --tasks adds the difference."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--users", type=positive, default=100, help="default: 100")
        parser.add_argument("--tasks", type=positive, default=10_000, help="default: 10000")
        parser.add_argument("--force", action="store_true", help="also with DEBUG off")

    def handle(self, *args: Any, users: int, tasks: int, force: bool, **options: Any) -> None:
        if not (settings.DEBUG or force):
            name = connection.settings_dict["NAME"]
            raise CommandError(f"DEBUG is off. To add demo tasks to {name} anyway: --force")
        began, added = time.monotonic(), 0
        for first in range(0, tasks, BATCH):
            last = min(first + BATCH, tasks)
            added += self._add(range(first, last), users)
            show_progress(self.stderr, last, tasks, last / (time.monotonic() - began))
        with connection.cursor() as cursor:
            cursor.execute(f"ANALYZE {apps.get_model('tasks', 'Task')._meta.db_table}")
        seconds = time.monotonic() - began
        self.stdout.write(
            f"{added} tasks added in {seconds:.1f} s ({added / seconds:.0f}/s), "
            f"{tasks - added} were there. One of the {users} users is {SAMPLE_USER}."
        )

    def _add(self, numbers: range, users: int) -> int:
        """Add the tasks of these numbers that are missing; return how many."""
        tasks = apps.get_model("tasks", "Task")._default_manager
        ids = {task_id(number): number for number in numbers}
        present = set(tasks.filter(id__in=list(ids)).values_list("id", flat=True))
        missing = [demo_values(number, users) for id, number in ids.items() if id not in present]
        tasks.bulk_create([tasks.model(**values) for values in missing])
        reset_queries()  # with DEBUG Django keeps each statement with its parameters
        return len(missing)

"""Values and routes for several test files."""

import json
from datetime import UTC, datetime
from io import StringIO
from typing import Any
from uuid import UUID, uuid4

from tasks.models import Task
from tests.client import ALICE, NOBODYS, TASKS


class Terminal(StringIO):
    """An output stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


KEYS = list(Task.resource.returned)
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"

MISSING = f"{TASKS}/{NOBODYS}"

# Every route of the API with a valid body and the status of its success.
WRITES: list[tuple[str, str, dict[str, Any], int]] = [
    ("POST", "", {"title": "New"}, 201),
    ("PUT", "/{id}", {"title": "New", "description": None, "is_completed": True}, 200),
    ("PATCH", "/{id}", {"title": "New"}, 200),
    ("PATCH", "/{id}/complete", {"is_completed": True}, 200),
]
READS = [("GET", "", 200), ("GET", "/{id}", 200), ("HEAD", "", 200), ("HEAD", "/{id}", 200)]

# Text that must be returned unchanged, in any field.
TEXTS = [
    "Buy milk",
    "Straße, ÅÄÖ, ﬁ",
    "e\u0301 is not \u00e9",  # combining: no normalization
    "👩‍👩‍👧‍👦 🇳🇵 😀",
    "עברית \u202eright to left\u202c",
    "\u200bzero\u200bwidth\ufeff",
    "a\u2028b\u2029c\x7f\x01d",
    "'; DROP TABLE tasks_task; -- %s %(x)s {} \\u0041 \\",
    "<script>&amp;",
    "line\r\nline\ttab",
    "\ufffd\uffff\U0010ffff",
    "null",
]

# Fields that every write refuses, with the code of the error.
BAD_FIELDS: list[tuple[str, Any, str]] = [
    ("title", None, "null"),
    ("title", 5, "invalid"),
    ("title", True, "invalid"),
    ("title", ["Buy"], "invalid"),
    ("title", {"en": "Buy"}, "invalid"),
    ("title", "", "blank"),
    ("title", " \t\r\n\u00a0\u2003\u3000\u2028", "blank"),
    ("title", "a" * 256, "max_length"),
    ("title", "😀" * 256, "max_length"),
    ("title", "a\0b", "null_characters_not_allowed"),
    ("description", 5, "invalid"),
    ("description", False, "invalid"),
    ("description", ["Buy"], "invalid"),
    ("description", "a" * 2001, "max_length"),
    ("description", "😀" * 2001, "max_length"),
    ("description", "\0", "null_characters_not_allowed"),
    ("is_completed", None, "null"),
    ("is_completed", "true", "invalid"),
    ("is_completed", "yes", "invalid"),
    ("is_completed", 1, "invalid"),
    ("is_completed", 0, "invalid"),
    ("is_completed", 1.0, "invalid"),
    ("is_completed", [], "invalid"),
    ("titel", "Buy", "unknown_field"),
    ("", "Buy", "unknown_field"),
    ("idempotency_key", "x", "unknown_field"),
]


def shown(value: Any) -> str:
    """A test id: short, ASCII and unique."""
    return json.dumps(value)[:40] if not isinstance(value, bytes) else repr(value[:40])


def make_tasks(number: int, title: str = "Buy milk", **fields: Any) -> list[str]:
    """Create tasks of Alice with the same times and random ids; return the ids."""
    same = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)  # no fraction: SQLite then keeps none
    fields = {"user_id": UUID(ALICE), "created_at": same, "updated_at": same, **fields}
    tasks = [Task(id=uuid4(), title=title, **fields) for _ in range(number)]
    return [str(task.id) for task in Task.objects.bulk_create(tasks)]

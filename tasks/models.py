"""Tasks: the fields, what the API does with each, and the operations on an owner's tasks."""

import hashlib
import secrets
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from django.core.validators import MaxLengthValidator
from django.db import connection, models
from django.db.models.expressions import RawSQL
from django.db.models.functions import Length
from django.db.models.lookups import Exact
from django.db.models.sql.where import AND

from tasks.statements import PageQuery, Statements
from todo_project.api.resource import APIField, Resource
from todo_project.database.execute import run

models.TextField.register_lookup(Length)  # for the constraints below

PAGE_SIZE = 1000
"""Tasks in a page of `TaskQuerySet.in_pages`."""

BATCH_SIZE = 5000
"""Tasks that a statement of `TaskQuerySet.erase` deletes."""

TITLE_LENGTH = 255
DESCRIPTION_LENGTH = 2000


def uuid7(now: datetime | None = None) -> UUID:
    """A UUID of version 7 (RFC 9562 section 5.7), with the microseconds in its `rand_a`.

    New tasks go to the right edge of the primary key's index instead of to a random page of it,
    and sort as they were made. The time that it tells, `created_at` tells as well.
    """
    micros = (now or datetime.now(UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    millis, rest = divmod(micros // timedelta(microseconds=1), 1000)
    head = millis << 16 | 0x7000 | rest * 4096 // 1000
    return UUID(int=head << 64 | 0b10 << 62 | secrets.randbits(62))


class Preconditions(NamedTuple):
    """Which `updated_at` a task may have for a write to happen; None is any."""

    match: list[datetime] | None = None
    none_match: list[datetime] | None = None

    def are_met_by(self, task: Mapping[str, Any]) -> bool:
        updated_at = datetime.fromisoformat(task["updated_at"])
        matches = self.match is None or updated_at in self.match
        return matches and updated_at not in (self.none_match or ())


NO_PRECONDITIONS = Preconditions()

TaskJSON = dict[str, Any]
"""A task as the API returns it."""


class NotOwned(TypeError):
    """An operation was called on a set that is not all of one owner's tasks."""


class KeyReused(Exception):
    """The idempotency key was used with other values."""


class TooManyTasks(Exception):
    """The owner has as many tasks as they may have."""


class TaskQuerySet(models.QuerySet["Task"]):
    """The operations of the API run one statement each, and raise NotOwned unless the set is what
    `owned_by` returned: they know no other condition than the owner."""

    _owner: UUID | None = None

    def add(
        self, values: Mapping[str, Any], key: str | None = None, limit: int | None = None
    ) -> TaskJSON:
        """Create a task, or with an idempotency key used before return the one that it made.

        With `limit` only if the owner has fewer tasks. Creates that race may each find the last
        place free. Raises KeyReused or TooManyTasks.
        """
        statements, owner, now = self._statements(), self._required_owner(), datetime.now(UTC)
        every = {
            **NOTHING,
            **values,
            "id": uuid7(now),
            "user_id": owner,
            "created_at": now,
            "updated_at": now,
            "idempotency_key": key,
            "idempotency_digest": None if key is None else digest(values),
        }
        parameters = statements.parameters(every)
        if limit is not None:
            mine = statements.parameters({"user_id": owner})
            parameters += [limit, *mine, limit, *mine, key]
        rows = run(statements.insert(limit is not None), parameters)
        if rows:
            return statements.read(rows[0])
        if key is not None and (
            limit is None or run(statements.key_exists, [*mine, key], read=True)
        ):
            raise KeyReused
        raise TooManyTasks

    def fetch(self, id: UUID) -> TaskJSON | None:
        statements = self._statements()
        rows = run(statements.select, self._key(statements, id), read=True)
        return statements.read_selected(rows[0]) if rows else None

    def page(self, query: PageQuery) -> list[str]:
        """The tasks of a page, each as JSON text, in the page's order; and one more if there are
        more. A backward cursor reverses the order."""
        statements = self._statements()
        filters = dict(query.filters)
        parameters = statements.parameters({"user_id": self._required_owner(), **filters})
        if query.search is not None:
            escaped = query.search.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
            parameters += [f"%{escaped}%"] * len(Task.resource.searchable)
        place: tuple[Any, ...] = ()
        if cursor := query.cursor:
            place = (cursor.backward, cursor.inclusive, cursor.value is None)
            if cursor.value is not None:
                name = query.ordering.removeprefix("-")
                parameters += statements.parameters({name: cursor.value})
            parameters += statements.parameters({"id": cursor.id})
        parameters.append(query.limit + 1)
        sql = statements.page(query.ordering, tuple(filters), query.search is not None, place)
        # An index serves the default order; any other may read everything that the owner has.
        slow = query.search is not None or not query.ordering.endswith("created_at")
        rows = run(sql, parameters, read=True, slow=slow)
        return [statements.read_selected_json(row) for row in rows]

    def change(
        self,
        id: UUID,
        values: Mapping[str, Any],
        preconditions: Preconditions = NO_PRECONDITIONS,
    ) -> TaskJSON | None:
        """Set some fields of a task. A change that changes nothing leaves `updated_at` alone.

        None: there is no such task that meets the preconditions.
        """
        if not values:
            task = self.fetch(id)
            return task if task is None or preconditions.are_met_by(task) else None
        return self._update(id, values, preconditions)

    def toggle(self, id: UUID, preconditions: Preconditions = NO_PRECONDITIONS) -> TaskJSON | None:
        """Complete an open task, reopen a completed one; of two at once neither is lost."""
        return self._update(id, {}, preconditions)

    def remove(self, id: UUID, preconditions: Preconditions = NO_PRECONDITIONS) -> bool:
        """Delete a task for good; whether there was one that meets the preconditions."""
        statements = self._statements()
        where, conditions = self._where(statements, id, preconditions)
        return bool(run(statements.delete(*conditions), where))

    # For operators, on any set but for `erase`, like the ORM's own `update` --------------------

    def totals(self) -> dict[str, Any] | None:
        """How many tasks are open and completed, and when the first and the last were created.

        None: there are no tasks.
        """
        totals = self.aggregate(
            open=models.Count("id", models.Q(is_completed=False)),
            completed=models.Count("id", models.Q(is_completed=True)),
            first=models.Min("created_at"),
            last=models.Max("created_at"),
        )
        return totals if totals["first"] else None

    def set_completed(self, is_completed: bool) -> int:
        """Complete or reopen all tasks of the set in one statement; how many were not yet so."""
        statements = self._statements()
        now = statements.parameters({"updated_at": datetime.now(UTC)})
        next_time = statements.dialect.next_time.format("updated_at")
        return self.filter(is_completed=not is_completed).update(
            is_completed=is_completed,
            updated_at=RawSQL(next_time, now),  # noqa: S611  # what the API's own writes have
        )

    def in_pages(self) -> Iterator[list[TaskJSON]]:
        """All tasks of the set, the oldest first, a page at a time: one statement for each, by
        keyset, because a pooler in transaction mode has no cursors."""
        tasks = self.order_by("created_at", "id").values(*Task.resource.returned)
        page = list(tasks[:PAGE_SIZE])
        while page:
            last = page[-1]
            yield [
                {
                    name: None
                    if value is None
                    else Task.resource.output[name].to_representation(value)
                    for name, value in task.items()
                }
                for task in page
            ]
            behind = models.Q(created_at__gt=last["created_at"]) | models.Q(id__gt=last["id"])
            page = list(tasks.filter(behind, created_at__gte=last["created_at"])[:PAGE_SIZE])

    def erase(self) -> Iterator[int]:
        """Delete all tasks of one owner for good, the oldest first; yields each batch's size.

        Each batch is one statement, so that locks are short and an interrupted run can go on.
        """
        owner = self._required_owner()
        (value,) = self._statements().parameters({"user_id": owner})
        while erased := len(run(self._statements().erase, [value, value, BATCH_SIZE])):
            yield erased

    def _update(
        self, id: UUID, values: Mapping[str, Any], preconditions: Preconditions
    ) -> TaskJSON | None:
        """Set some fields, or with none toggle."""
        statements = self._statements()
        where, conditions = self._where(statements, id, preconditions)
        new = statements.parameters(values) * 2  # to set, and to compare with
        now = statements.parameters({"updated_at": datetime.now(UTC)})
        rows = run(statements.update(tuple(values), *conditions), [*new, *now, *where])
        return statements.read(rows[0]) if rows else None

    def _statements(self) -> Statements:
        return statements()

    def _required_owner(self) -> UUID:
        if self._owner is None:
            raise NotOwned("call this on Task.objects.owned_by(user_id) itself")
        return self._owner

    def _key(self, statements: Statements, id: UUID) -> list[Any]:
        return statements.parameters({"user_id": self._required_owner(), "id": id})

    def _where(
        self, statements: Statements, id: UUID, preconditions: Preconditions
    ) -> tuple[list[Any], tuple[bool, ...]]:
        """The parameters of a write's WHERE, and which preconditions it has."""
        key = self._key(statements, id)
        if preconditions is NO_PRECONDITIONS:
            return key, (False, False)
        field = FIELDS["updated_at"]
        lists = [
            statements.dialect.array(field, times) for times in preconditions if times is not None
        ]
        return key + lists, tuple(times is not None for times in preconditions)


BaseTaskManager = models.Manager.from_queryset(TaskQuerySet)


class TaskManager(BaseTaskManager):
    def owned_by(self, owner: UUID) -> TaskQuerySet:
        """All tasks of one owner.

        The same as `filter(user_id=owner)`, which would resolve the column and the lookup anew for
        each request: a sixth of the instructions of a GET.
        """
        tasks = TaskQuerySet(Task, using=self._db)
        tasks.query.where.add(Exact(OWNER, owner), AND)
        tasks._owner = owner
        return tasks


class Task(models.Model):
    """A thing to do, of one owner, whom the token names: there is no table of API users.

    One index serves the default list. The other orders sort the owner's own tasks; an index on
    `updated_at` would make every toggle rewrite all index entries of its row (no HOT update).
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    user_id = models.UUIDField("user id")
    title = models.TextField(validators=[MaxLengthValidator(TITLE_LENGTH)])
    description = models.TextField(
        null=True, blank=True, validators=[MaxLengthValidator(DESCRIPTION_LENGTH)]
    )
    is_completed = models.BooleanField("completed", default=False)
    created_at = models.DateTimeField(editable=False)
    updated_at = models.DateTimeField(editable=False)
    idempotency_key = models.TextField(null=True, editable=False)
    idempotency_digest = models.TextField(null=True, editable=False)

    objects = TaskManager()
    resource: Resource

    class Meta:
        ordering = ["-created_at", "-id"]
        indexes = [
            models.Index(fields=["user_id", "created_at", "id"], name="task_owner_created"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(title__length__range=(1, TITLE_LENGTH)),
                name="task_title_length",
                violation_error_message=f"The title has 1 to {TITLE_LENGTH} characters.",
            ),
            models.CheckConstraint(
                condition=models.Q(description__length__lte=DESCRIPTION_LENGTH),
                name="task_description_length",
                violation_error_message=(
                    f"The description has at most {DESCRIPTION_LENGTH} characters."
                ),
            ),
            models.UniqueConstraint(
                fields=["user_id", "idempotency_key"],
                condition=models.Q(idempotency_key__isnull=False),
                name="task_idempotency_key",
            ),
        ]

    def __str__(self) -> str:
        """Not the title: the admin's log keeps this when the task is gone."""
        return str(self.id)

    def save(self, *args: Any, update_fields: Iterable[str] | None = None, **kwargs: Any) -> None:
        """Keep the times: operators change tasks too, and clients must see new ETags then.

        An existing task is written by `TaskQuerySet.change`. Raises DoesNotExist if it is gone.
        """
        if self._state.adding:
            self.created_at = self.created_at or datetime.now(UTC)
            self.updated_at = self.updated_at or self.created_at
            super().save(*args, **kwargs)
            return
        names = Task.resource.writable if update_fields is None else tuple(update_fields)
        values = {name: getattr(self, name) for name in names}
        task = Task.objects.owned_by(self.user_id).change(self.id, values)
        if task is None:
            raise Task.DoesNotExist(f"Task {self.id} was deleted meanwhile.")
        self.updated_at = datetime.fromisoformat(task["updated_at"])


# What the API does with each field. The columns of the statements, the JSON, the inputs, the
# idempotency digest, the OpenAPI document and the admin's form follow from here and the model.
Task.resource = Resource(
    Task,
    {
        "id": APIField(
            description="Set by the server.",
            example="019ca8d9-a8c0-7000-8000-000000000001",
        ),
        "user_id": APIField(
            description="The owner.",
            example="a11ce000-0000-4000-8000-000000000001",
        ),
        "title": APIField(
            description="What is to be done.",
            example="Buy milk",
            writable=True,
            required_in_put=True,
            orderable=True,
            searchable=True,
        ),
        "description": APIField(
            description='Details, stored exactly as sent. `null`: never given; `""`: cleared.',
            example="Two bottles",
            writable=True,
            required_in_put=True,
            searchable=True,
        ),
        "is_completed": APIField(
            description="Whether it is done.",
            example=False,
            writable=True,
            required_in_put=True,
            filterable=True,
        ),
        "created_at": APIField(
            description="When it was created, in UTC.",
            example="2026-03-01T09:30:00.000000Z",
            orderable=True,
        ),
        "updated_at": APIField(
            description="When it last changed, in UTC. Increases with every change.",
            example="2026-03-01T09:30:00.000000Z",
            orderable=True,
        ),
        "idempotency_key": None,
        "idempotency_digest": None,
    },
)
FIELDS = Task.resource.model_fields
OWNER = FIELDS["user_id"].cached_col
NOTHING = dict.fromkeys(FIELDS) | Task.resource.defaults
"""The columns of an INSERT in their order, with the defaults of writable fields."""


@cache
def statements() -> Statements:
    return Statements(Task.resource, connection.vendor)


def digest(values: Mapping[str, Any]) -> str:
    """What identifies the values of a create to a retry of it.

    Values equal to their defaults are left out, so that a release with a new field computes the
    same digest for the same request.
    """
    defaults = Task.resource.defaults
    given = {n: v for n, v in values.items() if n not in defaults or v != defaults[n]}
    return hashlib.sha256(orjson.dumps(given, option=orjson.OPT_SORT_KEYS)).hexdigest()

"""Tasks, and the statements that read and write them.

Everything that the API does starts at `Task.objects.owned_by(user_id)`, whose verbs run one
statement each. The statements are written out: the ORM would build and compile anew, for each
request, a text that never changes. Only what SQLite spells differently stands in `Dialect`.
"""

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from typing import Any, NamedTuple, Self
from uuid import UUID

import orjson
from django.core.validators import MaxLengthValidator
from django.db import connection, models
from django.db.models.functions import Greatest, Length

from todo_project.database.execute import run

models.TextField.register_lookup(Length)  # for the constraints below

TITLE_LENGTH = 255
DESCRIPTION_LENGTH = 2000


def uuid7(now: datetime | None = None) -> UUID:
    """A UUID of version 7 (RFC 9562 section 5.7), its 12 bits of `rand_a` the time below 1 ms.

    New tasks go to the right edge of the primary key's index instead of to a random page of it,
    and sort as they were made. The time that it tells, `created_at` tells as well.
    """
    micros = (now or datetime.now(UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    millis, rest = divmod(micros // timedelta(microseconds=1), 1000)
    head = millis << 16 | 0x7000 | rest * 4096 // 1000
    return UUID(int=head << 64 | 0b10 << 62 | secrets.randbits(62))


class Row(NamedTuple):
    """A task as the API shows it, times in RFC 3339 with six digits."""

    id: str
    title: str
    description: str | None
    is_completed: bool
    created_at: str
    updated_at: str


class ListQuery(NamedTuple):
    """Which page of an owner's tasks: filters, order, and where it begins."""

    is_completed: bool | None = None
    search: str | None = None
    ordering: str = "-created_at"
    limit: int = 1000
    after: "Position | None" = None


class Position(NamedTuple):
    """A place between two tasks in an order.

    `backward` looks from there towards the beginning; `inclusive` counts the task at that very
    place in. `value` is that task's value of the ordering field, as in `Row`.
    """

    backward: bool
    inclusive: bool
    value: str
    id: str


@dataclass(frozen=True)
class Dialect:
    """What the two databases spell differently. All times go in and out as text, in UTC."""

    columns: str
    is_among: str  # `updated_at`, as in Row, is one of those that a parameter lists
    time: str  # a time parameter
    tick: str  # the later of a time parameter and a moment past `updated_at`
    differs: str
    like: str
    title: str  # to sort by code point

    def uuid(self, value: UUID | str) -> str:
        return str(value)

    def stamp(self, value: str) -> str:
        """The parameter for a time as in `Row`."""
        return value

    def row(self, values: tuple[Any, ...]) -> Row:
        return Row._make(values)

    def one(self, rows: list[tuple[Any, ...]]) -> Row | None:
        return self.row(rows[0]) if rows else None


class SQLiteDialect(Dialect):
    """Django keeps UUIDs there as 32 hexadecimal digits, and times as text without a zone, which
    lacks the fraction when it is zero."""

    def uuid(self, value: UUID | str) -> str:
        return str(value).replace("-", "")

    def stamp(self, value: str) -> str:
        return value[:-1].replace("T", " ").removesuffix(".000000")

    def row(self, values: tuple[Any, ...]) -> Row:
        id, title, description, is_completed, *times = values
        return Row(id, title, description, bool(is_completed), *times)


def _postgresql() -> Dialect:
    text = "to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')".format
    return Dialect(
        columns="id::text, title, description, is_completed, "
        f"{text('created_at')}, {text('updated_at')}",
        is_among=f"strpos(%s, {text('updated_at')}) > 0",
        time="%s::timestamptz",
        tick="greatest(%s::timestamptz, updated_at + interval '1 microsecond')",
        differs="({}) IS DISTINCT FROM ({})",
        like="({0} ILIKE %s OR {1} ILIKE %s)",
        title='title COLLATE "C"',
    )


def _sqlite() -> Dialect:
    text = (
        "substr({0}, 1, 10) || 'T' || substr(substr({0}, 12) || '.000000', 1, 15) || 'Z'"
    ).format
    digits = "substr(id, {}, {})".format
    return SQLiteDialect(
        columns=" || '-' || ".join(map(digits, (1, 9, 13, 17, 21), (8, 4, 4, 4, 12)))
        + f", title, description, is_completed, {text('created_at')}, {text('updated_at')}",
        is_among=f"instr(%s, {text('updated_at')}) > 0",
        time="%s",
        # Django's own function for time + interval, in microseconds.
        tick="max(%s, django_format_dtdelta('+', updated_at, 1))",
        differs="({}) IS NOT ({})",
        like="({0} LIKE %s ESCAPE '\\' OR {1} LIKE %s ESCAPE '\\')",
        title="title",
    )


DIALECTS = {"postgresql": _postgresql(), "sqlite": _sqlite()}


@cache
def insert_sql(vendor: str) -> str:
    """A key met again touches its row, so that RETURNING has it, unless the payload differs."""
    sql = DIALECTS[vendor]
    return f"""
        INSERT INTO tasks_task (id, user_id, title, description, is_completed,
                                created_at, updated_at, idempotency_key, idempotency_digest)
        VALUES (%s, %s, %s, %s, %s, {sql.time}, {sql.time}, %s, %s)
        ON CONFLICT (user_id, idempotency_key) WHERE idempotency_key IS NOT NULL
        DO UPDATE SET idempotency_key = excluded.idempotency_key
        WHERE tasks_task.idempotency_digest = excluded.idempotency_digest
        RETURNING {sql.columns}"""


@cache
def select_sql(vendor: str) -> str:
    return f"SELECT {DIALECTS[vendor].columns} FROM tasks_task WHERE user_id = %s AND id = %s"


@lru_cache(maxsize=64)
def update_sql(vendor: str, fields: tuple[str, ...], conditional: bool) -> str:
    """Set some fields, or with none toggle; `updated_at` moves only if a value does.

    A time that comes as a parameter and rises past the row's own, instead of the server's clock:
    `now()` is the start of the transaction, and would go back behind a writer that waited less.
    """
    sql = DIALECTS[vendor]
    if fields:
        values = ", ".join(["%s"] * len(fields))
        changes = ", ".join(f"{field} = %s" for field in fields)
        differs = sql.differs.format(", ".join(fields), values)
        changes += f", updated_at = CASE WHEN {differs} THEN {sql.tick} ELSE updated_at END"
    else:
        changes = f"is_completed = NOT is_completed, updated_at = {sql.tick}"
    return f"""
        UPDATE tasks_task SET {changes}
        WHERE user_id = %s AND id = %s{_unchanged(sql, conditional)}
        RETURNING {sql.columns}"""


@cache
def delete_sql(vendor: str, conditional: bool) -> str:
    where = f"user_id = %s AND id = %s{_unchanged(DIALECTS[vendor], conditional)}"
    return f"DELETE FROM tasks_task WHERE {where} RETURNING 1"


def _unchanged(sql: Dialect, conditional: bool) -> str:
    """The list is one parameter: headers hold more tags than a statement may have parameters."""
    return f" AND {sql.is_among}" if conditional else ""


@lru_cache(maxsize=256)
def list_sql(
    vendor: str, ordering: str, filtered: bool, searched: bool, comparison: str | None
) -> str:
    """One page by keyset: the index is entered where the page begins, at any depth."""
    sql = DIALECTS[vendor]
    field = ordering.removeprefix("-")
    column = sql.title if field == "title" else field
    descending = ordering.startswith("-")
    where = "user_id = %s"
    if filtered:
        where += " AND is_completed = %s"
    if searched:
        where += " AND " + sql.like.format("title", "description")
    if comparison:
        # Looking backward is the same query in the opposite order.
        descending = comparison.startswith("<")
        value = "%s" if field == "title" else sql.time
        where += f" AND ({column}, id) {comparison} ({value}, %s)"
    direction = "DESC" if descending else "ASC"
    return f"""
        SELECT {sql.columns} FROM tasks_task WHERE {where}
        ORDER BY {column} {direction}, id {direction} LIMIT %s"""


class NotOwned(TypeError):
    """A verb of `TaskQuerySet` was called on a set that is not all of one owner's tasks."""


class TaskQuerySet(models.QuerySet["Task"]):
    _owner: UUID | None = None

    def owned_by(self, owner: UUID) -> Self:
        """All tasks of one owner, on which the verbs below work.

        Django's own deferred filter: no condition is compiled unless the set is used as a
        QuerySet, which the API's hot path does not do. A set derived from this one by `filter`
        or the like carries the condition, and no verbs.
        """
        tasks: Self = self._chain()  # type: ignore[attr-defined]
        return tasks._narrow(owner)

    def _narrow(self, owner: UUID) -> Self:
        if not self.query.where:  # the verbs know of no other condition
            self._owner = owner
        self._deferred_filter = (False, (), {"user_id": owner})
        return self

    def _clone(self) -> Self:
        clone: Self = super()._clone()  # type: ignore[misc]
        clone._owner = None
        return clone

    def add(
        self,
        title: str,
        description: str | None,
        is_completed: bool,
        idempotency_key: str | None = None,
    ) -> Row | None:
        """Create a task, or with a key met before return the one that it made.

        None: the key was used with other values.
        """
        sql = self._dialect()
        now = datetime.now(UTC)
        stamp = sql.stamp(_rfc3339(now))
        digest = None
        if idempotency_key is not None:
            payload = orjson.dumps([title, description, is_completed])
            digest = hashlib.sha256(payload).hexdigest()
        return sql.one(
            run(
                insert_sql(connection.vendor),
                (
                    sql.uuid(uuid7(now)),
                    sql.uuid(self._required_owner()),
                    title,
                    description,
                    is_completed,
                    stamp,
                    stamp,
                    idempotency_key,
                    digest,
                ),
            )
        )

    def fetch(self, id: UUID) -> Row | None:
        return self._dialect().one(run(select_sql(connection.vendor), self._key(id), read=True))

    def page(self, query: ListQuery) -> list[Row]:
        """The tasks of a page in its order, and one more if there are more that way."""
        sql = self._dialect()
        params: list[Any] = [sql.uuid(self._required_owner())]
        if query.is_completed is not None:
            params.append(query.is_completed)
        if query.search is not None:
            escaped = query.search.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
            params += [f"%{escaped}%"] * 2
        comparison = None
        if after := query.after:
            descending = query.ordering.startswith("-") != after.backward
            comparison = ("<" if descending else ">") + ("=" if after.inclusive else "")
            value = after.value if query.ordering.endswith("title") else sql.stamp(after.value)
            params += [value, sql.uuid(after.id)]
        params.append(query.limit + 1)
        statement = list_sql(
            connection.vendor,
            query.ordering,
            query.is_completed is not None,
            query.search is not None,
            comparison,
        )
        # All but the default list may read everything that the owner has.
        filtered = query.is_completed is not None or query.search is not None
        scan = filtered or not query.ordering.endswith("created_at")
        return [sql.row(row) for row in run(statement, params, read=True, scan=scan)]

    def change(
        self, id: UUID, values: Mapping[str, Any], updated_at: Iterable[str] | None = None
    ) -> Row | None:
        """Set some fields of a task. A change that changes nothing leaves `updated_at` alone.

        With `updated_at`, only if the task's is one of these. None: there is no such task.
        """
        new = tuple(values.values())
        return self._update(id, tuple(values), new + new, updated_at)

    def toggle(self, id: UUID, updated_at: Iterable[str] | None = None) -> Row | None:
        """Complete an open task, reopen a completed one; of two at once neither is lost."""
        return self._update(id, (), (), updated_at)

    def _update(
        self, id: UUID, fields: tuple[str, ...], new: tuple[Any, ...], tags: Iterable[str] | None
    ) -> Row | None:
        sql = self._dialect()
        params = (*new, sql.stamp(_rfc3339(datetime.now(UTC))), *self._key(id))
        if tags is not None:
            params += (",".join(tags),)
        return sql.one(run(update_sql(connection.vendor, fields, tags is not None), params))

    def remove(self, id: UUID, updated_at: Iterable[str] | None = None) -> bool:
        """Delete a task for good; whether there was one (see `change` for `updated_at`)."""
        params = self._key(id) if updated_at is None else (*self._key(id), ",".join(updated_at))
        return bool(run(delete_sql(connection.vendor, updated_at is not None), params))

    def _dialect(self) -> Dialect:
        return DIALECTS[connection.vendor]

    def _required_owner(self) -> UUID:
        if self._owner is None:
            raise NotOwned("call this on Task.objects.owned_by(user_id) itself")
        return self._owner

    def _key(self, id: UUID) -> tuple[str, str]:
        sql = self._dialect()
        return sql.uuid(self._required_owner()), sql.uuid(id)


def _rfc3339(time: datetime) -> str:
    return time.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


class TaskManager(models.Manager.from_queryset(TaskQuerySet)):  # type: ignore[misc]
    def owned_by(self, owner: UUID) -> TaskQuerySet:
        """As of the set, without a copy: a manager's set is new each time."""
        tasks: TaskQuerySet = self.get_queryset()
        return tasks._narrow(owner)


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
        return self.title

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Keep the times: operators change tasks too, and clients must see new ETags then."""
        now = datetime.now(UTC)
        if self._state.adding:
            self.created_at = self.created_at or now
            self.updated_at = self.updated_at or self.created_at
            super().save(*args, **kwargs)
        else:
            later = models.F("updated_at") + timedelta(microseconds=1)
            self.updated_at = Greatest(models.Value(now), later)
            super().save(*args, **kwargs)
            self.refresh_from_db(fields=["updated_at"])

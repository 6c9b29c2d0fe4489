"""Task and TaskQuerySet: constraints, keys and operations, without HTTP."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import orjson
import pytest
from django.db import IntegrityError, connection, transaction

from tasks import models
from tasks.models import NotOwned, Preconditions, Task, uuid7
from tasks.statements import PageQuery
from tests.client import ALICE, BOB
from tests.values import make_tasks

pytestmark = pytest.mark.django_db

OWNER = UUID(ALICE)


@pytest.fixture
def mine():
    return Task.objects.owned_by(OWNER)


@pytest.fixture
def clock(monkeypatch):
    """A clock for the service that stands still until it is set again."""

    class Clock(datetime):
        moment = datetime.now(UTC)

        @classmethod
        def now(cls, tz=None):
            return cls.moment

    monkeypatch.setattr(models, "datetime", Clock)
    return Clock


def get(task):
    return Task.objects.get(id=task["id"])


def values(title, description=None, is_completed=False):
    return {"title": title, "description": description, "is_completed": is_completed}


# Constraints ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "constraint"),
    [
        ("title", "", "task_title_length"),
        ("title", "a" * 256, "task_title_length"),
        ("title", "😀" * 256, "task_title_length"),
        ("description", "a" * 2001, "task_description_length"),
        ("description", "😀" * 2001, "task_description_length"),
    ],
)
def test_the_database_enforces_the_lengths(mine, field, value, constraint):
    row = mine.add(values("Buy milk"))
    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        make_tasks(1, **{field: value})
    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        Task.objects.update(**{field: value})
    assert Task.objects.filter(**{field: value[:-1]}).update(is_completed=False) == 0
    if value:
        Task.objects.update(**{field: value[:-1]})
        assert getattr(get(row), field) == value[:-1]


def test_constraints_and_indexes_have_their_names():
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, "tasks_task")
    assert found["task_title_length"]["check"]
    assert found["task_description_length"]["check"]
    assert found["task_owner_created"]["columns"] == ["user_id", "created_at", "id"]
    key = found["task_idempotency_key"]
    assert (key["unique"], key["columns"]) == (True, ["user_id", "idempotency_key"])
    # Without the owner it would prevent distributing tasks by owner.
    assert all("user_id" in c["columns"] or c["primary_key"] for c in found.values() if c["unique"])


def test_an_owner_uses_an_idempotency_key_once(mine):
    make_tasks(1, idempotency_key="k")
    make_tasks(1, idempotency_key="k", user_id=UUID(BOB))
    make_tasks(2)
    with pytest.raises(IntegrityError), transaction.atomic():
        make_tasks(1, idempotency_key="k")


# uuid7 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "now",
    [
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(2026, 1, 2, 3, 4, 5, 999999, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    ],
    ids=str,
)
def test_a_uuid_of_version_7_contains_its_time(now):
    """RFC 9562 section 5.7, with 12 bits below the millisecond (section 6.2, method 3)."""
    id = uuid7(now)
    assert (id.version, id.variant) == (7, "specified in RFC 4122")
    micros = (now - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert id.int >> 80 == micros // 1000
    assert (id.int >> 64 & 0xFFF) * 1000 // 4096 in (micros % 1000, micros % 1000 - 1)
    assert len({uuid7(now) for _ in range(1000)}) == 1000


def test_uuids_of_later_microseconds_are_greater():
    start = datetime(2026, 1, 1, 0, 0, 0, 998_990, tzinfo=UTC)
    ids = [uuid7(start + timedelta(microseconds=n)) for n in range(2000)]
    assert ids == sorted(ids)
    assert uuid7() < uuid7(datetime.now(UTC) + timedelta(microseconds=2))


# The owner ------------------------------------------------------------------------------------


def test_the_queryset_of_an_owner_is_filtered(mine):
    (id,) = make_tasks(1)
    make_tasks(2, user_id=UUID(BOB))
    assert "user_id" in str(mine.query.where)
    assert [str(task.id) for task in mine] == [id]
    assert mine.count() == mine.filter(title="Buy milk").count() == mine.all().count() == 1
    assert str(mine.query) == str(Task.objects.filter(user_id=OWNER).query)
    assert mine.exclude(title="").update(title="New") == 1
    assert Task.objects.filter(title="New").count() == 1
    assert mine.delete()[0] == 1
    assert Task.objects.count() == 2


@pytest.mark.parametrize(
    "narrow",
    [
        lambda tasks: Task.objects.all(),
        lambda tasks: tasks.all(),
        lambda tasks: tasks.filter(is_completed=True),
        lambda tasks: tasks.exclude(is_completed=True),
        lambda tasks: tasks.order_by("title"),
        lambda tasks: tasks[:1],
        lambda tasks: tasks.none(),
        lambda tasks: tasks | Task.objects.all(),
    ],
    ids=["none", "all", "filter", "exclude", "order", "slice", "nothing", "or"],
)
@pytest.mark.parametrize(
    "verb",
    [
        lambda tasks: tasks.add(values("x")),
        lambda tasks: tasks.fetch(uuid4()),
        lambda tasks: tasks.page(PageQuery()),
        lambda tasks: tasks.change(uuid4(), {"title": "x"}),
        lambda tasks: tasks.toggle(uuid4()),
        lambda tasks: tasks.remove(uuid4()),
    ],
    ids=["add", "fetch", "page", "change", "toggle", "remove"],
)
def test_bulk_operations_refuse_querysets_without_an_owner(
    mine, narrow, verb, django_assert_num_queries
):
    with django_assert_num_queries(0), pytest.raises(NotOwned):
        verb(narrow(mine))


# updated_at -----------------------------------------------------------------------------------

STEPS = [timedelta(0), timedelta(microseconds=1), timedelta(seconds=1), timedelta(days=-400)]


@pytest.mark.parametrize("step", STEPS, ids=str)
@pytest.mark.parametrize("start", [0, 1, 999_998, 999_999])
def test_updated_at_rises_with_every_change_whatever_the_clock_does(mine, clock, step, start):
    clock.moment = datetime(2026, 12, 31, 23, 59, 59, start, tzinfo=UTC)
    row = mine.add(values("0"))
    id = UUID(row["id"])
    for n in range(4):
        clock.moment += step
        for new in ({"title": f"{n}!"}, None, {"title": f"{n}?", "description": f"{n}"}):
            before = row["updated_at"]
            row = mine.change(id, new) if new else mine.toggle(id)
            assert row["updated_at"] > before
            assert len(row["updated_at"]) == 27
            assert row == mine.fetch(id)
    stored = get(row)
    assert f"{stored.updated_at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}" == row["updated_at"]
    stored.title = "admin"
    stored.save()
    assert mine.fetch(id)["updated_at"] > row["updated_at"]


@pytest.mark.parametrize("step", STEPS, ids=str)
@pytest.mark.parametrize("description", [None, "", "x"])
def test_a_change_without_effect_keeps_updated_at(mine, clock, step, description):
    row = mine.add(values("Buy milk", description, True))
    same = {"title": "Buy milk", "description": description, "is_completed": True}
    for fields in (["title"], ["description"], ["is_completed"], list(same)):
        clock.moment += step
        assert mine.change(UUID(row["id"]), {name: same[name] for name in fields}) == row
    assert mine.fetch(UUID(row["id"])) == row
    for description_ in {None, "", "x"} - {description}:
        assert mine.change(UUID(row["id"]), {**same, "description": description_}) != row


def test_times_of_the_orm_and_of_the_statements_are_comparable(mine, clock):
    """SQLite stores a time without a fraction in another form."""
    clock.moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    row = mine.add(values("statement"))
    (id,) = make_tasks(1, created_at=clock.moment + timedelta(microseconds=1))
    (other,) = make_tasks(1, created_at=clock.moment - timedelta(microseconds=1))
    page = [orjson.loads(task)["id"] for task in mine.page(PageQuery())]
    assert page == [id, row["id"], other]
    assert Task.objects.filter(created_at=clock.moment).get().id == UUID(row["id"])
    assert [str(task.id) for task in mine.order_by("-created_at", "-id")] == [id, row["id"], other]
    unchanged = Preconditions(match=[clock.moment])
    assert mine.change(UUID(row["id"]), {"title": "x"}, unchanged)["title"] == "x"
    assert mine.change(UUID(row["id"]), {"title": "y"}, unchanged) is None


def test_a_task_saved_by_the_orm_gets_its_times():
    before = datetime.now(UTC)
    task = Task.objects.create(user_id=OWNER, title="x")
    assert before <= task.created_at == task.updated_at <= datetime.now(UTC)
    assert task.id.version == 7
    created = task.created_at
    task.save()
    assert task.updated_at == task.created_at == created
    task.title = "x "
    task.save(update_fields=["is_completed"])
    assert task.updated_at == created
    task.save()
    assert task.updated_at > task.created_at == created
    Task.objects.all().delete()
    with pytest.raises(Task.DoesNotExist):
        task.save()
    assert str(task) == str(task.id)

"""What is derived from the declaration of a field; what cannot be derived prevents the start."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
from django.contrib import admin
from django.core.exceptions import ImproperlyConfigured
from django.core.validators import MaxLengthValidator, MinValueValidator
from django.db import connection, models
from django.http import HttpRequest
from django.test.utils import isolate_apps
from rest_framework.exceptions import ValidationError

from tasks import cursors
from tasks.admin import TaskForm, filters
from tasks.models import Task, digest
from tasks.schema import DOCUMENT
from tasks.statements import Cursor, Statements
from tests.client import ALICE, API
from tests.values import make_tasks
from todo_project.api.problems import Problem
from todo_project.api.resource import APIField, Resource
from todo_project.api.serializers import InputSerializer, input_serializer

OWNER = UUID(ALICE)


def entry(**options: Any) -> APIField:
    return APIField(**{"description": "A field.", "example": None, **options})


def resource(entries: dict[str, APIField | None] | None = None, **fields: models.Field) -> Resource:
    """The resource of a model with these fields; those without an entry are writable."""
    with isolate_apps("tests"):
        meta = type("Meta", (), {"app_label": "tests"})
        model = type("Thing", (models.Model,), {"__module__": "x", "Meta": meta, **fields})
    declared = {name: entry(writable=True) for name in fields} | (entries or {})
    return Resource(model, {"id": None, **declared})


# Growth -----------------------------------------------------------------------------------------


def test_a_put_requires_only_the_fields_of_the_first_release() -> None:
    assert Task.resource.required_in_put == ("title", "description", "is_completed")


def test_a_release_returns_the_fields_of_the_first_one() -> None:
    assert {
        *("id", "user_id", "title", "description", "is_completed", "created_at", "updated_at")
    } <= set(Task.resource.returned)


def test_a_put_without_a_newer_field_keeps_its_value() -> None:
    grown = resource(
        {"title": entry(writable=True, required_in_put=True)},
        title=models.TextField(),
        due_at=models.DateTimeField(null=True),
    )
    replace = input_serializer("X", "", grown, required=grown.required_in_put)
    assert replace.validate_body({"title": "a"}) == {"title": "a"}
    assert replace.validate_body({"title": "a", "due_at": None}) == {"title": "a", "due_at": None}
    assert replace.schema()["required"] == ["title"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"title": "Buy milk", "description": None, "is_completed": False},
            "6330399f2342cfc9311b85fb26dcac5b706b3080b49e3aadedde2f3a864efdc9",
        ),
        (
            {"title": "Buy milk", "description": "Two bottles", "is_completed": True},
            "ab5feae3485b5bbb49778e18484fb6e903f9f80945682d9c81418b9a0c9acf6b",
        ),
    ],
)
def test_a_release_keeps_the_digests_that_are_stored(values: dict[str, Any], expected: str) -> None:
    """With another digest a retry after the release would get 422."""
    assert digest(values) == expected


def test_the_digest_covers_every_writable_field_but_no_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grown = resource(title=models.TextField(null=True), priority=models.IntegerField(default=3))
    monkeypatch.setattr(Task, "resource", grown)
    assert digest({"title": "a", "priority": 3}) == digest({"title": "a"})
    assert digest({"title": "a", "priority": 4}) != digest({"title": "a"})
    assert digest({"title": None, "priority": 3}) == digest({})


def test_the_version_in_the_etag_changes_with_what_is_returned(api: API) -> None:
    text, number = models.TextField, models.IntegerField
    versions = [
        resource(a=text(null=True)),
        resource(a=text(null=True), b=text(null=True)),
        resource(a=text(null=True), c=text(null=True)),
        resource(a=number(null=True)),
    ]
    assert len({found.version for found in versions}) == len(versions)
    api.create()
    assert api.last["ETag"].endswith(f'-{Task.resource.version}"')


# What cannot be derived ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: resource(blob=models.BinaryField(null=True)), "Thing.blob"),
        (lambda: resource(data=models.JSONField(null=True)), "Thing.data"),
        (lambda: resource({"extra": entry()}), "Thing.extra"),
        (lambda: Resource(Task, {"title": entry()}), "Task."),
        (lambda: resource(count=models.IntegerField()), "Thing.count"),
        (
            lambda: resource(
                {"count": entry(searchable=True)}, count=models.IntegerField(null=True)
            ),
            "Thing.count",
        ),
        (
            lambda: resource({"name": entry(filterable=True)}, name=models.TextField(null=True)),
            "Thing.name",
        ),
    ],
    ids=["type", "json", "no field", "no entry", "no default", "search", "filter"],
)
def test_it_fails_with_the_name_of_the_field(make: Callable[[], Any], named: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=named):
        make()


# Kinds --------------------------------------------------------------------------------------------

KINDS: list[tuple[models.Field, dict[str, Any], list[Any], list[Any]]] = [
    (
        models.TextField(validators=[MaxLengthValidator(3)], null=True, blank=True),
        {"type": ["string", "null"], "maxLength": 3},
        ["", " a ", None],
        ["abcd", 1, "\0"],
    ),
    (models.CharField(max_length=3, default=""), {"type": "string"}, ["a"], ["", "abcd", None]),
    (models.BooleanField(default=False), {"type": "boolean"}, [True], [1, "true", None]),
    (
        models.SmallIntegerField(default=0, validators=[MinValueValidator(1)]),
        {"type": "integer", "minimum": 1, "maximum": 32767},
        [1, 32767],
        [0, 32768, True, 1.0, "1", None],
    ),
    (
        models.DateTimeField(null=True),
        {"type": ["string", "null"], "format": "date-time"},
        ["2026-03-01T09:30:00.000000Z", None],
        ["2026-03-01", "2026-03-01T09:30:00", "2026-02-30T00:00:00Z", "9999-12-31T23:00:00-02:00",
         "2026-03-01T09:30:00.1234567Z", "2026-03-01T09:30:60Z", "0001-01-01T00:00:00+01:00",
         "2026-03-01T09:30:00+00:60", "2026-03-01T09:30:00+24:00", 5],
    ),
    (
        models.UUIDField(null=True),
        {"type": ["string", "null"], "format": "uuid"},
        [ALICE, None],
        [ALICE.replace("-", ""), f"{{{ALICE}}}", 5],
    ),
    (
        models.TextField(choices=[("low", "Low"), ("high", "High")], default="low"),
        {"type": "string", "enum": ["low", "high"]},
        ["low"],
        ["Low", "", None, 5, []],
    ),
    (
        models.SmallIntegerField(choices=[(1, "One")], null=True),
        {"type": ["integer", "null"], "enum": [1, None]},
        [1, None],
        [True, 1.0, "1", 2, {}],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("field", "schema", "good", "bad"), KINDS, ids=lambda value: "")
def test_each_kind_of_field_is_published_and_validated(
    field: models.Field, schema: dict[str, Any], good: list[Any], bad: list[Any]
) -> None:
    thing = resource({"field": entry(writable=True, required_in_put=True)}, field=field)
    published = thing.serializer_field("field").schema(for_input=True)
    assert published.items() >= schema.items()
    create = input_serializer("X", "", thing)
    for value in good:
        stored = create.validate_body({"field": value})["field"]
        if value is not None:
            assert thing.output["field"].to_representation(stored) == value
    for value in bad:
        with pytest.raises(Problem):
            create.validate_body({"field": value})


def test_a_time_is_normalized_to_utc() -> None:
    field = resource(at=models.DateTimeField(null=True)).output["at"]
    stored = field.run_validation("2026-03-01T10:30:00.5+01:00")
    assert stored == datetime(2026, 3, 1, 9, 30, 0, 500_000, tzinfo=UTC)
    assert field.to_representation(stored) == "2026-03-01T09:30:00.500000Z"
    assert field.to_representation(stored.replace(tzinfo=None)) == "2026-03-01T09:30:00.500000Z"


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        (models.BooleanField(default=False), {"true": True}, ["True", "1", " true", "null", ""]),
        (models.IntegerField(default=0), {"-5": -5}, ["05", "1.0", "1e2", "-0", "true", "x"]),
        (models.UUIDField(null=True), {ALICE.upper(): OWNER}, ["null", ALICE[:-1]]),
        (models.TextField(choices=[("a", "A")], default="a"), {"a": "a"}, ["A", '"a"']),
    ],
    ids=["boolean", "integer", "uuid", "choice"],
)
def test_a_filter_takes_one_text_for_each_value(
    field: models.Field, good: dict[str, Any], bad: list[str]
) -> None:
    parse = resource({"field": entry(filterable=True)}, field=field).output["field"].parse_parameter
    assert {text: parse(text) for text in good} == good
    for text in bad:
        with pytest.raises(ValidationError):
            parse(text)


def test_docstrings_of_the_code_are_not_published() -> None:
    published = str(DOCUMENT)
    for private in (InputSerializer, Task, Resource):
        assert private.__doc__
        assert private.__doc__.strip().split("\n")[0] not in published


# Order by a nullable field ------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize("ordering", ["description", "-description"])
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_nullable_field_orders_with_null_as_the_greatest(ordering: str, limit: int) -> None:
    for text in (None, "b", "", None, "a", None):
        make_tasks(1, description=text)
    entries = {**Task.resource.fields, "idempotency_key": None, "idempotency_digest": None}
    statements = Statements(Resource(Task, entries), connection.vendor)

    def page(cursor: Cursor | None) -> list[dict[str, Any]]:
        place = () if cursor is None else (*cursor[:2], cursor.value is None)
        parameters = statements.parameters({"user_id": OWNER})
        if cursor is not None:
            parameters += [] if cursor.value is None else [cursor.value]
            parameters += statements.parameters({"id": cursor.id})
        with connection.cursor() as db:
            db.execute(statements.page(ordering, (), False, place), [*parameters, limit])
            return [orjson.loads(statements.read_selected_json(row)) for row in db.fetchall()]

    def walk(backward: bool, cursor: Cursor | None) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while rows := page(cursor):
            found += rows
            cursor = Cursor(backward, False, rows[-1]["description"], UUID(rows[-1]["id"]))
        return found

    def key(task: dict[str, Any]) -> tuple[bool, str, str]:
        return task["description"] is None, task["description"] or "", task["id"]

    forward = walk(False, None)
    assert len(forward) == 6
    assert forward == sorted(forward, key=key, reverse=ordering.startswith("-"))
    last = Cursor(True, True, forward[-1]["description"], UUID(forward[-1]["id"]))
    assert walk(True, last) == forward[::-1]


@pytest.mark.parametrize("value", [None, datetime(2026, 3, 1, 9, 30, tzinfo=UTC)])
def test_a_cursor_keeps_a_nullable_value(
    monkeypatch: pytest.MonkeyPatch, value: datetime | None
) -> None:
    grown = resource(due_at=models.DateTimeField(null=True))
    monkeypatch.setattr(Task, "resource", grown)
    cursor = Cursor(backward=False, inclusive=False, value=value, id=OWNER)
    encoded = cursors.encode(cursor, "-due_at", b"scope")
    assert cursors.decode(encoded, "-due_at", b"scope") == cursor


# The admin ----------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("shown", "current", "wanted", "conflict"),
    [
        ("2026-03-01 09:30:00", "2026-03-01T09:30:00.5Z", "2026-03-02T09:30:00", False),
        ("2026-03-01 09:30:00", None, "2026-03-01T09:30:00", False),
        ("2026-03-01 09:30:00", None, "2026-03-02T09:30:00", True),
        ("", "2026-03-01T09:30:00Z", "2026-03-02T09:30:00", True),
    ],
    ids=["mine", "theirs", "conflict", "conflict with null"],
)
def test_the_admin_shows_who_changed_a_time(
    shown: str, current: str | None, wanted: str, conflict: bool
) -> None:
    due_at = models.DateTimeField("due", null=True, blank=True)
    field = admin.site.get_model_admin(Task).formfield_for_dbfield(due_at, HttpRequest())
    form_class = type("Form", (TaskForm,), {"due_at": field})
    time = current and datetime.fromisoformat(current)
    data = dict.fromkeys(("title", "initial-title", "description", "initial-description"), "x")
    form = form_class(
        {**data, "due_at": wanted, "initial-due_at": shown},
        initial={"title": "x", "description": "x", "due_at": time},
    )
    assert ("due_at" in form.errors) is conflict


def test_the_admin_filters_by_fields_whose_values_are_known() -> None:
    """It would search the whole table for the values of any other field."""
    filterable = entry(filterable=True)
    thing = resource(
        {"number": filterable, "state": filterable, "done": filterable},
        number=models.IntegerField(default=0),
        state=models.TextField(choices=[("a", "A")], default="a"),
        done=models.BooleanField(default=False),
    )
    assert filters(thing) == ["state", "done"]


@pytest.mark.django_db
def test_times_with_and_without_a_fraction_are_read_alike(api: API) -> None:
    """SQLite stores a time whose fraction is zero in another form."""
    start = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    for step in (0, 1, 500_000):
        made = start + timedelta(microseconds=step)
        (id,) = make_tasks(1, created_at=made, updated_at=made)
        task = api.get(f"/api/{ALICE}/tasks/{id}")
        assert task["created_at"] == f"2026-01-02T03:04:05.{step:06}Z"
        assert api.get(f"/api/{ALICE}/tasks")[0] == task
        toggled = api.patch(f"/api/{ALICE}/tasks/{id}/complete")
        assert toggled["created_at"] == task["created_at"]

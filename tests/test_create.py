"""POST /api/{user_id}/tasks"""

import re
from datetime import UTC, datetime

import pytest

from tasks.etags import task_etag
from tasks.models import Task
from tests.client import ALICE, BOB, TASKS
from tests.values import BAD_FIELDS, KEYS, TEXTS, TIME, shown


def test_it_creates_a_task(api, django_assert_num_queries):
    before = datetime.now(UTC)
    # INSERT … ON CONFLICT … RETURNING …
    with django_assert_num_queries(1):
        task = api.post(TASKS, {"title": "Buy milk", "description": "2 l", "is_completed": True})
    assert list(task) == KEYS
    assert task == {
        **Task.resource.defaults,
        "id": task["id"],
        "user_id": ALICE,
        "title": "Buy milk",
        "description": "2 l",
        "is_completed": True,
        "created_at": task["created_at"],
        "updated_at": task["created_at"],
    }
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-.{12}", task["id"])
    assert re.fullmatch(TIME, task["created_at"])
    created_at = datetime.fromisoformat(task["created_at"])
    assert before <= created_at <= datetime.now(UTC)
    assert api.last["Location"] == f"/api/{ALICE}/tasks/{task['id']}"
    assert api.last["ETag"] == task_etag(task)
    assert api.get(api.last["Location"]) == task
    assert Task.objects.get().created_at == created_at


def test_the_title_is_enough(api):
    task = api.post(TASKS, {"title": "Buy milk"})
    assert (task["description"], task["is_completed"]) == (None, False)


def test_every_post_creates(api):
    ids = {api.post(TASKS, {"title": "Buy milk"})["id"] for _ in range(3)}
    assert len(ids) == 3


def test_the_owner_is_the_user_of_the_path(api):
    task = api.post(f"/api/{BOB.upper()}/tasks", {"title": "Buy milk", "user_id": ALICE})
    assert task["user_id"] == BOB
    assert api.last["Location"] == f"/api/{BOB}/tasks/{task['id']}"
    assert api.get(TASKS) == []


def test_it_ignores_read_only_fields(api):
    old = api.create()
    new = api.post(TASKS, {**old, "created_at": 5, "updated_at": None})
    assert new["id"] != old["id"]
    assert new["created_at"] > old["created_at"]
    assert new["title"] == old["title"]


@pytest.mark.parametrize("text", TEXTS, ids=shown)
def test_text_is_returned_unchanged(api, text):
    task = api.post(TASKS, {"title": text, "description": text})
    assert (task["title"], task["description"]) == (text, text)
    (listed,) = api.get(TASKS)
    assert listed == task == api.get(f"{TASKS}/{task['id']}")
    stored = Task.objects.get()
    assert (stored.title, stored.description) == (text, text)


@pytest.mark.parametrize("description", [None, "", " ", "\n", " kept \t"], ids=shown)
def test_descriptions_are_not_trimmed_and_null_is_not_empty(api, description):
    task = api.post(TASKS, {"title": "Buy milk", "description": description})
    assert task["description"] == description
    assert api.get(f"{TASKS}/{task['id']}")["description"] == description


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("  Buy milk\n", "Buy milk"),
        ("\u00a0\u2003\u3000\u2028Buy\u3000milk\u0085\u001f", "Buy\u3000milk"),
        ("\u200bBuy", "\u200bBuy"),  # a zero width space is no white space
        (f" {'a' * 255} ", "a" * 255),
        (" x ", "x"),
    ],
    ids=shown,
)
def test_it_trims_titles_of_unicode_white_space(api, sent, kept):
    assert api.post(TASKS, {"title": sent})["title"] == kept


@pytest.mark.parametrize("character", ["a", "é", "漢", "😀"])
def test_lengths_count_code_points(api, character):
    longest = {"title": character * 255, "description": character * 2000}
    task = api.post(TASKS, longest)
    assert {**task, **longest} == task
    for field in longest:
        problem = api.post(TASKS, {**longest, field: longest[field] + character}, 422)
        (error,) = problem["errors"]
        assert (error["field"], error["code"]) == (field, "max_length")
    assert Task.objects.count() == 1


@pytest.mark.parametrize(("field", "value", "code"), BAD_FIELDS, ids=shown)
def test_it_rejects_bad_fields(api, field, value, code, django_assert_num_queries):
    with django_assert_num_queries(0):
        problem = api.post(TASKS, {"title": "Buy milk", field: value}, 422)
    assert problem["code"] == "validation_error"
    (error,) = problem["errors"]
    assert list(error) == ["field", "code", "detail"]
    assert (error["field"], error["code"]) == (field, code)
    assert not Task.objects.exists()


def test_it_requires_a_title(api):
    problem = api.post(TASKS, {}, 422)
    assert problem == {
        "type": "about:blank",
        "title": "Unprocessable Content",
        "status": 422,
        "detail": problem["detail"],
        "code": "validation_error",
        "errors": [{"field": "title", "code": "required", "detail": "This field is required."}],
    }


def test_it_names_every_invalid_field(api):
    problem = api.post(TASKS, {"description": 1, "is_completed": 1, "x": 1, "y": 1}, 422)
    assert [(e["field"], e["code"]) for e in problem["errors"]] == [
        ("title", "required"),
        ("description", "invalid"),
        ("is_completed", "invalid"),
        ("x", "unknown_field"),
        ("y", "unknown_field"),
    ]


def test_thousands_of_unknown_fields_get_a_short_answer(api):
    problem = api.post(TASKS, {"title": "x", **{str(n): 0 for n in range(5000)}}, 422)
    assert len(problem["errors"]) == 100


def test_of_duplicate_keys_the_last_wins(api):
    body = b'{"title": 5, "title": "b", "is_completed": true, "is_completed": false}'
    task = api.post(TASKS, body)
    assert (task["title"], task["is_completed"]) == ("b", False)


def test_ids_sort_as_the_tasks_were_made(api):
    ids = [api.create()["id"] for _ in range(20)]
    assert ids == sorted(ids)

"""PUT /api/{user_id}/tasks/{id}"""

import pytest

from tasks.etags import task_etag
from tests.client import ALICE, BOB, TASKS
from tests.values import BAD_FIELDS, KEYS, MISSING, TEXTS, shown

NEW = {"title": "New", "description": None, "is_completed": True}


@pytest.fixture
def task(api):
    return api.create(description="2 l")


@pytest.fixture
def path(task):
    return f"{TASKS}/{task['id']}"


def test_it_replaces(api, task, path, django_assert_num_queries):
    # UPDATE … SET title, description, is_completed, updated_at … RETURNING …
    with django_assert_num_queries(1):
        new = api.put(path, NEW)
    assert list(new) == KEYS
    assert new == {**task, **NEW, "updated_at": new["updated_at"]}
    assert new["updated_at"] > task["updated_at"]
    assert api.last["ETag"] == task_etag(new)
    assert api.get(path) == new


def test_a_task_can_be_put_as_it_was_received(api, task, path):
    """Read-only fields are ignored, and a write that changes nothing moves nothing."""
    assert api.put(path, task) == task
    assert api.last["ETag"] == task_etag(task)
    foreign = {"id": None, "user_id": BOB, "created_at": 5, "updated_at": "never"}
    new = api.put(path, {**task, **foreign, "title": "New"})
    assert new == {**task, "title": "New", "updated_at": new["updated_at"]}
    assert api.get(f"/api/{BOB}/tasks") == []


@pytest.mark.parametrize("field", NEW)
def test_all_three_fields_are_required(api, task, path, field):
    body = {name: value for name, value in NEW.items() if name != field}
    problem = api.put(path, body, 422)
    assert [(e["field"], e["code"]) for e in problem["errors"]] == [(field, "required")]
    assert [e["field"] for e in api.put(path, {}, 422)["errors"]] == list(NEW)
    assert api.get(path) == task


@pytest.mark.parametrize("text", TEXTS, ids=shown)
def test_text_is_returned_unchanged(api, path, text):
    new = api.put(path, {**NEW, "title": f" {text}\n", "description": f" {text}\n"})
    assert (new["title"], new["description"]) == (text, f" {text}\n")
    assert api.get(path) == new


def test_null_and_empty_descriptions_differ(api, path):
    for description in ("", None, ""):
        new = api.put(path, {**NEW, "description": description})
        assert new["description"] == description
        assert api.get(path) == new


@pytest.mark.parametrize(("field", "value", "code"), BAD_FIELDS, ids=shown)
def test_it_rejects_bad_fields(api, task, path, field, value, code, django_assert_num_queries):
    with django_assert_num_queries(0):
        problem = api.put(path, {**NEW, field: value}, 422)
    assert problem["code"] == "validation_error"
    assert [(e["field"], e["code"]) for e in problem["errors"]] == [(field, code)]
    assert api.get(path) == task


def test_it_refuses_merge_patch(api, task, path):
    api.put(path, NEW, 415, content_type="application/merge-patch+json")
    assert api.get(path) == task


def test_a_missing_task_is_404_and_not_created(api, task, django_assert_num_queries):
    with django_assert_num_queries(1):
        assert api.put(MISSING, NEW, 404)["code"] == "not_found"
    api.put(f"/api/{BOB}/tasks/{task['id']}", NEW, 404)
    assert api.get(f"/api/{ALICE}/tasks") == [task]

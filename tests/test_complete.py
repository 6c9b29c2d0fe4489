"""PATCH /api/{user_id}/tasks/{id}/complete"""

import pytest

from tasks.etags import task_etag
from tasks.models import Task
from tests.client import BOB, TASKS
from tests.values import KEYS, MISSING, shown


@pytest.fixture
def task(api):
    return api.create()


@pytest.fixture
def path(task):
    return f"{TASKS}/{task['id']}/complete"


def test_without_a_body_it_toggles(api, task, path, django_assert_num_queries):
    # UPDATE … SET is_completed = NOT is_completed … RETURNING …
    with django_assert_num_queries(1):
        done = api.patch(path)
    assert list(done) == KEYS
    assert done == {**task, "is_completed": True, "updated_at": done["updated_at"]}
    assert done["updated_at"] > task["updated_at"]
    assert api.last["ETag"] == task_etag(done)
    reopened = api.patch(path)
    assert reopened == {**task, "updated_at": reopened["updated_at"]}
    assert reopened["updated_at"] > done["updated_at"]
    assert api.get(TASKS) == [reopened]


@pytest.mark.parametrize("content_type", ["application/json", "application/merge-patch+json"])
def test_with_a_body_it_sets(api, task, path, content_type, django_assert_num_queries):
    # UPDATE … SET is_completed = …, updated_at = CASE … RETURNING …
    with django_assert_num_queries(1):
        done = api.patch(path, {"is_completed": True}, content_type=content_type)
    assert done == {**task, "is_completed": True, "updated_at": done["updated_at"]}
    assert done["updated_at"] > task["updated_at"]
    # Sent again, it changes nothing.
    assert api.patch(path, {"is_completed": True}) == done
    assert api.last["ETag"] == task_etag(done)
    assert api.patch(path, {"is_completed": False})["is_completed"] is False


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded"])
def test_without_a_body_the_content_type_does_not_matter(api, path, content_type):
    assert api.patch(path, headers={"Content-Type": content_type})["is_completed"] is True
    assert api.last.wsgi_request.content_type == content_type


def test_it_ignores_read_only_fields_and_refuses_others(api, task, path):
    """The other fields of a task have their own route."""
    times_and_ids = {name: task[name] for name in ("id", "user_id", "created_at", "updated_at")}
    assert api.patch(path, {**times_and_ids, "is_completed": True})["is_completed"] is True
    problem = api.patch(path, task, 422)
    others = [name for name in Task.resource.writable if name != "is_completed"]
    assert [(e["field"], e["code"]) for e in problem["errors"]] == [
        (name, "unknown_field") for name in others
    ]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "required"),
        ({"is_completed": None}, "null"),
        ({"is_completed": "true"}, "invalid"),
        ({"is_completed": 1}, "invalid"),
        ({"is_completed": {}}, "invalid"),
        ({"updated_at": "x"}, "required"),
    ],
    ids=shown,
)
def test_it_rejects_bad_bodies(api, task, path, body, code, django_assert_num_queries):
    with django_assert_num_queries(0):
        problem = api.patch(path, body, 422)
    assert problem["code"] == "validation_error"
    assert [(e["field"], e["code"]) for e in problem["errors"]] == [("is_completed", code)]
    assert api.get(TASKS) == [task]


@pytest.mark.parametrize("body", [None, {"is_completed": True}], ids=shown)
def test_a_missing_task_is_404(api, task, body, django_assert_num_queries):
    with django_assert_num_queries(1):
        assert api.patch(f"{MISSING}/complete", body, 404)["code"] == "not_found"
    api.patch(f"/api/{BOB}/tasks/{task['id']}/complete", body, 404)
    assert api.get(TASKS) == [task]

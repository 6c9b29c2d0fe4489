"""PATCH /api/{user_id}/tasks/{id}"""

import pytest

from tasks.etags import task_etag
from tests.client import BOB, TASKS
from tests.values import BAD_FIELDS, KEYS, MISSING, TEXTS, shown


@pytest.fixture
def task(api):
    return api.create(description="2 l")


@pytest.fixture
def path(task):
    return f"{TASKS}/{task['id']}"


@pytest.mark.parametrize(
    "patch",
    [
        {"title": "New"},
        {"description": ""},
        {"description": None},
        {"is_completed": True},
        {"title": "New", "is_completed": True},
        {"is_completed": True, "description": "x", "title": "New"},
        # of which only one changes anything
        {"title": "Buy milk", "description": "2 l", "is_completed": True},
    ],
    ids=shown,
)
@pytest.mark.parametrize("content_type", ["application/json", "application/merge-patch+json"])
def test_it_sets_the_given_fields(api, task, path, patch, content_type, django_assert_num_queries):
    # UPDATE … SET …, updated_at … RETURNING …
    with django_assert_num_queries(1):
        new = api.patch(path, patch, content_type=content_type)
    assert list(new) == KEYS
    assert new == {**task, **patch, "updated_at": new["updated_at"]}
    assert new["updated_at"] > task["updated_at"]
    assert api.last["ETag"] == task_etag(new)
    assert api.get(path) == new


@pytest.mark.parametrize(
    "patch",
    [
        {},
        {"title": "Buy milk"},
        {"title": " Buy milk "},
        {"description": "2 l"},
        {"is_completed": False},
        {"title": "Buy milk", "description": "2 l", "is_completed": False},
        {"id": None, "user_id": BOB, "created_at": 0, "updated_at": 0},
    ],
    ids=shown,
)
def test_a_patch_without_effect_keeps_updated_at(api, task, path, patch):
    assert api.patch(path, patch) == task
    assert api.last["ETag"] == task_etag(task)
    assert api.get(path) == task


def test_null_and_empty_descriptions_differ(api, path):
    before = api.patch(path, {"description": None})
    for description in ("", None):
        after = api.patch(path, {"description": description})
        assert after["description"] == description
        assert after["updated_at"] > before["updated_at"]
        assert api.patch(path, {"description": description}) == after
        before = after


@pytest.mark.parametrize("text", TEXTS, ids=shown)
def test_text_is_returned_unchanged(api, path, text):
    new = api.patch(path, {"title": text, "description": text})
    assert (new["title"], new["description"]) == (text, text)
    assert api.get(path) == new


def test_letters_that_only_look_alike_are_different(api, path):
    before = api.patch(path, {"title": "caf\u00e9"})
    after = api.patch(path, {"title": "cafe\u0301"})
    assert after["updated_at"] > before["updated_at"]
    assert api.patch(path, {"title": "Cafe\u0301"})["title"] == "Cafe\u0301"


@pytest.mark.parametrize(("field", "value", "code"), BAD_FIELDS, ids=shown)
def test_it_rejects_bad_fields(api, task, path, field, value, code, django_assert_num_queries):
    # The valid field of the request is not written either.
    good = {"title": "New"} if field != "title" else {"is_completed": True}
    with django_assert_num_queries(0):
        problem = api.patch(path, {**good, field: value}, 422)
    assert problem["code"] == "validation_error"
    assert [(e["field"], e["code"]) for e in problem["errors"]] == [(field, code)]
    assert api.get(path) == task


@pytest.mark.parametrize("patch", [{"title": "New"}, {}], ids=shown)
def test_a_missing_task_is_404(api, task, patch, django_assert_num_queries):
    with django_assert_num_queries(1):
        assert api.patch(MISSING, patch, 404)["code"] == "not_found"
    api.patch(f"/api/{BOB}/tasks/{task['id']}", patch, 404)
    assert api.get(TASKS) == [task]

"""MAX_TASKS_PER_OWNER: a create beyond it is 409, checked in the same statement."""

from typing import Any

import pytest

from tests.client import API, BOB, TASKS

MILK = {"title": "Buy milk"}


@pytest.fixture(autouse=True)
def quota(settings: Any) -> None:
    settings.MAX_TASKS_PER_OWNER = 3


def test_a_create_beyond_the_quota_is_409(api: API, django_assert_num_queries: Any) -> None:
    tasks = [api.create() for _ in range(3)]
    # INSERT … SELECT … WHERE 3 > (SELECT count(*) …) … RETURNING …
    with django_assert_num_queries(1):
        problem = api.post(TASKS, MILK, 409)
    assert problem["code"] == "too_many_tasks"
    assert api.get(TASKS) == tasks[::-1]
    assert api.create(BOB)["user_id"] == BOB
    api.delete(f"{TASKS}/{tasks[0]['id']}")
    assert api.create(title="In the place of the deleted one")


def test_every_value_survives_the_longer_statement(api: API) -> None:
    full = {"title": "Straße 😀", "description": "", "is_completed": True}
    created = api.post(TASKS, full)
    assert created.items() >= full.items()
    assert api.get(TASKS) == [created]
    assert api.post(TASKS, MILK)["description"] is None


def test_a_key_used_before_is_not_refused(api: API, django_assert_num_queries: Any) -> None:
    key = {"Idempotency-Key": "k"}
    first = api.post(TASKS, MILK, headers=key)
    api.create()
    api.create()
    with django_assert_num_queries(1):
        assert api.post(TASKS, MILK, headers=key) == first
    # Another payload: a second statement finds out why no row was returned.
    with django_assert_num_queries(2):
        assert api.post(TASKS, {"title": "x"}, 422, headers=key)["code"] == "idempotency_key_reused"
        with_new_key = {"Idempotency-Key": "new"}
    with django_assert_num_queries(2):
        assert api.post(TASKS, MILK, 409, headers=with_new_key)["code"] == "too_many_tasks"
    assert len(api.get(TASKS)) == 3


def test_a_create_is_refused_when_the_quota_was_lowered(api: API, settings: Any) -> None:
    api.create()
    api.create()
    settings.MAX_TASKS_PER_OWNER = 1
    api.post(TASKS, MILK, 409)
    assert len(api.get(TASKS)) == 2

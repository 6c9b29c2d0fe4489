"""GET /api/{user_id}/tasks/{id}"""

from datetime import UTC, datetime

import pytest

from tasks.etags import task_etag
from tests.client import ALICE, BOB, TASKS
from tests.values import KEYS, MISSING, make_tasks


def test_it_returns_the_task(api, django_assert_num_queries):
    task = api.create(title="Buy milk", description="", is_completed=True)
    # SELECT … WHERE user_id = … AND id = …
    with django_assert_num_queries(1):
        found = api.get(f"{TASKS}/{task['id']}")
    assert found == task
    assert list(found) == KEYS
    assert api.last["Content-Type"] == "application/json"
    assert api.last["ETag"] == task_etag(task)


def test_ids_in_upper_case_are_the_same_ids(api):
    task = api.create()
    assert api.get(f"{TASKS.replace(ALICE, ALICE.upper())}/{task['id'].upper()}") == task


def test_a_task_of_another_owner_does_not_exist(api):
    task = api.create(owner=BOB)
    never_made = api.get(MISSING, 404)
    assert never_made["code"] == "not_found"
    assert api.get(f"{TASKS}/{task['id']}", 404) == never_made


@pytest.mark.parametrize(
    "time",
    [
        datetime(2026, 1, 1, tzinfo=UTC),
        datetime(2026, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 100000, tzinfo=UTC),
    ],
    ids=str,
)
def test_times_have_six_digits_always(api, time):
    make_tasks(1, created_at=time, updated_at=time)
    (task,) = api.get(TASKS)
    assert task["created_at"] == task["updated_at"] == f"{time:%Y-%m-%dT%H:%M:%S.%fZ}"
    assert api.get(f"{TASKS}/{task['id']}") == task


def test_query_parameters_are_ignored(api):
    """Only a list is strict about its parameters."""
    task = api.create()
    assert api.get(f"{TASKS}/{task['id']}?_=1700000000") == task

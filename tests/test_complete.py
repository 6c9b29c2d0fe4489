"""PATCH /api/{user_id}/tasks/{id}/complete"""

from tests.client import ALICE


def test_without_a_body_it_toggles(api, django_assert_num_queries):
    task = api.create()
    path = f"/api/{ALICE}/tasks/{task['id']}/complete"
    # UPDATE … SET is_completed = NOT is_completed … RETURNING …
    with django_assert_num_queries(1):
        done = api.patch(path)
    assert done == {**task, "is_completed": True, "updated_at": done["updated_at"]}
    assert done["updated_at"] > task["updated_at"]
    assert api.patch(path)["is_completed"] is False


def test_with_a_body_it_sets(api, django_assert_num_queries):
    task = api.create()
    path = f"/api/{ALICE}/tasks/{task['id']}/complete"
    with django_assert_num_queries(1):
        done = api.patch(path, {"is_completed": True})
    assert done["is_completed"] is True
    assert api.patch(path, {"is_completed": True}) == done
    assert api.last["ETag"] == f'"{done["updated_at"]}"'

"""DELETE /api/{user_id}/tasks/{id}"""

from tasks.models import Task
from tests.client import BOB, TASKS
from tests.values import MISSING


def test_it_deletes_for_good(api, django_assert_num_queries):
    task, other = api.create(), api.create()
    path = f"{TASKS}/{task['id']}"
    # DELETE … WHERE user_id = … AND id = … RETURNING 1
    with django_assert_num_queries(1):
        assert api.delete(path) is None
    assert "Content-Type" not in api.last.headers
    assert "ETag" not in api.last.headers
    assert api.get(TASKS) == [other]
    assert api.get(path, 404) == api.delete(path, 404)
    assert [str(task.id) for task in Task.objects.all()] == [other["id"]]


def test_a_missing_task_is_404(api, django_assert_num_queries):
    task = api.create(owner=BOB)
    with django_assert_num_queries(1):
        assert api.delete(MISSING, 404)["code"] == "not_found"
    api.delete(f"{TASKS}/{task['id']}", 404)
    assert api.get(f"/api/{BOB}/tasks") == [task]


def test_a_body_is_ignored(api):
    """RFC 9110 section 9.3.5 gives it no meaning; some clients send one."""
    task = api.create()
    api.request("DELETE", f"{TASKS}/{task['id']}", "{", 204)
    assert api.get(TASKS) == []

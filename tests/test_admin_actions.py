"""/admin/: actions on many tasks of one user."""

import json
import uuid
from datetime import UTC, datetime
from io import StringIO
from typing import Any
from uuid import UUID

import pytest
from axes.models import AccessAttempt
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tasks import admin as tasks_admin
from tasks import models
from tasks.etags import task_etag
from tasks.models import Task
from tests.client import ALICE, API, BOB, TASKS
from tests.values import TEXTS, Terminal, make_tasks
from todo_project.database.errors import Unavailable

LIST = "/admin/tasks/task/"
ERASE = f"{LIST}erase/{ALICE}/"


def log_in(client: Client, *rights: str) -> Client:
    """Staff with permissions such as "view"; without arguments a superuser."""
    user = User.objects.create(username="operator", is_staff=True, is_superuser=not rights)
    names = [f"{right}_task" for right in rights]
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    client.force_login(user)
    return client


@pytest.fixture
def admin(db: None, client: Client) -> Client:
    return log_in(client)


def act(admin: Client, action: str, *ids: str, query: str = ALICE, **fields: str) -> Any:
    """Run an action on some tasks of a search, or without `ids` on all of its pages."""
    some = ids or [str(id) for id in Task.objects.values_list("id", flat=True)[:1]]
    form = {"action": action, "_selected_action": some, "index": "0", **fields}
    if not ids:
        form["select_across"] = "1"
    return admin.post(f"{LIST}?q={query}", form)


def messages_of(admin: Client, response: Any) -> list[str]:
    page = admin.get(response.url)
    return [str(message) for message in page.context["messages"]]


def entries() -> list[tuple[Any, ...]]:
    fields = ("user__username", "object_repr", "action_flag", "change_message")
    return list(LogEntry.objects.order_by("id").values_list(*fields))


def completed() -> set[str]:
    return {str(id) for id in Task.objects.filter(is_completed=True).values_list("id", flat=True)}


def test_djangos_action_that_deletes_many_is_removed(admin: Client, api: API) -> None:
    api.create()
    page = admin.get(LIST, {"q": ALICE}).content.decode()
    assert "delete_selected" not in page
    act(admin, "delete_selected")
    assert len(api.get(TASKS)) == 1


def test_selected_tasks_are_marked_and_no_others(admin: Client, api: API) -> None:
    one, two, _ = api.create(), api.create(), api.create()
    response = act(admin, "mark_completed", one["id"], two["id"])
    assert completed() == {one["id"], two["id"]}
    assert messages_of(admin, response) == ["2 tasks marked as completed."]
    response = act(admin, "mark_open", one["id"])
    assert completed() == {two["id"]}
    assert messages_of(admin, response) == ["1 task marked as open."]
    tasks = f"Tasks of user {ALICE}"
    assert entries() == [
        ("operator", tasks, CHANGE, "2 tasks marked as completed."),
        ("operator", tasks, CHANGE, "1 task marked as open."),
    ]


def test_all_tasks_of_a_user_are_marked_in_one_statement(admin: Client, api: API) -> None:
    make_tasks(3000)
    bobs = make_tasks(1, user_id=UUID(BOB))
    with CaptureQueriesContext(connection) as queries:
        act(admin, "mark_completed")
    assert len([query for query in queries if query["sql"].startswith("UPDATE")]) == 1
    assert len(completed()) == 3000
    assert completed().isdisjoint(bobs)


def test_all_tasks_of_a_search_are_those_that_it_found(admin: Client, api: API) -> None:
    milk, _ = api.create(title="Buy milk"), api.create(title="Call Bob")
    act(admin, "mark_completed", query=f"{ALICE}+milk")
    assert completed() == {milk["id"]}
    act(admin, "mark_open", query=f"{ALICE}&is_completed__exact=0")
    assert completed() == {milk["id"]}


@pytest.mark.parametrize("query", ["", "milk", BOB])
def test_without_a_user_no_task_is_marked(admin: Client, api: API, query: str) -> None:
    task = api.create()
    act(admin, "mark_completed", query=query)
    act(admin, "mark_completed", task["id"], query=query)
    assert api.get(TASKS) == [task]
    assert not LogEntry.objects.exists()


def test_marking_keeps_the_rules_for_times_and_tags(admin: Client, api: API) -> None:
    open_one, done = api.create(), api.create(is_completed=True)
    ahead = api.create()
    Task.objects.filter(id=ahead["id"]).update(updated_at=datetime(2999, 1, 1, tzinfo=UTC))
    act(admin, "mark_completed")
    changed = api.get(f"{TASKS}/{open_one['id']}")
    assert changed["updated_at"] > open_one["updated_at"]
    assert api.last["ETag"] == task_etag(changed) != task_etag(open_one)
    assert changed == {**open_one, "is_completed": True, "updated_at": changed["updated_at"]}
    # Tasks that were completed before have not changed.
    assert api.get(f"{TASKS}/{done['id']}") == done
    assert api.get(f"{TASKS}/{ahead['id']}")["updated_at"] == "2999-01-01T00:00:00.000001Z"


def export(admin: Client, *ids: str, **options: str) -> Any:
    response = act(admin, "export", *ids, **options)
    assert response.status_code == 200
    assert response["Content-Type"] == "application/json"
    assert response.streaming
    return json.loads(b"".join(response.streaming_content))


def test_the_export_is_what_the_api_returns_oldest_first(admin: Client, api: API) -> None:
    for text in TEXTS:
        api.create(title=text.strip(), description=text, is_completed=len(text) % 2 == 0)
    api.create(owner=BOB)
    tasks = api.get(TASKS)
    assert export(admin) == tasks[::-1]
    assert export(admin, tasks[3]["id"], tasks[5]["id"]) == [tasks[5], tasks[3]]
    assert export(admin, query=f"{ALICE}&is_completed__exact=1") == [
        task for task in tasks[::-1] if task["is_completed"]
    ]
    assert export(admin, query=BOB) == api.get(f"/api/{BOB}/tasks")
    assert export(admin, tasks[0]["id"], query="") == []
    assert entries()[0] == ("operator", f"Tasks of user {ALICE}", CHANGE, "Tasks exported as JSON.")
    response = act(admin, "export")
    assert response["Content-Disposition"] == f'attachment; filename="tasks-of-{ALICE}.json"'
    response.close()


def test_the_export_reads_a_page_at_a_time(admin: Client, django_assert_num_queries: Any) -> None:
    """All have the same `created_at`, so the pages are ordered by id."""
    ids = make_tasks(2500)
    response = act(admin, "export")
    with django_assert_num_queries(4):  # the last finds none
        chunks = list(response.streaming_content)
    assert len(chunks) == 2501
    assert sorted(task["id"] for task in json.loads(b"".join(chunks))) == sorted(ids)


# Erasing


def test_a_user_is_erased_when_the_id_is_typed(admin: Client, api: API) -> None:
    make_tasks(3, is_completed=True)
    make_tasks(2)
    bobs = api.create(owner=BOB)
    page = admin.get(LIST, {"q": ALICE}).content.decode()
    assert f'<a href="{ERASE}">Erase this user</a>' in page
    page = admin.get(ERASE).content.decode()
    assert "<strong>5 tasks</strong>: 2 open, 3 completed" in page
    for typed in ("", BOB, ALICE[:-1], "yes"):
        response = admin.post(ERASE, {"user_id": typed})
        assert "This is not the id of the user above." in response.content.decode()
        assert Task.objects.count() == 6
    response = admin.post(ERASE, {"user_id": f" {ALICE.upper()} "})
    assert messages_of(admin, response) == [f"5 tasks of user {ALICE} erased."]
    assert [str(task.id) for task in Task.objects.all()] == [bobs["id"]]
    assert entries() == [("operator", f"Tasks of user {ALICE}", DELETION, "5 tasks erased.")]
    assert "has <strong>no tasks</strong>." in admin.get(ERASE).content.decode()
    assert admin.get(f"{LIST}erase/x/").status_code == 404
    assert admin.put(ERASE).status_code == 405


def test_erasing_that_takes_too_long_goes_on_with_another_click(
    admin: Client, db: None, monkeypatch: Any
) -> None:
    monkeypatch.setattr(models, "BATCH_SIZE", 4)
    monkeypatch.setattr(tasks_admin, "ERASE_TIME", 0)
    make_tasks(6)
    response = admin.post(ERASE, {"user_id": ALICE})
    page = response.content.decode()
    assert "4 tasks of user" in page
    assert "There are more. Confirm again to go on." in page
    assert "<strong>2 tasks</strong>" in page
    assert f'value="{ALICE}"' in page
    assert admin.post(ERASE, {"user_id": ALICE}).status_code == 302
    assert [entry[3] for entry in entries()] == ["4 tasks erased.", "2 tasks erased."]


# Rights


@pytest.mark.parametrize(
    ("rights", "actions", "may_erase"),
    [
        (["view"], ["export"], False),
        (["view", "change"], ["mark_completed", "mark_open", "export"], False),
        (["view", "delete"], ["export"], True),
    ],
)
def test_staff_may_do_what_they_have_permission_for(
    client: Client, api: API, rights: list[str], actions: list[str], may_erase: bool
) -> None:
    task = api.create()
    log_in(client, *rights)
    page = client.get(LIST, {"q": ALICE}).content.decode()
    for action in ("mark_completed", "mark_open", "export"):
        assert (f'<option value="{action}">' in page) == (action in actions)
        act(client, action)
    assert ("Erase this user" in page) == may_erase
    done = Task.objects.filter(updated_at__gt=task["updated_at"]).exists()
    assert done == ("change" in rights)
    for method in (client.get, client.post):
        assert method(ERASE, {"user_id": ALICE}).status_code == (
            403 if not may_erase else 200 if method == client.get else 302
        )
    assert Task.objects.exists() != may_erase


def test_staff_without_permission_cannot_erase_or_act(client: Client, api: API) -> None:
    api.create()
    log_in(client, "add")
    assert act(client, "export").status_code == 403
    assert client.post(ERASE, {"user_id": ALICE}).status_code == 403
    assert len(api.get(TASKS)) == 1


# Commands


def erase_user(*arguments: str) -> str:
    output = StringIO()
    call_command("erase_user", *arguments, stdout=output)
    return output.getvalue()


def test_the_command_erases_in_batches(api: API, monkeypatch: Any) -> None:
    monkeypatch.setattr(models, "BATCH_SIZE", 4)
    make_tasks(10)
    bobs = api.create(owner=BOB)
    with CaptureQueriesContext(connection) as queries:
        assert erase_user(ALICE, "--yes") == f"10 tasks of user {ALICE} erased.\n"
    deletions = [query for query in queries if "DELETE" in query["sql"]]
    assert len(deletions) == 4  # the last finds none
    assert [str(task.id) for task in Task.objects.all()] == [bobs["id"]]
    assert erase_user(ALICE) == f"User {ALICE} has no tasks.\n"


def test_the_command_asks_for_the_id(db: None, monkeypatch: Any) -> None:
    make_tasks(2)
    questions = []

    def answer(text: str) -> None:
        def asked(question: str) -> str:
            questions.append(question)
            return text

        monkeypatch.setattr("builtins.input", asked)

    for wrong in ("yes", "", BOB):
        answer(wrong)
        with pytest.raises(
            CommandError, match=r"^Nothing was erased: this is not the user's id\.$"
        ):
            erase_user(ALICE)
    assert Task.objects.count() == 2
    answer(ALICE)
    erase_user(ALICE)
    assert set(questions) == {f"User {ALICE} has 2 tasks. Type the id to delete them for good: "}
    assert not Task.objects.exists()


def test_without_input_the_command_erases_nothing(db: None, monkeypatch: Any) -> None:
    make_tasks(2)
    monkeypatch.setattr("sys.stdin", StringIO())
    with pytest.raises(CommandError, match="there is no input"):
        erase_user(ALICE)
    assert Task.objects.count() == 2


def test_the_command_shows_its_progress_on_a_terminal(db: None, monkeypatch: Any) -> None:
    monkeypatch.setattr(models, "BATCH_SIZE", 4)
    make_tasks(10)
    output = Terminal()
    call_command("erase_user", ALICE, "--yes", stdout=output)
    *_, last = output.getvalue().split("\r")
    assert "#" * 40 in last
    assert "10 of 10" in last


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyboardInterrupt(), r"^Interrupted: 8 tasks erased\. Run it again\.$"),
        (Unavailable("It is away"), r"^8 tasks erased, then: It is away\. Run it again\.$"),
    ],
    ids=["interrupted", "database away"],
)
def test_the_command_can_be_interrupted_and_repeated(
    db: None, monkeypatch: Any, error: BaseException, message: str
) -> None:
    monkeypatch.setattr(models, "BATCH_SIZE", 4)
    make_tasks(10)
    run = vars(models)["run"]

    def interrupted(*args: Any, **options: Any) -> Any:
        if Task.objects.count() == 2:
            raise error
        return run(*args, **options)

    monkeypatch.setattr(models, "run", interrupted)
    with pytest.raises(CommandError, match=message):
        erase_user(ALICE, "--yes")
    monkeypatch.setattr(models, "run", run)
    assert erase_user(ALICE, "--yes") == f"2 tasks of user {ALICE} erased.\n"


@pytest.mark.parametrize("id", ["x", "", ALICE[:-1]])
def test_the_command_refuses_what_is_no_id(db: None, id: str) -> None:
    with pytest.raises(CommandError, match="is not a UUID"):
        erase_user(id, "--yes")


def test_purge_deletes_what_has_expired(db: None) -> None:
    then, later = datetime(2026, 1, 1, tzinfo=UTC), datetime(2999, 1, 1, tzinfo=UTC)
    for time in (then, later):
        Session.objects.create(session_key=uuid.uuid4().hex, expire_date=time)
        attempt = AccessAttempt.objects.create(username=f"{time}", failures_since_start=1)
        AccessAttempt.objects.filter(id=attempt.id).update(attempt_time=time)
    output = StringIO()
    call_command("purge", stdout=output)
    assert output.getvalue() == "Expired sessions and 1 failed logins deleted.\n"
    assert Session.objects.get().expire_date == later
    assert AccessAttempt.objects.get().username == f"{later}"

"""/admin/: tasks for operators."""

import html
import re
from datetime import UTC, datetime

import pytest
from django.contrib.auth.models import User

from tasks.etags import task_etag
from tasks.models import Task
from tests.client import ALICE, BOB, NOBODYS
from tests.values import TASKS

LIST = "/admin/tasks/task/"


@pytest.fixture
def admin(db, client):
    """A browser with a superuser logged in."""
    client.force_login(User.objects.create(username="root", is_staff=True, is_superuser=True))
    return client


def rows(response):
    """The titles of the list, in its order."""
    found = re.findall(r'<th class="field-title"><a [^>]*>(.*?)</a>', response.content.decode())
    return [html.unescape(title) for title in found]


def save(admin, task, **fields):
    """Save the form of a task as a browser does: line breaks become CRLF."""
    path = f"{LIST}{task['id']}/change/"
    initial = admin.get(path).context["adminform"].form.initial
    values = {name: "" if value is None else value for name, value in initial.items()}
    if values.pop("is_completed"):  # a checkbox that is not checked is not sent
        values["is_completed"] = "on"
    data = {
        name: re.sub(r"\r\n?|\n", "\r\n", value) for name, value in {**values, **fields}.items()
    }
    return admin.post(path, data)


def test_it_asks_for_a_login(client, db):
    assert client.get(LIST).headers["Location"] == f"/admin/login/?next={LIST}"
    page = client.get("/admin/login/")
    assert page.headers["Content-Type"].startswith("text/html")
    assert page.status_code == 200


def test_staff_without_the_right_see_nothing(client, api):
    api.create()
    client.force_login(User.objects.create(username="staff", is_staff=True))
    response = client.get(LIST)
    assert response.status_code == 403
    assert response.headers["Content-Type"] == "application/problem+json"


def test_it_lists_the_tasks_of_all_newest_first(admin, api):
    api.create(title="<b>Alice's</b>")
    api.create(owner=BOB, title="Bob's 😀")
    assert rows(admin.get(LIST)) == ["Bob's 😀", "<b>Alice's</b>"]
    assert rows(admin.get(LIST + "?o=1")) == ["<b>Alice's</b>", "Bob's 😀"]
    assert admin.get("/admin/").status_code == 200


def test_it_looks_up_by_id_and_by_user_id_exactly(admin, api):
    one, two = api.create(title="one"), api.create(title="two")
    api.create(owner=BOB, title="Bob's")
    for query, found in {
        one["id"]: ["one"],
        f" {two['id'].upper()} ": ["two"],
        ALICE: ["two", "one"],
        BOB.upper(): ["Bob's"],
        NOBODYS: [],
        one["id"][:-1]: [],
        "one": [],
        "%": [],
        f"{ALICE} {BOB}": [],
    }.items():
        assert (query, rows(admin.get(LIST, {"q": query}))) == (query, found)


def test_it_filters_by_completion(admin, api):
    api.create(title="open")
    api.create(title="done", is_completed=True)
    assert rows(admin.get(LIST, {"is_completed__exact": 1})) == ["done"]
    assert rows(admin.get(LIST, {"is_completed__exact": 0})) == ["open"]


def test_there_is_no_adding(admin, api):
    assert admin.get(LIST + "add/").status_code == 403
    data = {"title": "x", "user_id": ALICE}
    assert admin.post(LIST + "add/", data).status_code == 403
    assert "/tasks/task/add/" not in admin.get(LIST).content.decode()
    assert not Task.objects.exists()


def test_a_change_moves_updated_at_and_what_is_read_only_stays(admin, api):
    task = api.create(description=" 2 l\n")
    foreign = {"id": NOBODYS, "user_id": BOB, "created_at": "2000-01-01", "updated_at_0": "x"}
    assert save(admin, task, title="New", **foreign).status_code == 302
    new = api.get(f"{TASKS}/{task['id']}")
    assert new == {**task, "title": "New", "updated_at": new["updated_at"]}
    assert new["updated_at"] > task["updated_at"]
    assert api.last["ETag"] == task_etag(new)
    save(admin, task, is_completed="on")
    done = api.get(f"{TASKS}/{task['id']}")
    assert done == {**new, "is_completed": True, "updated_at": done["updated_at"]}
    assert done["updated_at"] > new["updated_at"]


@pytest.mark.parametrize(
    "description", [None, "", " ", "two\nlines", "two\r\nlines", "two\rlines", "\n a \n", "é😀"]
)
@pytest.mark.parametrize("is_completed", [False, True])
def test_an_unchanged_save_moves_nothing(admin, api, description, is_completed):
    task = api.create(description=description, is_completed=is_completed)
    assert save(admin, task).status_code == 302
    assert api.get(f"{TASKS}/{task['id']}") == task
    # What is changed besides leaves the description as it was, to the letter.
    save(admin, task, title="New")
    assert api.get(f"{TASKS}/{task['id']}")["description"] == description


def test_a_title_keeps_its_line_breaks(admin, api):
    task = api.create(title="two\nlines")
    assert "<textarea" in admin.get(f"{LIST}{task['id']}/change/").content.decode()
    save(admin, task, is_completed="on")
    assert api.get(f"{TASKS}/{task['id']}")["title"] == "two\nlines"


def test_updated_at_rises_past_a_time_in_the_future(admin, api):
    task = api.create()
    Task.objects.update(updated_at=datetime(2999, 1, 1, tzinfo=UTC))
    save(admin, task, title="New")
    new = api.get(f"{TASKS}/{task['id']}")
    assert new["updated_at"] == "2999-01-01T00:00:00.000001Z"


@pytest.mark.parametrize(
    "fields",
    [
        {"title": ""},
        {"title": " \u3000"},
        {"title": "😀" * 256},
        {"title": "\0"},
        {"description": "\0"},
        {"description": "😀" * 2001},
    ],
)
def test_the_rules_of_a_task_hold_here_too(admin, api, fields):
    task = api.create()
    response = save(admin, task, **fields)
    assert response.status_code == 200
    assert list(response.context["adminform"].form.errors) == list(fields)
    assert api.get(TASKS) == [task]


def test_descriptions_can_be_changed_and_cleared(admin, api):
    task = api.create()
    save(admin, task, description=" two\nlines ")
    assert api.get(f"{TASKS}/{task['id']}")["description"] == " two\nlines "
    save(admin, task, description="")
    assert api.get(f"{TASKS}/{task['id']}")["description"] == ""


def test_it_deletes(admin, api):
    task, other = api.create(), api.create()
    assert admin.post(f"{LIST}{task['id']}/delete/", {"post": "yes"}).status_code == 302
    assert api.get(TASKS) == [other]


def test_ids_that_are_none_are_no_error(admin):
    for id in ("1", "x", NOBODYS, "%00", "a" * 300):
        assert admin.get(f"{LIST}{id}/change/").status_code == 302

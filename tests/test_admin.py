"""/admin/: tasks for operators."""

import html
import re
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import pytest
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.auth.models import User
from django.core.serializers import serialize
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tasks.etags import task_etag
from tasks.models import Task
from tests.client import ALICE, BOB, NOBODYS, TASKS

LIST = "/admin/tasks/task/"


@pytest.fixture
def admin(db, client):
    """A browser with a superuser logged in."""
    client.force_login(User.objects.create(username="root", is_staff=True, is_superuser=True))
    return client


def rows(response):
    """The titles in the list, in order."""
    found = re.findall(r'<th class="field-title"><a [^>]*>(.*?)</a>', response.content.decode())
    return [html.unescape(title) for title in found]


def open_form(admin, task):
    """The data that a browser sends from the form of a task."""
    page = admin.get(f"{LIST}{task['id']}/change/").content.decode()
    form = page.partition('id="task_form"')[2].partition("</form>")[0]
    data = {}
    for tag in re.findall(r"<input [^>]*>", form):
        name, type, value = (
            html.unescape("".join(re.findall(f' {attribute}="([^"]*)"', tag)))
            for attribute in ("name", "type", "value")
        )
        if type == "checkbox" and " checked" in tag:
            data[name] = value or "on"
        elif type not in ("checkbox", "submit"):
            data[name] = value
    for name, text in re.findall(
        r'<textarea name="(\w+)"[^>]*>\n(.*?)</textarea>', form, re.DOTALL
    ):
        data[name] = html.unescape(text)
    return data


def submit(admin, task, data):
    data = {name: re.sub(r"\r\n?|\n", "\r\n", value) for name, value in data.items()}
    return admin.post(f"{LIST}{task['id']}/change/", data)


def save(admin, task, **fields):
    """Open the form of a task, change some of it and save."""
    return submit(admin, task, {**open_form(admin, task), **fields})


def test_it_asks_for_a_login(client, db):
    assert client.get(LIST).headers["Location"] == f"/admin/login/?next={LIST}"
    page = client.get("/admin/login/")
    assert page.headers["Content-Type"].startswith("text/html")
    assert page.status_code == 200


def test_staff_without_permission_see_nothing(client, api):
    api.create()
    client.force_login(User.objects.create(username="staff", is_staff=True))
    response = client.get(LIST)
    assert response.status_code == 403
    assert response.headers["Content-Type"] == "application/problem+json"


def found(admin, query, **filters):
    return rows(admin.get(LIST, {"q": query, **filters}))


def test_it_opens_with_a_prompt_and_without_a_statement_on_tasks(admin, api):
    api.create()
    with CaptureQueriesContext(connection) as queries:
        response = admin.get(LIST)
    assert "Paste a user&#x27;s id" in response.content.decode()
    assert rows(response) == []
    assert not [query for query in queries if "tasks_task" in query["sql"]]
    assert admin.get("/admin/").status_code == 200


def test_it_lists_the_tasks_of_one_user_newest_first(admin, api):
    api.create(title="<b>one</b>")
    api.create(title="two 😀")
    api.create(owner=BOB, title="Bob's")
    assert found(admin, ALICE) == ["two 😀", "<b>one</b>"]
    assert found(admin, ALICE, o=1) == ["<b>one</b>", "two 😀"]


def test_it_finds_by_id_in_full_and_by_words_within_one_user(admin, api):
    one, two = api.create(title="one fish"), api.create(title="two fish")
    api.create(owner=BOB, title="Bob's fish")
    for query, expected in {
        one["id"]: ["one fish"],
        f" {two['id'].upper()} ": ["two fish"],
        ALICE: ["two fish", "one fish"],
        BOB.upper(): ["Bob's fish"],
        f"{ALICE} fish": ["two fish", "one fish"],
        f"{ALICE}  FISH one": ["one fish"],
        f'{ALICE} "one fish"': ["one fish"],
        f'{ALICE} "fish one"': [],
        f"{ALICE} %": [],
        f"{ALICE} {BOB}": [],
    }.items():
        assert (query, found(admin, query)) == (query, expected)


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("fish", "“fish” is not an id. Paste a user&#x27;s id"),
        ("fish soup", "“fish” is not an id. Paste a user&#x27;s id"),
        ("%", "“%” is not an id. Paste a user&#x27;s id"),
        (ALICE[:-1], f"“{ALICE[:-1]}” is not an id. Paste a user&#x27;s id"),
        (NOBODYS, f"{NOBODYS} is the id of no task and of no user who has tasks."),
        (f"{NOBODYS} fish", f"{NOBODYS} is the id of no task and of no user who has tasks."),
    ],
)
def test_an_unsupported_search_says_what_is_supported(admin, api, query, problem):
    api.create(title="fish soup")
    response = admin.get(LIST, {"q": query})
    assert problem in response.content.decode()
    assert rows(response) == []


def test_it_filters_by_completion_and_by_age(admin, api):
    now = datetime.now(UTC)
    for days in (0, 3, 40, 400):
        then = now - timedelta(days=days, minutes=1)
        Task.objects.create(user_id=ALICE, title=str(days), created_at=then)
    Task.objects.filter(title="3").update(is_completed=True)
    assert found(admin, ALICE, is_completed__exact=1) == ["3"]
    assert found(admin, ALICE, is_completed__exact=0) == ["0", "40", "400"]
    assert found(admin, ALICE, age="-1") == ["0"]
    assert found(admin, ALICE, age="-7") == ["0", "3"]
    assert found(admin, ALICE, age="30") == ["40", "400"]
    assert found(admin, ALICE, age="365", is_completed__exact=0) == ["400"]
    assert found(admin, ALICE, age="x") == ["0", "3", "40", "400"]


def test_the_users_counts_are_shown_above_their_tasks(admin, api):
    first, second = api.create(), api.create(is_completed=True)
    Task.objects.filter(id=first["id"]).update(created_at=datetime(2026, 1, 2, 3, 4, 5, 6, UTC))
    for query in (ALICE, first["id"], f"{ALICE} nothing"):
        page = " ".join(admin.get(LIST, {"q": query}).content.decode().split())
        assert f'<a href="?q={ALICE}">{ALICE}</a>: 1 open, 1 completed;' in page
        last = second["created_at"].replace("T", " ").partition(".")[0]
        assert f"created 2026-01-02 03:04:05 UTC, the last {last} UTC." in page


def test_a_task_links_to_all_tasks_of_its_user(admin, api):
    task = api.create()
    page = admin.get(f"{LIST}{task['id']}/change/").content.decode()
    assert f'<a href="{LIST}?q={ALICE}">' in page


def test_tasks_cannot_be_added(admin, api):
    assert admin.get(LIST + "add/").status_code == 403
    data = {"title": "x", "user_id": ALICE}
    assert admin.post(LIST + "add/", data).status_code == 403
    assert "/tasks/task/add/" not in admin.get(LIST).content.decode()
    assert not Task.objects.exists()


def test_a_change_sets_updated_at_and_no_read_only_field(admin, api):
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
def test_an_unchanged_save_keeps_updated_at(admin, api, description, is_completed):
    task = api.create(description=description, is_completed=is_completed)
    assert save(admin, task).status_code == 302
    assert api.get(f"{TASKS}/{task['id']}") == task
    # Other changes keep the description exactly as it was.
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
def test_the_rules_for_tasks_apply_in_the_admin(admin, api, fields):
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


@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="SQLite has a switch for it")
def test_a_save_without_a_database_says_that_it_may_have_been_done(admin, api):
    task = api.create()
    form = open_form(admin, task)
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA query_only = on")
        try:
            response = submit(admin, task, {**form, "title": "New"})
        finally:
            cursor.execute("PRAGMA query_only = off")
    assert (response.status_code, response.json()["code"]) == (503, "outcome_unknown")


def test_malformed_ids_are_no_error(admin):
    for id in ("1", "x", NOBODYS, "%00", "a" * 300):
        assert admin.get(f"{LIST}{id}/change/").status_code == 302


# Saving against changes that a client makes while the form is open


def test_changes_of_a_client_meanwhile_are_kept(admin, api):
    task = api.create(title="old", description="old")
    form = open_form(admin, task)
    api.patch(f"{TASKS}/{task['id']}", {"title": "client's", "description": None})
    assert submit(admin, task, {**form, "is_completed": "on"}).status_code == 302
    new = api.get(f"{TASKS}/{task['id']}")
    assert (new["title"], new["description"], new["is_completed"]) == ("client's", None, True)


@pytest.mark.parametrize(
    ("field", "shown", "clients", "operators"),
    [
        ("title", "old", "client's", "operator's"),
        ("description", "old\n", "<b>client's</b>", ""),
        ("description", None, "client's", "operator's"),
        ("description", "old", None, "operator's"),
    ],
)
def test_a_conflict_is_refused_with_both_versions(admin, api, field, shown, clients, operators):
    task = api.create(**{"title": "x", field: shown})
    form = {**open_form(admin, task), field: operators, "is_completed": "on"}
    client_made = api.patch(f"{TASKS}/{task['id']}", {field: clients})
    response = submit(admin, task, form)
    assert response.status_code == 200
    [[error]] = response.context["adminform"].form.errors.values()
    was = (shown or "").replace("\n", "\r\n")
    assert f"it is “{clients or ''}” now, and was “{was}” when you" in error
    assert html.escape(clients or "") in response.content.decode()
    assert api.get(f"{TASKS}/{task['id']}") == client_made
    assert not LogEntry.objects.exists()
    # Having seen both values, the operator may save again.
    again = dict(response.context["adminform"].form.data.items())
    assert submit(admin, task, again).status_code == 302
    new = api.get(f"{TASKS}/{task['id']}")
    assert (new[field], new["is_completed"]) == (operators, True)


def test_a_conflict_is_found_again_after_another_change(admin, api):
    task = api.create(title="old")
    form = {**open_form(admin, task), "title": "operator's"}
    for clients in ("first", "second"):
        api.patch(f"{TASKS}/{task['id']}", {"title": clients})
        response = submit(admin, task, form)
        form = dict(response.context["adminform"].form.data.items())
        assert f"it is “{clients}” now" in response.content.decode()


def test_the_same_change_by_both_is_no_conflict(admin, api):
    task = api.create(title="old")
    form = {**open_form(admin, task), "title": "new", "is_completed": "on"}
    done = api.patch(f"{TASKS}/{task['id']}", {"title": "new", "is_completed": True})
    assert submit(admin, task, form).status_code == 302
    assert api.get(f"{TASKS}/{task['id']}") == done


def test_without_the_shown_values_nothing_is_overwritten(admin, api):
    task = api.create(title="old", is_completed=True)
    assert submit(admin, task, {"title": "operator's"}).status_code == 200
    assert api.get(TASKS) == [task]


def test_a_task_deleted_meanwhile_is_not_created_again(admin, api):
    task = api.create()
    form = {**open_form(admin, task), "title": "new"}
    api.delete(f"{TASKS}/{task['id']}")
    assert submit(admin, task, form).status_code == 302
    assert not Task.objects.exists()


def test_a_save_and_a_deletion_leave_log_entries_without_the_title(admin, api):
    task = api.create(title="secret")
    save(admin, task, description="secret too")
    admin.post(f"{LIST}{task['id']}/delete/", {"post": "yes"})
    entries = LogEntry.objects.order_by("id").values_list(
        "user__username", "object_repr", "action_flag"
    )
    assert list(entries) == [("root", task["id"], CHANGE), ("root", task["id"], DELETION)]
    assert "secret" not in serialize("json", LogEntry.objects.all())


def test_the_longest_task_can_be_saved_as_a_browser_encodes_it(admin, api):
    """A form has every text twice, and a body may have 64 KiB."""
    task = api.create(title="😀" * 255, description="😀" * 2000)
    form = urlencode({**open_form(admin, task), "title": "é" * 255})
    path = f"{LIST}{task['id']}/change/"
    response = admin.post(path, form, content_type="application/x-www-form-urlencoded")
    assert response.status_code == 302
    assert api.get(f"{TASKS}/{task['id']}")["title"] == "é" * 255

"""No page and no click of the admin reads more tasks than one user has."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.http import StreamingHttpResponse
from django.test import Client

from tasks import models
from tasks.models import Task
from tests.database_plugin import on_citus

pytestmark = pytest.mark.skipif(on_citus(), reason="the plans are the workers' there")

LIST = "/admin/tasks/task/"
USERS, EACH = 1000, 150  # more than a page of the list
OWNER = UUID("00000000-0000-4000-8000-000000000007")

FILL = {
    "postgresql": f"""
        INSERT INTO tasks_task (id, user_id, title, is_completed, created_at, updated_at)
        SELECT gen_random_uuid(), ('00000000-0000-4000-8000-' || lpad(to_hex(n % {USERS}), 12, '0'))
            ::uuid, 'Task ' || n, n % 3 = 0, t, t
        FROM generate_series(1, {USERS * EACH}) n,
            LATERAL (SELECT timestamptz '2026-01-01Z' + n * interval '1 s' AS t) times""",
    "sqlite": f"""
        INSERT INTO tasks_task (id, user_id, title, is_completed, created_at, updated_at)
        WITH RECURSIVE
            series(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM series LIMIT {USERS * EACH})
        SELECT lower(hex(randomblob(16))), '00000000000040008000' || printf('%012x', n % {USERS}),
            'Task ' || n, n % 3 = 0, t, t
        FROM (SELECT n, datetime('2026-01-01', '+' || n || ' seconds') AS t FROM series)""",
}


@pytest.fixture(scope="module")
def tasks(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """A full table for all tests: rows that a test rolls back would stay in the index."""
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute(FILL[connection.vendor].replace("%", "%%"), [])
        cursor.execute("ANALYZE tasks_task")
    yield
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        postgresql = connection.vendor == "postgresql"
        cursor.execute("TRUNCATE tasks_task" if postgresql else "DELETE FROM tasks_task")


@pytest.fixture
def admin(tasks: None, db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create(username="root", is_staff=True, is_superuser=True))
    return client


@contextmanager
def explained() -> Iterator[list[tuple[str, Any]]]:
    """Each statement on tasks that the block sends, with its plan from before it runs."""
    found: list[tuple[str, Any]] = []

    def explain(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if "tasks_task" in sql:
            found.append((sql, plan(context["cursor"], sql, params)))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(explain):
        yield found


def plan(cursor: Any, sql: str, params: Any) -> Any:
    """PostgreSQL's plan with the rows that it read, or the lines of SQLite's."""
    with transaction.atomic():
        if connection.vendor == "sqlite":
            cursor.cursor.execute(f"EXPLAIN QUERY PLAN {sql}", params)
            found: Any = [row[3] for row in cursor.cursor.fetchall()]
        else:
            cursor.cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", params)
            found = cursor.cursor.fetchall()[0][0][0]["Plan"]
        transaction.set_rollback(True)  # ANALYZE has executed it
    return found


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def check(statements: list[tuple[str, Any]]) -> None:
    for sql, plan in statements:
        if connection.vendor == "sqlite":
            lines = [line for line in plan if "tasks_task" in line]
            assert lines, (sql, plan)
            for line in lines:
                assert re.search(r"SEARCH tasks_task USING .*INDEX .*\((user_id|id)=\?", line), line
            continue
        for node in nodes(plan):
            assert node["Node Type"] != "Seq Scan", (sql, node)
            met = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
            met += node.get("Rows Removed by Index Recheck", 0)
            assert met * node["Actual Loops"] <= 3 * EACH, (sql, node)  # changed rows count twice


def test_the_check_finds_a_scan(admin: Client) -> None:
    for tasks in (
        Task.objects.filter(title="x"),
        Task.objects.filter(user_id__gt=OWNER),
        Task.objects.order_by("id")[:1000],
    ):
        with explained() as statements:
            list(tasks)
        with pytest.raises(AssertionError):
            check(statements)


PAGES = [
    "",
    "?is_completed__exact=1&age=-7&o=-3",
    "?q=milk",
    "?q={owner}",
    "?q={owner}&p=2",
    "?q={owner}&all=",
    *(f"?q={{owner}}&o={way}{column}" for column in range(6) for way in ("", "-")),
    "?q={owner}&is_completed__exact=1",
    *(f"?q={{owner}}&age={age}" for age in ("-1", "-30", "365")),
    "?q={owner}+Task+5&is_completed__exact=0&age=30&o=-4",
    "?q={task}",
    "?q={owner}&_facets=True",
    "{task}/change/",
    "{task}/delete/",
    "{task}/history/",
]


def test_a_page_reads_the_tasks_of_one_user_at_most(admin: Client) -> None:
    task = Task.objects.filter(user_id=OWNER)[3]
    for page in PAGES:
        with explained() as statements:
            response = admin.get(LIST + page.format(owner=OWNER, task=task.id))
        assert response.status_code == 200, page
        assert bool(statements) == ("{" in page), page
        check(statements)


CLICKS = [
    ("{task}/change/", {"title": "New", "initial-title": "{title}", "is_completed": "on"}),
    ("?q={owner}", {"action": "mark_completed", "_selected_action": "{task}"}),
    (
        "?q={owner}",
        {"action": "mark_completed", "_selected_action": "{task}", "select_across": "1"},
    ),
    (
        "?q={owner}+Task&age=-7",
        {"action": "mark_open", "_selected_action": "{task}", "select_across": "1"},
    ),
    ("?q={owner}", {"action": "export", "_selected_action": "{task}", "select_across": "1"}),
    ("{task}/delete/", {"post": "yes"}),
    ("erase/{owner}/", {"user_id": "{owner}"}),
]


@pytest.mark.parametrize(("path", "form"), CLICKS)
def test_a_click_reads_and_writes_the_tasks_of_one_user_at_most(
    admin: Client, monkeypatch: pytest.MonkeyPatch, path: str, form: dict[str, str]
) -> None:
    monkeypatch.setattr(models, "PAGE_SIZE", 50)
    task = Task.objects.filter(user_id=OWNER)[3]
    values = {"owner": OWNER, "task": task.id, "title": task.title}
    data = {name: str(value) for name, value in Task.resource.defaults.items() if value}
    data |= {name: value.format(**values) for name, value in form.items()}
    with explained() as statements:
        response = admin.post(LIST + path.format(**values), data | {"index": "0"})
        if isinstance(response, StreamingHttpResponse):
            assert len(list(response)) == EACH + 1
        else:
            assert response.status_code == 302
    assert statements
    check(statements)
    for sql, _ in statements:
        # Statements that write or lock find their shard by the user.
        if re.match("UPDATE|DELETE", sql.strip()) or "FOR UPDATE" in sql:
            assert re.search(r'WHERE .*\buser_id"? = ', sql), sql

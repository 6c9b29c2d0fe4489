"""Every statement on tasks that the API sends is narrowed to one owner."""

import re
import uuid

import pytest

from tests.client import TASKS
from tests.database_plugin import open_live_server
from tests.live import HEAD_AND_OPTIONS, OPERATIONS, REFUSED, Client, Row

ORDERINGS = ["-created_at", "created_at", "-updated_at", "updated_at", "title", "-title"]
LISTS = [
    Row("list", "GET", f"{TASKS}?limit=1&ordering={ordering}{filters}")
    for ordering in ORDERINGS
    for filters in ("", "&is_completed=false", "&search=milk", "&is_completed=false&search=milk")
]


def is_narrowed(statement: str) -> bool:
    """Whether a statement reads and writes tasks of one owner only, or none at all.

    Knows the statements that the service sends; it is False for others.
    """
    sql = " ".join(statement.split())
    if "tasks_task" not in sql:
        return True
    # A quota counts the owner's own tasks, inside the statement.
    mine = r"SELECT 1 FROM tasks_task WHERE user_id = \$\d+"
    counted = (
        rf"SELECT CAST\(.*\) WHERE \$\d+ > \(SELECT count\(\*\) FROM \({mine} LIMIT \$\d+\) t\)"
        rf" OR EXISTS \({mine} AND idempotency_key = \$\d+\) ON CONFLICT"
    )
    sql = re.sub(counted, "VALUES () ON CONFLICT", sql)
    if insert := re.match(
        r"INSERT INTO tasks_task \(([^)]*)\) VALUES .* ON CONFLICT \((\w+),[^)]*\)"
        r".* WHERE tasks_task\.\w+ = excluded\.\w+ RETURNING [^;]*$",
        sql,
    ):
        return "user_id" in insert[1].split(", ") and insert[2] == "user_id"
    # It is the first condition, joined to the others by AND: an OR is in brackets.
    narrowed = re.match(
        r"(SELECT .* FROM|UPDATE|DELETE FROM) tasks_task (SET .* )?WHERE user_id = \$\d+(?= |$)",
        sql,
    )
    if narrowed is None or sql.count("tasks_task") > 1 or "UNION" in sql:
        return False
    without_brackets = sql[narrowed.end() :]
    while (inner := re.sub(r"\([^()]*\)", "", without_brackets)) != without_brackets:
        without_brackets = inner
    return " OR " not in without_brackets


@pytest.mark.live
def test_a_quota_counts_only_the_owners_tasks() -> None:
    with open_live_server(proxy=True, MAX_TASKS_PER_OWNER="2") as server, Client(server) as client:
        for key in ("a", "b", "a", "c"):
            answer = client.ask(
                "POST", TASKS, {"title": "Buy milk"}, headers={"Idempotency-Key": key}
            )
        assert (answer.status, answer.code) == (409, "too_many_tasks")
        statements = {s for s in server.proxy.statements if "tasks_task" in s}
        assert any("count(*)" in statement for statement in statements)
        assert [statement for statement in statements if not is_narrowed(statement)] == []


@pytest.mark.live
def test_the_api_touches_no_task_but_the_owners() -> None:
    with open_live_server(proxy=True) as server, Client(server) as client:
        for row in OPERATIONS + HEAD_AND_OPTIONS + REFUSED:
            key = str(uuid.uuid4())
            row.ask(client, client.create(headers={"Idempotency-Key": key}), key)
        task = client.create()
        for row in LISTS:
            for way in ("next", "next", "prev"):
                answer = row.ask(client, task)
                assert answer.status == 200
                link = re.search(rf'<([^>]*)>; rel="{way}"', answer.headers["Link"])
                assert link, (row.path, way)
                row = Row(row.name, row.method, link[1])
            assert row.ask(client, task).status == 200
        statements = set(server.proxy.statements)
    on_tasks = [statement for statement in statements if "tasks_task" in statement]
    verbs = {statement.split()[0] for statement in on_tasks}
    assert verbs == {"SELECT", "INSERT", "UPDATE", "DELETE"}  # every kind was seen
    assert len(on_tasks) > 2 * len(LISTS)
    assert [statement for statement in on_tasks if not is_narrowed(statement)] == []


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT id FROM tasks_task WHERE id = $1",
        "SELECT id FROM tasks_task",
        "SELECT user_id FROM tasks_task WHERE title = $1 AND user_id <> $2",
        "SELECT id FROM tasks_task WHERE user_id = $1 AND id = $2 OR title = $3",
        "SELECT id FROM tasks_task WHERE user_id = $1 UNION SELECT id FROM tasks_task",
        'SELECT "tasks_task"."id" FROM "tasks_task" WHERE "tasks_task"."id" = $1',
        "UPDATE tasks_task SET user_id = $1 WHERE id = $2",
        "DELETE FROM tasks_task WHERE id = $1 RETURNING 1",
        "INSERT INTO tasks_task (id, title) VALUES ($1, $2) ON CONFLICT (user_id, key)"
        " DO UPDATE SET key = excluded.key WHERE tasks_task.a = excluded.a RETURNING id",
        "INSERT INTO tasks_task (id, user_id) VALUES ($1, $2) ON CONFLICT (key, user_id)"
        " DO UPDATE SET key = excluded.key WHERE tasks_task.a = excluded.a RETURNING id",
    ],
)
def test_the_check_rejects_a_statement_on_all_tasks(statement: str) -> None:
    assert not is_narrowed(statement)

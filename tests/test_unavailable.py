"""503 is for states of the database, and names the state; a fault of the service is 500."""

import gc

import pytest
from django.db import DatabaseError, connection
from django.test import Client

from tests.client import API, TASKS
from todo_project.api.problems import unavailable
from todo_project.database.deadline import usage
from todo_project.database.errors import Reason, is_unavailable, unavailable_reason
from todo_project.database.execute import run


def execute(*statements: str) -> None:
    with connection.cursor() as cursor:
        for sql in statements:
            cursor.execute(sql)


@pytest.fixture
def postgresql(transactional_db) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("PostgreSQL's alone")


@pytest.fixture
def sqlite(transactional_db) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("SQLite's alone")


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("08006", Reason.AWAY),
        ("25006", Reason.READ_ONLY),
        ("40001", Reason.CONFLICT),
        ("40P01", Reason.CONFLICT),
        ("53100", Reason.FULL),
        ("53200", Reason.BUSY),
        ("53300", Reason.BUSY),
        ("55P03", Reason.LOCKED),
        ("57014", Reason.TIMED_OUT),
        ("57P01", Reason.AWAY),
        ("58030", Reason.IO_ERROR),
        *((state, None) for state in ("0A000", "22012", "23505", "25P02", "42501", "42601")),
        *((state, None) for state in ("42703", "42P01", "55000", "P0001", "XX000", "XX001")),
    ],
)
def test_each_sqlstate_has_its_reason(postgresql, state, reason):
    with pytest.raises(DatabaseError) as caught:
        execute(f"DO $$ BEGIN RAISE 'injected' USING ERRCODE = '{state}'; END $$")
    assert unavailable_reason(caught.value) is reason


@pytest.mark.parametrize("change", ["COLUMN title TO other", "TO other"], ids=["column", "table"])
def test_a_missing_column_or_table_is_500(transactional_db, change):
    execute(f"ALTER TABLE tasks_task RENAME {change}")
    try:
        client = Client(raise_request_exception=False)
        answers = [client.get(TASKS), client.post(TASKS, {"title": "x"}, "application/json")]
    finally:
        undo = "COLUMN other TO title" if "COLUMN" in change else "TO tasks_task"
        execute(f"ALTER TABLE {'tasks_task' if 'COLUMN' in change else 'other'} RENAME {undo}")
    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
        assert "title" not in answer.json()["detail"]


@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")
def test_a_file_that_is_not_a_database_is_500(sqlite, tmp_path):
    (tmp_path / "db").write_text("no database" * 1000)
    other = connection.copy()
    other.settings_dict["NAME"] = str(tmp_path / "db")
    with pytest.raises(DatabaseError) as caught:
        other.ensure_connection()
    assert not is_unavailable(caught.value)
    # Django drops a connection that it cannot set up without closing it; sqlite3 warns of that from
    # Python 3.13 on, when it is collected.
    del caught
    gc.collect()


def test_a_folder_that_is_gone_is_an_absent_database(sqlite, tmp_path):
    other = connection.copy()
    other.settings_dict["NAME"] = str(tmp_path / "gone" / "db")
    with pytest.raises(DatabaseError) as caught:
        other.ensure_connection()
    assert unavailable_reason(caught.value) is Reason.AWAY


def test_a_read_only_file_says_so(sqlite, api: API):
    execute("PRAGMA query_only = on")
    try:
        problem = api.post(TASKS, {"title": "x"}, 503)
        api.get(TASKS)
    finally:
        execute("PRAGMA query_only = off")
    assert problem["code"] == "database_unavailable"
    assert problem["detail"] == "The database is read-only. Nothing was changed."


def test_a_full_disk_says_so(sqlite, api: API):
    execute("VACUUM")  # or other tests have left free pages
    ((pages,),) = run("PRAGMA page_count", ())
    execute(f"PRAGMA max_page_count = {pages}")
    try:
        for _ in range(100):
            api.post(TASKS, {"title": "x", "description": "x" * 2000})
    except AssertionError:
        problem = api.last.json()
    finally:
        execute("PRAGMA max_page_count = 1073741823")
    assert problem["status"] == 503
    assert problem["detail"] == "The database has no space left. Nothing was changed."


FAIL_AT_FIRST = """
    CREATE FUNCTION fail_at_first(times int) RETURNS bigint LANGUAGE plpgsql AS $$
    DECLARE called bigint := nextval('calls');  -- which no rollback takes back
    BEGIN
        IF called <= times THEN RAISE 'injected' USING ERRCODE = '40001'; END IF;
        RETURN called;
    END $$"""


@pytest.fixture
def calls(postgresql):
    execute("CREATE SEQUENCE calls", FAIL_AT_FIRST)
    usage.reset()
    yield
    execute("DROP FUNCTION fail_at_first", "DROP SEQUENCE calls")


def test_a_serialization_failure_is_retried(calls):
    assert run("SELECT fail_at_first(1)", ()) == [(2,)]
    assert (usage.retries, usage.round_trips) == (1, 2)


def test_a_serialization_failure_is_retried_once(calls):
    with pytest.raises(DatabaseError) as caught:
        run("SELECT fail_at_first(2)", ())
    assert b"another change. Nothing was changed" in unavailable(caught.value).content
    assert run("SELECT last_value FROM calls", ()) == [(2,)]


def test_what_a_request_uses_is_counted(api: API):
    api.get(TASKS)
    assert (usage.round_trips, usage.retries, usage.breaker) == (1, 0, "")
    assert 0 < usage.seconds < 60
    api.get("/healthz")
    assert (usage.round_trips, usage.seconds) == (0, 0)

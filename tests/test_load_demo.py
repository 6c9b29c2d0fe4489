"""`manage.py load_demo`."""

import io
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from tasks.models import Task
from tests.values import Terminal
from todo_project.first_steps import SAMPLE_USER


def load_demo(*arguments: str) -> str:
    output = io.StringIO()
    call_command("load_demo", *arguments, stdout=output)
    return output.getvalue()


@pytest.fixture(autouse=True)
def development(settings: Any) -> None:
    settings.DEBUG = True


def test_it_adds_tasks_that_the_api_shows(api: Any) -> None:
    assert load_demo("--users=3", "--tasks=20").startswith("20 tasks added")
    assert Task.objects.values("user_id").distinct().count() == 3
    listed = api.get(f"/api/{SAMPLE_USER}/tasks")
    assert len(listed) == 7
    for task in listed:
        Task.objects.get(id=task["id"]).full_clean()
        assert api.put(f"/api/{SAMPLE_USER}/tasks/{task['id']}", task) == task


def test_repeated_it_adds_only_the_missing_tasks(db: None) -> None:
    load_demo("--tasks=30")
    before = list(Task.objects.values())
    assert load_demo("--tasks=30").startswith("0 tasks added")
    assert list(Task.objects.values()) == before
    Task.objects.get(id=before[0]["id"]).delete()
    assert load_demo("--tasks=40").startswith("11 tasks added")
    assert Task.objects.count() == 40


def test_it_creates_tasks_in_batches(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.management.commands.load_demo.BATCH", 7)
    load_demo("--tasks=20")
    assert Task.objects.count() == 20


def test_it_shows_its_progress_on_a_terminal(db: None) -> None:
    errors = Terminal()
    call_command("load_demo", "--tasks=20", stdout=io.StringIO(), stderr=errors)
    *_, last = errors.getvalue().split("\r")
    assert "#" * 40 in last
    assert "20 of 20" in last


def test_without_debug_it_requires_force(db: None, settings: Any) -> None:
    settings.DEBUG = False
    with pytest.raises(CommandError, match="DEBUG is off"):
        load_demo("--tasks=5")
    assert not Task.objects.exists()
    load_demo("--tasks=5", "--force")
    assert Task.objects.count() == 5


@pytest.mark.parametrize("argument", ["--tasks=0", "--users=0", "--tasks=-1", "--tasks=x"])
def test_a_bad_number_is_refused(argument: str) -> None:
    with pytest.raises(CommandError, match="is not a number"):
        load_demo(argument)

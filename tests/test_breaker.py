"""The circuit breaker: who is refused, who tries, and what is learnt from it."""

import pytest
from django.db import OperationalError, connection

from todo_project.database import breaker as breaker_module
from todo_project.database import deadline, execute
from todo_project.database.breaker import Breaker
from todo_project.database.deadline import end_deadline, start_deadline
from todo_project.database.errors import Unavailable
from todo_project.database.execute import run


@pytest.fixture
def breaker(monkeypatch):
    """A breaker of the test's own, in a request, with time that the test tells."""
    made = Breaker()
    made.now = 100.0
    monkeypatch.setattr(execute, "breaker", made)
    start_deadline()
    monkeypatch.setattr(breaker_module.time, "monotonic", lambda: made.now)
    yield made
    end_deadline()


def passes(breaker: Breaker, scan: bool = False) -> bool:
    try:
        breaker.admit(scan)
    except Unavailable:
        return False
    return True


def test_one_tries_after_a_moment_and_the_others_wait_for_what_comes_of_it(breaker):
    assert passes(breaker)
    breaker.settle(waited_in_vain=True)
    assert not passes(breaker)
    breaker.now += breaker_module.PAUSE
    assert [passes(breaker) for _ in range(3)] == [True, False, False]
    breaker.settle(waited_in_vain=False)
    assert [passes(breaker) for _ in range(3)] == [True, True, True]


def test_one_that_never_tells_does_not_close_it_for_ever(breaker):
    breaker.settle(waited_in_vain=True)
    breaker.now += breaker_module.PAUSE
    assert passes(breaker)
    breaker.now += deadline.REQUEST_TIMEOUT + breaker_module.PAUSE
    assert passes(breaker)


def test_a_scan_tries_after_others_might_have(breaker):
    breaker.settle(waited_in_vain=True)
    breaker.now += breaker_module.PAUSE
    assert not passes(breaker, scan=True)
    assert passes(breaker)
    breaker.settle(waited_in_vain=True)
    breaker.now += 2 * breaker_module.PAUSE
    assert passes(breaker, scan=True)


def test_commands_are_not_refused(breaker):
    breaker.settle(waited_in_vain=True)
    end_deadline()
    assert passes(breaker)


@pytest.mark.parametrize(("scan", "open_after"), [(False, True), (True, False)])
def test_a_cancelled_scan_says_that_the_server_obeys(
    transactional_db, monkeypatch, scan, open_after
):
    if connection.vendor != "postgresql":
        pytest.skip("SQLite cancels nothing")
    made = Breaker()
    monkeypatch.setattr(execute, "breaker", made)
    monkeypatch.setattr(deadline, "REQUEST_TIMEOUT", 0.3)
    monkeypatch.setattr(execute, "PATIENCE", 0.1)
    connection.ensure_connection()  # which takes longer than that
    start_deadline()
    try:
        with pytest.raises(OperationalError, match="cancel"):
            run("SELECT pg_sleep(60)", (), read=True, scan=scan)
        assert passes(made) is not open_after
    finally:
        end_deadline()

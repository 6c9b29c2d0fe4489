"""The circuit breaker: what opens it, what it refuses, and when a probe closes it."""

import time

import pytest
from django.db import OperationalError, connection

from todo_project.database import breaker as breaker_module
from todo_project.database import deadline
from todo_project.database.breaker import COOL_DOWN, THRESHOLD, Breaker, Outcome
from todo_project.database.deadline import end_deadline, start_deadline, usage
from todo_project.database.errors import Unavailable
from todo_project.database.execute import run


class ClockedBreaker(Breaker):
    now = 100.0


@pytest.fixture
def breaker(monkeypatch):
    """The breaker of a process of eight threads, in a request, with a clock that the test sets."""
    made = ClockedBreaker(threads=8)
    start_deadline()
    monkeypatch.setattr(time, "monotonic", lambda: made.now)
    yield made
    end_deadline()


def passes(breaker: Breaker) -> bool:
    start_deadline()
    try:
        breaker.before_call()
    except Unavailable:
        return False
    return True


def fail(breaker: ClockedBreaker, outcome: Outcome = Outcome.TIMED_OUT) -> None:
    """End a call that began as long ago as a request may take."""
    breaker.record(breaker.now - deadline.REQUEST_TIMEOUT, outcome)


def test_a_probe_closes_it(breaker):
    assert passes(breaker)
    fail(breaker)
    assert usage.breaker == "opened"
    assert not passes(breaker)
    assert usage.breaker == "refused"
    breaker.now += COOL_DOWN
    assert [passes(breaker) for _ in range(3)] == [True, False, False]
    breaker.record(breaker.now, Outcome.SUCCESS)
    assert [passes(breaker) for _ in range(3)] == [True, True, True]
    assert usage.breaker == ""


def test_probes_that_get_no_answer_leave_half_of_the_threads(breaker):
    fail(breaker)
    lets_through = []
    for _ in range(300):
        breaker.now += 0.1
        if passes(breaker):
            lets_through.append(breaker.now)
    assert len(lets_through) > 10  # even if none of them ever ends
    waits = deadline.REQUEST_TIMEOUT + 1
    for at in lets_through:
        assert sum(at - waits < other <= at for other in lets_through) <= 4


def test_a_success_from_before_does_not_close_it(breaker):
    began = breaker.now
    breaker.now += 2
    fail(breaker)
    breaker.record(began, Outcome.SUCCESS)
    assert not passes(breaker)


def test_a_failure_does_not_open_it_while_others_are_served(breaker):
    for outcome in Outcome:
        began = breaker.now
        breaker.now += THRESHOLD + 1
        breaker.record(breaker.now, Outcome.SUCCESS)
        breaker.now += 1
        for _ in range(10):
            breaker.record(began, outcome)
        assert passes(breaker)


def test_consecutive_cancellations_on_half_of_the_threads_open_it(breaker):
    for _ in range(2):
        for _ in range(3):
            fail(breaker, Outcome.CANCELLED)
            assert passes(breaker)
        breaker.record(breaker.now, Outcome.SUCCESS)
        breaker.now += deadline.REQUEST_TIMEOUT
    for _ in range(4):
        fail(breaker, Outcome.CANCELLED)
    assert not passes(breaker)
    breaker.now += COOL_DOWN
    assert passes(breaker)
    fail(breaker, Outcome.CANCELLED)  # the probe's
    assert not passes(breaker)


def test_with_a_single_thread_a_single_cancellation_does_not_open_it():
    breaker = Breaker(threads=1)
    start_deadline()
    try:
        breaker.record(time.monotonic() - 4, Outcome.CANCELLED)
        assert passes(breaker)
        breaker.record(time.monotonic() - 4, Outcome.CANCELLED)
        assert not passes(breaker)
    finally:
        end_deadline()


def test_commands_are_not_refused(breaker):
    fail(breaker)
    end_deadline()
    breaker.before_call()


@pytest.fixture
def statements(monkeypatch):
    """A new breaker of statements; a wait of 0.1 s opens it."""
    made = Breaker(threads=1)
    monkeypatch.setattr(breaker_module, "statements", made)
    monkeypatch.setattr(breaker_module, "THRESHOLD", 0.1)
    yield made
    end_deadline()


ENDLESS = {
    "postgresql": "SELECT pg_sleep(60)",
    "sqlite": "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
    " SELECT count(*) FROM n",
}


@pytest.mark.parametrize("slow", [False, True])
def test_a_statement_that_may_be_slow_does_not_open_it(
    transactional_db, statements, monkeypatch, slow
):
    monkeypatch.setattr(deadline, "REQUEST_TIMEOUT", 1.0)
    connection.ensure_connection()
    for _ in range(2):
        start_deadline()
        began = time.monotonic()
        with pytest.raises(OperationalError):
            run(ENDLESS[connection.vendor], (), read=True, slow=slow)
        assert time.monotonic() - began < 30  # the statement itself takes a minute or more
    assert passes(statements) is slow
    end_deadline()
    assert run("SELECT 1", (), read=True) == [(1,)]


def test_a_failure_to_connect_refuses_no_thread_that_is_connected(
    transactional_db, statements, monkeypatch
):
    connection.ensure_connection()
    connections = Breaker()
    connections.record(time.monotonic() - 4, Outcome.TIMED_OUT)
    monkeypatch.setattr(breaker_module, "connections", connections)
    start_deadline()
    assert run("SELECT 1", (), read=True) == [(1,)]
    if connection.vendor == "sqlite":
        return  # connecting is no wait there
    connection.close()
    with pytest.raises(Unavailable):
        run("SELECT 1", (), read=True)
    end_deadline()
    assert run("SELECT 1", (), read=True) == [(1,)]

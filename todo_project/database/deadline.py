"""How long a request may wait for the database, and what it has used of it."""

import threading
import time

REQUEST_TIMEOUT = 4.0
"""Seconds that one request may spend waiting for the database."""


class Usage(threading.local):
    """What this thread's request has used of the database, for logs and metrics.

    `start_deadline()` resets it; it stays readable after `end_deadline()`. A request that is
    refused before its deadline starts shows the previous one's unless `reset()` is called.
    """

    round_trips = 0
    """Statements sent, retries included (on SQLite: executed). Connecting is not counted."""
    seconds = 0.0
    """Spent waiting for the database, connecting included."""
    retries = 0
    """Statements that were sent a second time."""
    breaker = ""
    """What the circuit breaker did: nothing (""), "refused" the request, let it through as a
    "probe" while open, or "opened" because of it."""

    def reset(self) -> None:
        self.__dict__.clear()  # to set each takes 3,000 instructions more


class _Deadline(threading.local):
    expires: float | None = None


usage = Usage()
_deadline = _Deadline()


def start_deadline() -> None:
    """Give this thread `REQUEST_TIMEOUT` seconds of waiting from now on, and reset `usage`."""
    usage.reset()
    _deadline.expires = time.monotonic() + REQUEST_TIMEOUT


def extend_deadline(seconds: float = REQUEST_TIMEOUT) -> None:
    """Let this thread wait for so many seconds from now on, for work of an operator that may take
    longer than a request."""
    _deadline.expires = time.monotonic() + seconds


def end_deadline() -> None:
    _deadline.expires = None


def remaining() -> float | None:
    """Seconds left to this thread's request, never negative; None outside a request."""
    expires = _deadline.expires
    return None if expires is None else max(0.0, expires - time.monotonic())

"""The time that a request may spend waiting for the database."""

import threading
import time

BUDGET = 4.0
"""Seconds that one request may spend waiting for the database."""


class _Deadline(threading.local):
    expires: float | None = None


_deadline = _Deadline()


def start_deadline() -> None:
    """Give this thread `BUDGET` seconds of waiting from now on."""
    _deadline.expires = time.monotonic() + BUDGET


def end_deadline() -> None:
    _deadline.expires = None


def remaining() -> float | None:
    """Seconds left to this thread's request, never negative; None outside a request."""
    expires = _deadline.expires
    return None if expires is None else max(0.0, expires - time.monotonic())

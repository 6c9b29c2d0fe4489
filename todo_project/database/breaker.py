"""Refuses at once what has just been waited for in vain."""

import threading
import time

from todo_project.database.deadline import REQUEST_TIMEOUT, remaining, usage
from todo_project.database.errors import Unavailable

PATIENCE = 1.0
"""Seconds after which a failed wait counts as a wait in vain, and opens the breaker."""

PAUSE = 1.0
"""Seconds for which the open breaker refuses everybody, before it lets one request try."""


class Breaker:
    """Refuses at once, for a moment, what has just been waited for in vain.

    One for each process: it knows what this process has seen, and needs no coordination. Only
    requests are refused; a command on the terminal may wait as long as it likes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._retry_at: float | None = None  # None: closed, everybody may pass

    def admit(self, scan: bool = False) -> None:
        """Let the caller pass, or raise `Unavailable`.

        A `scan` tries again a second later than others might have: what takes long by itself is
        slow to say that the database is back.
        """
        if self._retry_at is None or remaining() is None:
            return
        with self._lock:
            if self._retry_at is not None:
                now = time.monotonic()
                if now < self._retry_at + (PAUSE if scan else 0):
                    usage.breaker = "refused"
                    raise Unavailable("the database did not answer in time a moment ago")
                # The caller tries; the others are refused until it is known what came of it.
                usage.breaker = "probe"
                self._retry_at = now + REQUEST_TIMEOUT + PAUSE

    def settle(self, waited_in_vain: bool) -> None:
        """Say what came of an attempt, once for every one that `admit` let pass."""
        if waited_in_vain:
            usage.breaker = "opened"
            self._retry_at = time.monotonic() + PAUSE
        elif self._retry_at is not None:
            self._retry_at = None


breaker = Breaker()

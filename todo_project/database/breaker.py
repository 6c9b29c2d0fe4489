"""A circuit breaker: while the database does not answer, requests are refused at once."""

import threading
import time
from enum import Enum, auto

from django.conf import settings

from todo_project.database.deadline import REQUEST_TIMEOUT, remaining, usage
from todo_project.database.errors import Reason, Unavailable, unavailable_reason

THRESHOLD = 1.0
"""Seconds after which a failed wait counts: a database that refuses quickly holds nobody up."""

COOL_DOWN = 1.0
"""Seconds for which a breaker that has just opened refuses every request."""


class Outcome(Enum):
    SUCCESS = auto()  # the database answered, if only with an error
    CANCELLED = auto()  # it gave up after a long wait, and said so
    TIMED_OUT = auto()  # it said nothing for a long time


def outcome(error: BaseException, seconds: float) -> Outcome | None:
    """What a failure after so many seconds tells a breaker; None for nothing."""
    reason = unavailable_reason(error)
    if reason in (Reason.AWAY, Reason.REFUSED, Reason.SILENT):
        return Outcome.TIMED_OUT if seconds > THRESHOLD else None
    if reason in (Reason.TIMED_OUT, Reason.LOCKED) and seconds > THRESHOLD:
        return Outcome.CANCELLED
    return Outcome.SUCCESS if isinstance(error, Exception) else None


class Breaker:
    """Refuses requests for as long as calls fail after a long wait, so that no queue builds up.

    A call without an answer opens it. One that was cancelled, as behind a lock, does so when half
    of the threads (two at least) have ended like that with no success between: the database is
    alive, but waiting for it would soon take every thread. A failure is ignored if another call
    succeeded more than `THRESHOLD` after this one began.

    While it is open, a request is let through as a probe now and then, so seldom that probes never
    take more than half of the threads. It closes when a call that began after it opened succeeds.

    Each process has its own: it knows what the process has seen, and needs no coordination. Only
    requests are refused; commands, which have no deadline, are not.
    """

    def __init__(self, threads: int = settings.WEB_THREADS) -> None:
        self._lock = threading.Lock()
        self._cancelled_limit = max(2, threads // 2)
        self._probe_interval = max(COOL_DOWN, (REQUEST_TIMEOUT + 1) / max(1, threads // 2))
        self.is_open = False
        self._opened_at = 0.0
        self._probe_at = 0.0
        self._succeeded_at = 0.0
        self._cancelled = 0

    def before_call(self) -> None:
        """Let the caller pass, or raise `Unavailable`."""
        if not self.is_open or remaining() is None:
            return
        with self._lock:
            if not self.is_open:
                return
            now = time.monotonic()
            if now < self._probe_at:
                usage.breaker = "refused"
                raise Unavailable("The database did not answer in time a moment ago")
            usage.breaker = "probe"
            self._probe_at = now + self._probe_interval

    def record(self, began: float, outcome: Outcome | None) -> None:
        """Take note of what came of a call that began at that time of the monotonic clock."""
        if outcome is None:
            return
        now = time.monotonic()
        if outcome is Outcome.SUCCESS:
            self._succeeded_at = now
            self._cancelled = 0
            if self.is_open:
                with self._lock:
                    self.is_open = began < self._opened_at
            return
        with self._lock:
            if self._succeeded_at > began + THRESHOLD:
                return
            self._cancelled += 1
            if (
                outcome is Outcome.TIMED_OUT
                or self.is_open
                or self._cancelled >= self._cancelled_limit
            ):
                usage.breaker = "opened"
                self.is_open = True
                self._opened_at = now
                self._probe_at = max(self._probe_at, now + COOL_DOWN)


statements = Breaker()
"""For statements on connections that are there."""

connections = Breaker()
"""For connecting: threads that are connected go on while others cannot connect."""

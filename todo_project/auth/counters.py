"""Where the rate limits count: in this process, or in Redis with the library `limits`."""

import logging
import threading
import time
from collections.abc import Sequence
from math import floor
from typing import Any, NamedTuple
from uuid import UUID

from limits.storage import RedisStorage
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

logger = logging.getLogger(__name__)

STORE_TIMEOUT = 0.05
"""Seconds that a request waits for a shared store."""

RECONNECT_INTERVAL = 1.0
"""Seconds between two attempts to reach a store that is unavailable."""


class Limit(NamedTuple):
    amount: int
    """Requests in a window."""
    seconds: int
    """The length of the window."""


Key = tuple[str, UUID | str]
"""The name of a limiter, and an owner or a client address."""

State = tuple[bool, int, float]
"""A limit after a request: whether the request is within it, how many more are allowed now, and the
seconds until one more is."""


def state(limit: Limit, acquired: bool, window: tuple[int, float, int, float]) -> State:
    """From a sliding window of `limits`: the current window's count, and the previous one's
    weighted by how much of it is among the last `limit.seconds`."""
    amount, seconds = limit
    previous_count, previous_ttl, current_count, current_ttl = window
    # The current window becomes the previous one `seconds` before its counter expires.
    reset = current_ttl - seconds if current_count else seconds
    used: float = current_count
    if previous_count:
        used += previous_count * previous_ttl / seconds
        reset = min(reset, previous_ttl % (seconds / previous_count))
    return acquired, max(0, amount - floor(used)), reset


class ProcessCounters:
    """Counters in the memory of this process.

    They count like the sliding windows that `limits` has in Redis. Those that it has in memory
    start a thread for each request.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # By the length of a window: its number, its counts by key, and those of the one before.
        self._windows: dict[int, tuple[float, dict[Key, int], dict[Key, int]]] = {}

    def count(self, limits: Sequence[Limit], key: Key) -> list[State]:
        """Count a request against each limit. One that is over a limit is not counted there."""
        states = []
        with self._lock:
            now = time.time()
            for limit in limits:
                number, elapsed = divmod(now, limit.seconds)
                latest, counts, previous = self._windows.get(limit.seconds, (0.0, {}, {}))
                if number > latest:
                    counts, previous = {}, counts if number == latest + 1 else {}
                    self._windows[limit.seconds] = number, counts, previous
                current, before = counts.get(key, 0), previous.get(key, 0)
                left = limit.seconds - elapsed
                acquired = floor(current + before * left / limit.seconds) < limit.amount
                if acquired:
                    counts[key] = current = current + 1
                window = (before, left, current, left + limit.seconds)
                states.append(state(limit, acquired, window))
        return states


class SharedCounters(RedisStorage):
    """Counters in Redis or Valkey, for all processes and hosts.

    A thread connects, so that no request waits for a name server or for a host that is down.
    """

    def __init__(self, url: str) -> None:
        options: dict[str, Any] = {
            "socket_timeout": STORE_TIMEOUT,
            "socket_connect_timeout": STORE_TIMEOUT,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,  # this and the next: no round trip when a connection is opened
            "driver_info": None,
        }
        super().__init__(url, **options)
        self._lock = threading.Lock()
        self._used = self._reported = False
        self._reachable = threading.Event()

    def count(self, limits: Sequence[Limit], key: Key) -> list[State]:
        """As in `ProcessCounters`, in one round trip. Empty if the store is unavailable."""
        if not (self._reachable.is_set() or self._is_reachable_now()):
            return []
        acquire, read = self.lua_acquire_sliding_window.sha, self.lua_sliding_window.sha
        pipeline = self.storage.pipeline(transaction=False)
        for amount, seconds in limits:
            # Braces: both keys on one node of a cluster.
            current_key = self.prefixed_key(f"{{{key[0]}/{key[1]}/{seconds}}}")
            previous_key = f"{current_key}/-1"
            pipeline.evalsha(acquire, 2, previous_key, current_key, amount, seconds, 1)
            pipeline.evalsha(read, 2, previous_key, current_key, seconds)
        try:
            replies = pipeline.execute()
        except (RedisError, OSError) as error:
            with self._lock:
                if self._reachable.is_set():
                    self._reachable.clear()
                    self._report(error)
                    self._connect()
            return []
        states = []
        for limit, acquired, window in zip(limits, replies[::2], replies[1::2], strict=True):
            before, before_ttl, now, now_ttl = (max(0, int(value or 0)) for value in window)
            counts = before, before_ttl / 1000, now, now_ttl / 1000
            states.append(state(limit, bool(acquired), counts))
        return states

    def _is_reachable_now(self) -> bool:
        """Connect when the first request comes: a thread would not survive gunicorn's fork."""
        with self._lock:
            if not self._used:
                self._used = True
                self._connect()
                self._reachable.wait(STORE_TIMEOUT)
        return self._reachable.is_set()

    def _report(self, error: Exception) -> None:
        if not self._reported:
            self._reported = True
            logger.error("no rate limits: their store is unavailable: %s", error)

    def _connect(self) -> None:
        threading.Thread(target=self._try_until_reachable, daemon=True).start()

    def _try_until_reachable(self) -> None:
        while True:
            try:
                # By the library, which loads the scripts where they are missing.
                self.acquire_sliding_window_entry("probe", 1, 1)
                self.get_sliding_window("probe", 1)
                break
            except (RedisError, OSError) as error:
                self._report(error)
            time.sleep(RECONNECT_INTERVAL)
        if self._reported:
            self._reported = False
            logger.warning("rate limits again: their store is available")
        self._reachable.set()

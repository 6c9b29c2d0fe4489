"""The storages of the library `limits`, as the rate limits use them."""

import logging
import threading
import time
from collections.abc import Sequence
from math import floor
from typing import Any, NamedTuple

from limits import RateLimitItem
from limits.storage import MemoryStorage, RedisStorage
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

logger = logging.getLogger(__name__)

STORE_TIMEOUT = 0.05
"""Seconds that a request waits for a shared store."""

RECONNECT_INTERVAL = 1.0
"""Seconds between two attempts to reach a store that is unavailable."""

SWEEP_INTERVAL = 60.0
"""Seconds between two removals of expired counters from memory."""


class Window(NamedTuple):
    """The sliding window of a limit: the count of the current window, and that of the previous
    one weighted by how much of it the last `expiry` seconds still contain."""

    acquired: bool
    previous_count: int
    previous_ttl: float
    current_count: int
    current_ttl: float

    def remaining(self, limit: RateLimitItem) -> int:
        """Requests that are allowed now."""
        weighted = self.previous_count * self.previous_ttl / limit.get_expiry()
        return max(0, limit.amount - floor(weighted + self.current_count))

    def reset(self, limit: RateLimitItem) -> float:
        """Seconds until one more is."""
        expiry = limit.get_expiry()
        # The current window becomes the previous one `expiry` seconds before its counter expires.
        resets = [self.current_ttl - expiry] if self.current_count else []
        if self.previous_count:
            resets.append(self.previous_ttl % (expiry / self.previous_count))
        return min(resets, default=0.0)


class ProcessCounters(MemoryStorage):
    """Counters in the memory of this process."""

    def __init__(self) -> None:
        super().__init__()
        self._next_sweep = 0.0

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Without the library's timer: that starts a thread per hit, which visits every key."""
        now = time.time()
        if now > self._next_sweep:
            self._next_sweep = now + SWEEP_INTERVAL
            for old in [old for old, end in [*self.expirations.items()] if end <= now]:
                self.clear(old)
        with self.locks[key]:
            count = self.storage[key] = self.storage[key] + amount
            if count == amount:
                self.expirations[key] = now + expiry
        return count

    def count(self, limits: Sequence[RateLimitItem], key: str) -> list[Window]:
        """Count a request against each limit. One that is over a limit is not counted there."""
        windows = []
        for limit in limits:
            name, expiry = limit.key_for(key), limit.get_expiry()
            acquired = self.acquire_sliding_window_entry(name, limit.amount, expiry)
            windows.append(Window(acquired, *self.get_sliding_window(name, expiry)))
        return windows


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
        self._reachable = threading.Event()
        self._reported = False
        self._connect()
        self._reachable.wait(STORE_TIMEOUT)

    def count(self, limits: Sequence[RateLimitItem], key: str) -> list[Window]:
        """As in `ProcessCounters`, in one round trip. Empty if the store is unavailable."""
        if not self._reachable.is_set():
            return []
        acquire, read = self.lua_acquire_sliding_window.sha, self.lua_sliding_window.sha
        pipeline = self.storage.pipeline(transaction=False)
        for limit in limits:
            name, expiry = limit.key_for(key), limit.get_expiry()
            current_key = self.prefixed_key(f"{{{name}}}")  # braces: both on one node of a cluster
            previous_key = f"{current_key}/-1"
            pipeline.evalsha(acquire, 2, previous_key, current_key, limit.amount, expiry, 1)
            pipeline.evalsha(read, 2, previous_key, current_key, expiry)
        try:
            replies = pipeline.execute()
        except (RedisError, OSError) as error:
            self._lose(error)
            return []
        return [
            Window(
                bool(acquired),
                int(previous_count or 0),
                max(0, previous_ttl) / 1000,
                int(current_count or 0),
                max(0, current_ttl) / 1000,
            )
            for acquired, (previous_count, previous_ttl, current_count, current_ttl) in zip(
                replies[::2], replies[1::2], strict=True
            )
        ]

    def _lose(self, error: Exception) -> None:
        with self._lock:
            if not self._reachable.is_set():
                return
            self._reachable.clear()
        self._report(error)
        self._connect()

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

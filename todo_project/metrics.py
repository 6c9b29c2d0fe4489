"""What is counted for Prometheus; docs/monitoring.md has the table.

Under gunicorn each process counts in files of its own, and `exporter` adds them up. To count in a
file takes 8,000 instructions, so a request does so twice, in its histogram. The rest is summed up
in memory and written every second.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from django.conf import settings
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.dispatch import receiver
from prometheus_client import Counter, Gauge, Histogram

from todo_project.auth.jwks import key_set
from todo_project.database import breaker
from todo_project.database.deadline import usage

METHODS = frozenset(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
BUCKETS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)

requests = Histogram(
    "http_request_duration_seconds",
    "Time from request to response.",
    ["route", "method", "status"],
    buckets=BUCKETS,
)
problems = Counter("http_problems", "Errors answered, by the code of their body.", ["code"])
in_flight = Gauge(
    "http_requests_in_flight", "Requests that have a thread.", multiprocess_mode="livesum"
)
threads = Gauge("http_threads", "Threads that serve requests.", multiprocess_mode="livesum")
round_trips = Counter("database_round_trips", "Statements sent, retries included.")
wait = Counter("database_wait_seconds", "Time spent waiting for the database.")
retries = Counter("database_retries", "Statements sent again after their connection broke.")
breaker_events = Counter(
    "database_breaker_events", "Requests that it refused, let through, or opened for.", ["event"]
)
breaker_open = Gauge(
    "database_breaker_open", "Processes whose breaker is open.", multiprocess_mode="livesum"
)
connections = Gauge(
    "database_connections", "Open connections to PostgreSQL.", multiprocess_mode="livesum"
)
connections_opened = Counter("database_connections_opened", "Connections opened.")
keys_fetched = Gauge(
    "token_keys_fetched_timestamp_seconds",
    "When the issuer's keys were last fetched; 0: never, or there is no issuer.",
    multiprocess_mode="livemax",
)


class Process:
    """What this process has counted in memory, in containers that need no lock."""

    def __init__(self) -> None:
        self.running: list[None] = []  # one for each request that has a thread
        # Round trips and seconds of each request; should the writer fail, not without end.
        self.waits: deque[tuple[int, float]] = deque(maxlen=100_000)
        self.connections: WeakSet[Any] = WeakSet()
        self.writer: threading.Thread | None = None

    def write_every_second(self) -> None:
        threads.set(settings.WEB_THREADS)
        while True:
            waits = [self.waits.popleft() for _ in range(len(self.waits))]
            round_trips.inc(sum(trips for trips, _ in waits))
            wait.inc(sum(seconds for _, seconds in waits))
            in_flight.set(len(self.running))
            connections.set(len(self.connections))
            if settings.JWT_JWKS_URL and (at := key_set(settings.JWT_JWKS_URL).fetched.at) > 0:
                keys_fetched.set(time.time() - time.monotonic() + at)
            breaker_open.set(breaker.statements.is_open or breaker.connections.is_open)
            time.sleep(1)


process = Process()
_lock = threading.Lock()
_observe: dict[tuple[str, str, int], Callable[[float], None]] = {}


@receiver(connection_created)
def count_connection(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    connections_opened.inc()
    if connection.vendor == "postgresql":
        process.connections.add(connection.connection)


def begin() -> None:
    """Count a request as in flight."""
    process.running.append(None)
    if process.writer is None:  # the first request: threads do not survive a worker's fork
        with _lock:
            if process.writer is None:
                process.writer = threading.Thread(target=process.write_every_second, daemon=True)
                process.writer.start()


def end(route: str, method: str, status: int, code: str | None, seconds: float) -> None:
    """Count this thread's request, which took so many seconds."""
    key = (route, method, status)
    observe = _observe.get(key)
    if observe is None:
        label = method if method in METHODS else "other"
        observe = requests.labels(route, label, status).observe
        if label != "other":  # or clients could fill the memory
            _observe[key] = observe
    observe(seconds)
    process.waits.append((usage.round_trips, usage.seconds))
    if code:
        problems.labels(code).inc()
    if usage.retries:
        retries.inc(usage.retries)
    if usage.breaker:
        breaker_events.labels(usage.breaker).inc()
    process.running.pop()

"""gunicorn's settings; those to change are PORT and WEB_… in the environment."""

import gc
import logging
import os
import select
from collections import Counter
from random import SystemRandom
from typing import Any

# A bad setting ends the master here, with one line.
from todo_project import first_steps, settings

if settings.METRICS_PORT:
    from todo_project import exporter

bind = f"{'127.0.0.1' if settings.DEBUG else '0.0.0.0'}:{settings.PORT}"
workers = settings.WEB_CONCURRENCY
threads = settings.WEB_THREADS
worker_class = "todo_project.worker.Worker" if hasattr(select, "epoll") else "gthread"  # Linux
preload_app = True  # what cannot start, ends; without it dying workers are replaced for ever
control_socket_disable = True  # two services on one machine would take each other's
keepalive = 75  # seconds; longer than the usual 60 of proxies, so that they close first
graceful_timeout = 30
timeout = 60
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None

errorlog = None  # settings.LOGGING has gunicorn's logger too
loglevel = settings.LOG_LEVEL.lower()

# The longest link of ours: search and cursor with 255 characters of four bytes each.
limit_request_line = 8190
# So that the application answers an overlong token itself: 401, in its own form.
limit_request_field_size = 128 * 1024

# No header sets SCRIPT_NAME or PATH_INFO, or gunicorn's scheme: Django reads X-Forwarded-Proto. So
# no address needs to be trusted, and gunicorn need not check any.
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}
forwarded_allow_ips = "*"


def on_starting(server: Any) -> None:
    logger = logging.getLogger("todo_project")
    if settings.AUTH_MODE == "none":
        warning = "AUTH_MODE=none: anyone who reaches port %s reads and writes every task"
        logger.warning(warning, settings.PORT)
    if settings.RATE_LIMIT and not settings.RATE_LIMIT_STORAGE_URL:
        warning = "RATE_LIMIT_STORAGE_URL is not set: %s processes divide RATE_LIMIT between them"
        logger.warning(warning, workers)


def when_ready(server: Any) -> None:
    # What is loaded by now stays loaded. Without this each process would search all of it for
    # garbage when it exits, which takes a quarter of a second of CPU time.
    gc.freeze()
    if settings.METRICS_PORT:
        exporter.start()
    if settings.DEBUG:
        print(first_steps.banner(), flush=True)


def child_exit(server: Any, worker: Any) -> None:
    if settings.METRICS_PORT:
        exporter.mark_process_dead(worker.pid)  # drops its gauges; its counters stay in the sums


# In random order: not every service on the machine should begin with the first.
cores = list(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
SystemRandom().shuffle(cores)


def pre_fork(server: Any, worker: Any) -> None:
    """Choose the core that the fewest workers have."""
    held = Counter(other.core for other in server.WORKERS.values())
    worker.core = min(cores, key=held.__getitem__, default=None)


def post_fork(server: Any, worker: Any) -> None:
    """Keep a worker's threads on one core.

    One of them runs at a time anyway, and passing the GIL from core to core is expensive
    (docs/performance.md).
    """
    if settings.WEB_PIN_PROCESSES and cores:
        os.sched_setaffinity(0, {worker.core})

"""The port of the metrics: a thread of gunicorn's master adds up what its processes have counted.

For gunicorn.conf.py, and imported before `metrics`: the client library decides when it is imported
whether it counts in files.
"""

import atexit
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from todo_project import env, settings

logger = logging.getLogger(__name__)

# In memory where there is such a folder: a disk could make a request wait.
memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108
try:
    directory = tempfile.mkdtemp(prefix="todo-metrics-", dir=os.environ.get("TMPDIR") or memory)
except OSError as error:
    env.fail("METRICS_PORT", f"needs a folder for its counts: {error}")
os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory

from prometheus_client import CollectorRegistry, start_http_server  # noqa: E402
from prometheus_client.multiprocess import MultiProcessCollector  # noqa: E402
from prometheus_client.multiprocess import mark_process_dead as mark_process_dead  # noqa: E402


@atexit.register
def remove_directory(owner: int = os.getpid()) -> None:
    if os.getpid() == owner:  # workers inherit this
        shutil.rmtree(directory, ignore_errors=True)


def start() -> None:
    """Listen, as soon as the port is free: a former master may still have it.

    Not in a thread unless it has to wait: a worker that is forked during one of its imports would
    wait for that module for ever.
    """
    registry = CollectorRegistry()
    MultiProcessCollector(registry, directory)
    listen = partial(start_http_server, settings.METRICS_PORT, settings.METRICS_HOST, registry)
    try:
        listen()
    except OSError as error:
        logger.error("METRICS_PORT: %s", error)
        threading.Thread(target=retry, args=[listen], daemon=True).start()


def retry(listen: Callable[[], object]) -> None:
    while True:
        time.sleep(1)
        with suppress(OSError):
            listen()
            return

"""The service and its peers, each under its usual server."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil

from benchmarks import data
from tools.servers import HOST, Server

NAMES = ("service", "FastAPI", "default DRF")

# The same application under other servers, and what each costs with an empty application.
SERVICE = "todo_project.wsgi:application"
EMPTY = "benchmarks.empty:application"


class Web(Server):
    """One of NAMES, serving HTTP on `port`."""

    def __init__(
        self,
        name: str,
        database_url: str,
        *,
        processes: int = 1,
        threads: int = 4,
        token: bool = False,
        server: str = "",
        application: str = SERVICE,
        pinned: bool = True,
    ) -> None:
        """One of NAMES under its own server, or `application` under a `server`."""
        super().__init__()
        self.name = name
        self._environment = data.environment(database_url, token=token) | {
            "PORT": str(self.port),
            "WEB_CONCURRENCY": str(processes),
            "WEB_THREADS": str(threads),
            "WEB_PIN_PROCESSES": str(pinned).lower(),
        }
        gunicorn = ["gunicorn", f"--workers={processes}", f"--threads={threads}"]
        gunicorn += [f"--bind={HOST}:{self.port}", "--no-control-socket", "--keep-alive=75"]
        # Or gunicorn would read gunicorn.conf.py in this folder.
        gunicorn += ["--config=python:benchmarks", "--worker-class=gthread"]
        uvicorn = ["uvicorn", f"--workers={processes}", f"--port={self.port}", "--no-access-log"]
        granian = ["granian", f"--workers={processes}", f"--blocking-threads={threads}"]
        granian += [f"--port={self.port}", "--interface=wsgi", "--http=1", "--no-ws", "--no-log"]
        command = {
            "service": ["gunicorn", "--config=gunicorn.conf.py", application]
            if application != SERVICE
            else ["todo_project"],
            "FastAPI": [*uvicorn, "benchmarks.peer_fastapi:app"],
            "default DRF": [*gunicorn, "benchmarks.peer_drf:application"],
            "gunicorn": [*gunicorn, application],
            "granian": [*granian, application],
            "uvicorn": [*uvicorn, "benchmarks.empty:asgi"],
        }
        self._command = [sys.executable, "-m", *command[server or name]]

    def start(self) -> None:
        self._spawn(self._command, self._accepts, env=self._environment, cwd=data.ROOT)

    def processes(self) -> list[psutil.Process]:
        main = psutil.Process(self.pid)
        return [main, *main.children(recursive=True)]

    def workers(self) -> list[psutil.Process]:
        """The processes that answer requests."""
        processes = self.processes()
        # uvicorn runs a single worker as its main process, and a resource tracker beside several.
        serving = [p for p in processes[1:] if "resource_tracker" not in " ".join(p.cmdline())]
        return serving or processes

    def cpu_seconds(self) -> float:
        """User and system time of all its processes so far."""
        return cpu_seconds(self.processes())


def cpu_seconds(processes: list[psutil.Process]) -> float:
    """The user and system time of all their threads, to the nanosecond.

    /proc/…/stat counts in ticks and misses shorter times. No thread of these servers ends while it
    is measured.
    """
    return sum(
        int(path.read_text().split()[0]) / 1e9
        for process in processes
        for path in Path(f"/proc/{process.pid}/task").glob("*/schedstat")
    )

"""The service and its peers, each under the server that it is usually run with."""

from __future__ import annotations

import socket
import sys
from contextlib import suppress

import psutil

from benchmarks import data
from tools.servers import HOST, Server

NAMES = ("service", "FastAPI", "default DRF")


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
    ) -> None:
        super().__init__()
        self.name = name
        self._environment = data.environment(database_url, token=token) | {
            "PORT": str(self.port),
            "WEB_CONCURRENCY": str(processes),
            "WEB_THREADS": str(threads),
        }
        gunicorn = ["gunicorn", f"--workers={processes}", f"--threads={threads}"]
        gunicorn += [f"--bind={HOST}:{self.port}", "--no-control-socket"]
        uvicorn = ["uvicorn", f"--workers={processes}", f"--port={self.port}", "--no-access-log"]
        command = {
            "service": ["gunicorn", "--config=gunicorn.conf.py", "todo_project.wsgi"],
            "FastAPI": [*uvicorn, "benchmarks.peer_fastapi:app"],
            "default DRF": [*gunicorn, "benchmarks.peer_drf:application"],
        }
        self._command = [sys.executable, "-m", *command[name]]

    def start(self) -> None:
        self._spawn(self._command, self._accepts, env=self._environment, cwd=data.ROOT)

    def _accepts(self) -> bool:
        with suppress(OSError):
            socket.create_connection((HOST, self.port), timeout=1).close()
            return True
        return False

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
    """Their user and system time, and that of their children that have ended."""
    total = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # its parent has its time by now
            total += sum(process.cpu_times()[:4])
    return total

"""The documented units: restarting the service behind its socket loses no request."""

import http.client
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from tests.database_plugin import LiveServer
from tools.servers import HOST, PROJECT_ROOT, wait_until

pytestmark = pytest.mark.live
UNITS = PROJECT_ROOT / "docs/deployment"


def test_the_unit_starts_the_procfiles_line() -> None:
    unit = (UNITS / "todo.service").read_text()
    web = re.search("^web: (.+)$", (PROJECT_ROOT / "Procfile").read_text(), re.MULTILINE)
    assert web
    assert f"\nExecStart=/srv/todo/.venv/bin/{web[1]}\n" in unit


def test_a_restart_loses_no_request(live_server_factory: Callable[..., LiveServer]) -> None:
    migrated = live_server_factory("sqlite", WEB_CONCURRENCY="1")
    environment = migrated.environment
    migrated.stop()
    statuses: list[object] = []
    stop = threading.Event()

    def ask(port: int) -> None:
        while not stop.is_set():
            connection = http.client.HTTPConnection(HOST, port, timeout=60)
            try:
                connection.request("GET", "/readyz")
                statuses.append(connection.getresponse().status)
            except (OSError, http.client.HTTPException) as error:
                statuses.append(repr(error))
            finally:
                connection.close()

    def more_answers() -> bool:
        seen = len(statuses)
        return wait_until(lambda: len(statuses) > seen + 20)

    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen(100)
        activate = (
            f"import os; os.dup2({listener.fileno()}, 3); os.environ['LISTEN_FDS'] = '1';"
            "os.environ['LISTEN_PID'] = str(os.getpid());"
            "os.execv(os.sys.executable, [os.sys.executable, '-m', 'todo_project'])"
        )

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                [sys.executable, "-c", activate], env=environment, cwd=PROJECT_ROOT,
                pass_fds=[listener.fileno()], stderr=subprocess.DEVNULL,
            )  # fmt: skip

        service = start()
        clients = [threading.Thread(target=ask, args=[listener.getsockname()[1]]) for _ in range(2)]
        try:
            for client in clients:
                client.start()
            for _ in range(2):
                assert more_answers()
                service.terminate()
                assert service.wait(40) == 0
                service = start()
            assert more_answers()
        finally:
            stop.set()
            for client in clients:
                client.join(40)
            service.terminate()
            service.wait(40)
    assert set(statuses) == {200}


def test_systemd_accepts_the_units(tmp_path: os.PathLike[str]) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    for name in ("todo.service", "todo.socket"):
        text = (UNITS / name).read_text().replace("/srv/todo/.venv/bin/python", sys.executable)
        with open(os.path.join(tmp_path, name), "w") as file:
            file.write(text)
    units = [os.path.join(tmp_path, name) for name in ("todo.service", "todo.socket")]
    done = subprocess.run([program, "verify", "--man=no", *units], capture_output=True, text=True)
    assert "todo." not in done.stderr

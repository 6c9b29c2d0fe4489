"""The image and compose.yaml agree with the project; docs/deployment/container.md builds them."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.database_plugin import LiveServer
from tools.servers import CLEAN_ENVIRONMENT, ENVIRONMENT, PROJECT_ROOT, free_port

DOCKERFILE = (PROJECT_ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((PROJECT_ROOT / "compose.yaml").read_text())
WEB = re.search("^web: (.+)$", (PROJECT_ROOT / "Procfile").read_text(), re.MULTILINE)


def commands(instruction: str) -> list[list[str]]:
    return [json.loads(text) for text in re.findall(rf"{instruction} (\[.+\])", DOCKERFILE)]


def test_it_starts_the_procfiles_line() -> None:
    assert WEB
    assert commands("^CMD|\nCMD")[-1] == WEB[1].split()
    assert COMPOSE["services"]["web"]["command"] == WEB[1].split()


def test_it_does_not_run_as_root() -> None:
    final = DOCKERFILE.rpartition("FROM ")[2]
    assert re.search("^USER todo$", final, re.MULTILINE)
    assert "apt-get" not in final


def test_compose_publishes_on_loopback_and_writes_no_files() -> None:
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:8000:8000"]
    for name in ("web", "migrate"):
        service = COMPOSE["services"][name]
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert set(service["environment"]) <= {*ENVIRONMENT, "DATABASE_URL"}


@pytest.mark.live
def test_its_health_check_fails_without_a_server(
    live_server_factory: Callable[..., LiveServer],
) -> None:
    server = live_server_factory("sqlite")
    _, *check = commands("HEALTHCHECK.*\\\\\n *CMD")[0]

    def code(port: int) -> int:
        environment = {**CLEAN_ENVIRONMENT, "PORT": str(port)}
        done = subprocess.run([sys.executable, *check], env=environment, capture_output=True)
        return done.returncode

    assert code(server.port) == 0
    assert code(free_port()) == 1


@pytest.mark.live
def test_the_files_of_the_image_suffice(tmp_path: Path) -> None:
    ignored, *kept = [
        line
        for line in (PROJECT_ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith(("#", "**"))
    ]
    assert ignored == "*"
    for name in kept:
        source, target = PROJECT_ROOT / name.removeprefix("!"), tmp_path / name.removeprefix("!")
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    environment = {
        **CLEAN_ENVIRONMENT,
        **ENVIRONMENT,
        "DATABASE_URL": "sqlite:///db.sqlite3",
        "WEB_CONCURRENCY": "1",
    }  # gunicorn itself does not accept an empty value
    for arguments in (["manage.py", "migrate"], ["-m", "gunicorn", "--check-config"]):
        command = [sys.executable, *arguments]
        command += ["todo_project.wsgi"] if "gunicorn" in command else []
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)

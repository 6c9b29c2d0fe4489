"""The locked packages, and the audit of them."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tools.servers import CLEAN_ENVIRONMENT, HOST, PROJECT_ROOT, free_port

LOCKED = [
    *("requirements.txt", "requirements-fast.txt", "requirements-dev.txt"),
    "benchmarks/requirements.txt",
]


def normalized(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


@pytest.mark.parametrize("path", LOCKED)
def test_every_package_has_a_version_and_a_hash(path: str) -> None:
    text = (PROJECT_ROOT / path).read_text()
    packages = re.findall(r"^[^\s#].*\n(?:    --hash.*\n)*", text, re.MULTILINE)
    assert len(packages) == 1 if "fast" in path else len(packages) > 30
    for package in packages:
        assert re.match(r"[a-z0-9-]+(\[\w+\])?==\S+ (; .+ )?\\\n    --hash=sha256:", package)
    assert "://" not in text


@pytest.mark.parametrize("path", LOCKED)
def test_every_requirement_is_locked(path: str) -> None:
    asked = (PROJECT_ROOT / path).with_suffix(".in").read_text()
    locked = re.findall(r"^([\w-]+)", (PROJECT_ROOT / path).read_text(), re.MULTILINE)
    assert set(map(normalized, re.findall(r"^(\w[\w-]*)", asked, re.MULTILINE))) <= set(locked)


def audit(index: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.audit", index],
        cwd=PROJECT_ROOT,
        env=CLEAN_ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )


@contextmanager
def osv_index(vulnerable: Callable[[str, str], bool]) -> Iterator[str]:
    """An index in the manner of osv.dev; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found = vulnerable(asked["package"]["name"], asked["version"])
            body = json.dumps({"vulns": [{"id": "TEST-1", "affected": []}]} if found else {})
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer((HOST, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://{HOST}:{server.server_port}/v1/query"
        server.shutdown()
        thread.join()


@pytest.mark.live
def test_a_known_vulnerability_fails_the_audit() -> None:
    with osv_index(lambda name, version: name == "sqlparse" or version == "3.2") as index:
        done = audit(index)
    assert done.returncode == 1
    assert re.search(r"sqlparse +\S+ +TEST-1", done.stdout)


@pytest.mark.live
def test_the_audit_passes_without_known_vulnerabilities() -> None:
    with osv_index(lambda name, version: (name, version) == ("django", "3.2")) as index:
        done = audit(index)
    assert (done.returncode, done.stdout) == (0, "No known vulnerabilities found\n")


def test_an_index_without_vulnerabilities_is_not_trusted() -> None:
    with osv_index(lambda name, version: False) as index:
        done = audit(index)
    assert done.returncode == 0
    assert done.stdout.startswith("Not audited for known vulnerabilities")


def test_a_missing_index_is_one_line() -> None:
    done = audit(f"http://{HOST}:{free_port()}/v1/query")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1)
    assert done.stdout.startswith("Not audited for known vulnerabilities")

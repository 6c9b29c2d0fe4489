"""Security in production: headers, cookies, hosts, and nothing internal in answers."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from django.test import Client

from tests.client import ALICE, TASKS
from tests.database_plugin import LiveServer, open_live_server
from tests.issuer import SECRET, bearer, by_secret
from tools.servers import PROJECT_ROOT, run

HTTPS = {"X-Forwarded-Proto": "https"}
PAGES = ["/admin/login/", "/api/docs"]
PATHS = [*PAGES, TASKS, f"/api/{ALICE}/tasks/x", "/nothing", "/healthz", "/api/schema",
         "/static/admin/css/base.css", "/static/nothing"]  # fmt: skip


def production() -> dict[str, str]:
    """The environment from docs/deployment/install.md, with its placeholders filled in."""
    document = (PROJECT_ROOT / "docs/deployment/install.md").read_text()
    block = re.search(r"```dotenv\n(.+?)```", document, re.DOTALL)
    assert block
    shown = dict(line.split("=", 1) for line in block[1].splitlines())
    return {**shown, "SECRET_KEY": subprocess.run(
        [sys.executable, *re.findall(r"<python3 (-c) '(.+)'>", shown["SECRET_KEY"])[0]],
        check=True, capture_output=True, text=True,
    ).stdout.strip()}  # fmt: skip


def check_deploy(**changes: str) -> tuple[int, str]:
    """Exit code and output of the check, with the environment shown and these changes."""
    check = ("manage.py", "check", "--deploy", "--fail-level=WARNING")
    # The tests' empty values override those of a developer's .env file.
    done = run("-W", "error", *check, **{**production(), **changes})
    return done.returncode, done.stdout + done.stderr


@pytest.mark.live
def test_the_documented_environment_passes_djangos_check_for_deployment() -> None:
    code, output = check_deploy()
    assert (code, "no issues" in output) == (0, True), output


@pytest.mark.live
@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"AUTH_MODE": "none"}, "todo.W001"),
        ({"JWT_JWKS_URL": "http://issuer.example/jwks"}, "todo.W002"),
        ({"JWT_ISSUER": "", "JWT_AUDIENCE": ""}, "todo.W003"),
        ({"DEBUG": "true"}, "security.W018"),
        ({"SECRET_KEY": "short"}, "security.W009"),
    ],
)
def test_it_warns_of_what_is_not_for_production(changes: dict[str, str], found: str) -> None:
    code, output = check_deploy(**changes)
    assert code == 1
    assert found in output


@pytest.mark.parametrize("range", ["bytes=0-3", "bytes=999999-", "bytes=5-2"])
def test_the_range_of_a_static_file_is_ignored(db: None, range: str) -> None:
    response = Client().get("/static/todo_project/docs.js", headers={"Range": range})
    assert response.status_code == 200
    assert len(response.getvalue()) == int(response["Content-Length"]) > 100


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_has_the_security_headers(db: None, path: str) -> None:
    response = Client(headers=HTTPS).get(path)
    response.getvalue()  # read to its end, a file is closed
    headers = response.headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert path == "/static/admin/css/base.css" or headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Strict-Transport-Security"] == "max-age=31536000"
    assert not {"Server", "X-Powered-By", "Via"} & {*headers}
    # Without TLS at the proxy: the same answer, with no redirect and no HSTS.
    plain = Client().get(path)
    plain.getvalue()
    assert plain.status_code == response.status_code
    assert "Strict-Transport-Security" not in plain.headers


@pytest.mark.parametrize("path", PAGES)
def test_pages_load_nothing_from_other_hosts(db: None, path: str) -> None:
    response = Client(headers=HTTPS).get(path)
    assert response.status_code == 200
    policy = dict(part.strip().split(" ", 1)
                  for part in response["Content-Security-Policy"].split(";"))  # fmt: skip
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["base-uri"] == "'none'"
    assert "unsafe" not in response["Content-Security-Policy"]
    page = response.content.decode()
    assert not re.search(r"<script(?![^>]*\bsrc=)[^>]*>\s*\S|\son\w+=|(?:src|href)=.https?:", page)


def test_the_admins_cookies_are_out_of_reach(admin_user: Any) -> None:
    client = Client(headers=HTTPS)
    form = client.get("/admin/login/")
    login = client.post("/admin/login/", {"username": admin_user.username, "password": "password"})
    assert login.status_code == 302
    for cookie in (form.cookies["csrftoken"], login.cookies["sessionid"]):
        assert cookie["secure"] is True
        assert cookie["samesite"] == "Lax"
        assert cookie["domain"] == ""
    assert login.cookies["sessionid"]["httponly"] is True


def test_the_api_sets_no_cookie(api: Any) -> None:
    api.create()
    for path in (TASKS, "/api/docs", "/healthz", "/nothing"):
        assert not api.client.get(path).cookies


ID = "broken-table.1"


@pytest.fixture(scope="module")
def live() -> Iterator[LiveServer]:
    with open_live_server(AUTH_MODE="jwt", JWT_SECRET=SECRET, WEB_CONCURRENCY="1") as server:
        yield server


@pytest.mark.live
def test_no_header_names_the_server_software(live: LiveServer) -> None:
    with httpx.Client(base_url=live.base_url, timeout=60) as client:
        for path in PATHS:
            assert not {"server", "x-powered-by", "via"} & {*client.get(path).headers}, path


@pytest.mark.live
def test_an_internal_error_reveals_nothing_and_is_logged_with_its_request_id(
    live: LiveServer,
) -> None:
    token = by_secret()
    headers = {**bearer(token), "X-Request-ID": ID}
    with httpx.Client(base_url=live.base_url, headers=headers, timeout=60) as client:
        live.postgres.execute("ALTER TABLE tasks_task RENAME TO away", database=live.database)
        answers = [client.get(TASKS), client.post(TASKS, json={"title": "Secret title"})]
        live.postgres.execute("ALTER TABLE away RENAME TO tasks_task", database=live.database)
        assert client.get(TASKS).status_code == 200
    for answer in answers:
        assert answer.status_code == 500
        assert answer.headers["X-Request-ID"] == ID
        assert answer.json() == {
            "type": "about:blank",
            "title": "Internal Server Error",
            "status": 500,
            "detail": "The service failed; the request_id finds the log line.",
            "code": "internal_error",
            "request_id": ID,
        }
    lines = map(json.loads, live.log().splitlines())
    found = [line for line in lines if (line["request_id"], line["level"]) == (ID, "ERROR")]
    assert len(found) == 2
    for line in found:
        assert 'relation "tasks_task" does not exist' in line["exc_info"]
    for secret in (*token.split("."), "Secret title", SECRET):
        assert secret not in live.log()

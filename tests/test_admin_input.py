"""Bad input to the admin: refused, never 5xx, and never stored."""

import http.client
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from django.contrib.auth.models import User
from django.db import transaction
from django.test import Client

from tests.client import API
from tests.database_plugin import LiveServer, open_live_server
from tools.servers import HOST

TASKS = "/admin/tasks/task/"
USERS = "/admin/auth/user/"
ATTEMPTS = "/admin/axes/accessattempt/"


@pytest.fixture
def admin(db: None) -> Client:
    """A browser with a superuser logged in."""
    client = Client(raise_request_exception=False)
    client.force_login(User.objects.create(username="root", is_staff=True, is_superuser=True))
    return client


def check(response: Any, status: int, code: str) -> None:
    assert (response.status_code, response["Content-Type"]) == (status, "application/problem+json")
    assert response.json()["code"] == code


@pytest.mark.parametrize(
    "query",
    [
        f"{TASKS}?title=%00",
        f"{TASKS}?q=%00",
        f"{USERS}?username__contains=a%00b",
        f"{USERS}?date_joined__year=0",
        f"{USERS}?date_joined__year=99999999999999999999",
        "/admin/?%00",
    ],
)
def test_a_bad_query_is_400(admin: Client, query: str) -> None:
    check(admin.get(query), 400, "bad_request")


@pytest.mark.parametrize(
    "query",
    [f"{ATTEMPTS}?ip_address=x", f"{ATTEMPTS}?id__in={'9' * 20}"],
)
def test_a_query_that_only_one_database_refuses_is_no_500(admin: Client, query: str) -> None:
    with transaction.atomic():
        assert admin.get(query).status_code in (200, 400)
        transaction.set_rollback(True)


@pytest.mark.parametrize(
    ("path", "action"), [(TASKS, "mark_completed"), (TASKS, "export"), (USERS, "delete_selected")]
)
@pytest.mark.parametrize("id", ["x", "1.5", "\0"])
def test_an_action_on_a_malformed_id_is_400(admin: Client, path: str, action: str, id: str) -> None:
    form = {"action": action, "_selected_action": id, "index": "0"}
    API().create()
    check(admin.post(path, form), 400, "bad_request")


@pytest.mark.parametrize("method", ["get", "head", "put", "delete"])
def test_a_method_not_allowed_for_the_logout_is_405(admin: Client, method: str) -> None:
    response = getattr(admin, method)("/admin/logout/")
    assert response.status_code == 405
    assert response["Allow"] == "POST, OPTIONS"
    if method != "head":
        check(response, 405, "method_not_allowed")


@pytest.fixture(scope="module")
def live() -> Iterator[LiveServer]:
    with open_live_server(vendor="sqlite", WEB_CONCURRENCY="1") as server:
        yield server


@pytest.mark.live
@pytest.mark.parametrize("path", ["/admin/", "/admin/login/", "/admin/tasks/task/", "/admin/x/"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_upload_is_refused_and_nothing_is_written(
    live: LiveServer, path: str, chunked: bool
) -> None:
    [worker] = [psutil.Process(pid) for pid in live.worker_pids()]
    before = worker.io_counters().write_chars
    start = b'--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
    parts = [start, *[b"a" * 1_000_000] * 10, b"\r\n--x--\r\n"]
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    if not chunked:
        headers["Content-Length"] = str(sum(map(len, parts)))
    connection = http.client.HTTPConnection(HOST, live.port, timeout=60)
    connection.request("POST", path, iter(parts), headers, encode_chunked=chunked)
    response = connection.getresponse()
    assert response.status == 413
    assert response.headers["Content-Type"] == "application/problem+json"
    connection.close()
    assert not [file for file in worker.open_files() if "upload" in file.path]
    assert worker.io_counters().write_chars - before < 64 * 1024

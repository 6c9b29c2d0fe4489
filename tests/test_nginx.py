"""docs/deployment/nginx.conf in a real nginx, in front of the service, over TLS."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import httpx
import pytest

from tests.client import TASKS
from tests.database_plugin import LiveServer, open_live_server, require
from tools.samples_check import NGINX, Nginx
from tools.servers import HOST, wait_until

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def service() -> Iterator[LiveServer]:
    with open_live_server(ALLOWED_HOSTS=Nginx.name, WEB_CONCURRENCY="1") as server:
        yield server


@pytest.fixture
def nginx(service: LiveServer) -> Iterator[Nginx]:
    require(NGINX, "nginx", "nginx-light")
    with Nginx(service.port) as server:
        yield server


@pytest.fixture
def client(nginx: Nginx) -> Iterator[httpx.Client]:
    tls = ssl.create_default_context(cafile=nginx.certificate)
    with httpx.Client(
        base_url=f"https://{HOST}:{nginx.port}",
        verify=tls,
        timeout=60,
        headers={"Host": Nginx.name},
    ) as client:
        # The certificate is for the name, but the connection is to the address.
        client.event_hooks["request"] = [
            lambda request: request.extensions.update(sni_hostname=Nginx.name)
        ]
        yield client


def assert_is_problem(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.headers["Content-Type"]) == (
        status,
        "application/problem+json",
    )
    assert (answer.json()["status"], answer.json()["code"]) == (status, code)
    assert answer.headers["X-Request-ID"] == "from-the-client"


def test_requests_pass_through_unchanged(client: httpx.Client, nginx: Nginx) -> None:
    created = client.post(TASKS, json={"title": "x" * 200}, headers={"X-Request-ID": "mine.1"})
    assert created.status_code == 201
    assert created.headers["X-Request-ID"] == "mine.1"
    assert "max-age" in created.headers["Strict-Transport-Security"]
    path, tag = created.headers["Location"], created.headers["ETag"]
    assert client.get(path, headers={"If-None-Match": tag}).status_code == 304
    read = client.get(path)  # with Accept-Encoding
    assert (read.headers["ETag"], "Content-Encoding" in read.headers) == (tag, False)
    body = iter([b'{"is_completed":', b" true}"])  # chunked
    json = {"Content-Type": "application/json", "If-Match": tag}
    done = client.patch(f"{path}/complete", content=body, headers=json)
    assert (done.status_code, done.json()["is_completed"]) == (200, True)
    replaced = client.get(f"{TASKS}?search=secret-word", headers={"X-Request-ID": "bad id"})
    assert len(replaced.headers["X-Request-ID"]) == 32
    log = nginx.folder / "access.log"  # written after the response
    assert wait_until(lambda: replaced.headers["X-Request-ID"] in log.read_text())
    assert f'"POST {TASKS}" 201' in log.read_text()
    assert "secret-word" not in log.read_text()


def test_another_host_and_plain_http_are_refused(client: httpx.Client, nginx: Nginx) -> None:
    assert client.get(TASKS, headers={"Host": "evil.example"}).json()["code"] == "invalid_host"
    assert httpx.get(f"http://{HOST}:{nginx.port}{TASKS}", timeout=60).status_code == 400


def test_a_body_that_exceeds_its_limit_or_the_services_is_413(client: httpx.Client) -> None:
    client.headers["X-Request-ID"] = "from-the-client"
    for size in (100_000, 2_000_000):
        answer = client.post(TASKS, content=b"[" * size)
        assert_is_problem(answer, 413, "content_too_large")


def test_only_attempts_to_log_in_are_limited(client: httpx.Client) -> None:
    client.headers["X-Request-ID"] = "from-the-client"
    login = "/admin/login/"
    assert {client.get(login).status_code for _ in range(30)} == {200}
    attempts = [client.post(login, data={"username": "x"}) for _ in range(20)]
    assert [answer.status_code for answer in attempts[:11]] == [403] * 11  # no CSRF token
    assert_is_problem(attempts[-1], 429, "too_many_attempts")
    assert int(attempts[-1].headers["Retry-After"]) > 0
    for path, status in ((login, 200), ("/admin/", 302), (TASKS, 200)):
        assert {client.get(path).status_code for _ in range(30)} == {status}
    assert client.post(TASKS, json={"title": "x"}).status_code == 201


def test_an_unavailable_service_is_502_until_it_is_back(
    client: httpx.Client, service: LiveServer
) -> None:
    client.headers["X-Request-ID"] = "from-the-client"
    assert client.get("/healthz").status_code == 200
    service.stop()
    answer = client.get(TASKS)
    assert_is_problem(answer, 502, "bad_gateway")
    assert int(answer.headers["Retry-After"]) > 0
    service.start()
    assert client.get(TASKS).status_code == 200

"""The start page and the banner of development: their links and commands work."""

import html
import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from django.test import Client

from tests.database_plugin import LiveServer, open_live_server
from tests.issuer import SECRET
from tools import servers
from tools.servers import PROJECT_ROOT

MODES = [{"AUTH_MODE": "none"}, {"AUTH_MODE": "jwt", "JWT_SECRET": SECRET}]


@pytest.fixture(scope="module", params=MODES, ids=lambda mode: mode["AUTH_MODE"])
def server(request: Any) -> Iterator[LiveServer]:
    with open_live_server("sqlite", DEBUG="true", **request.param) as server:
        yield server


@pytest.fixture
def page(server: LiveServer) -> httpx.Response:
    return httpx.get(server.base_url + "/", timeout=60)


def run(commands: str, server: LiveServer) -> Any:
    """The JSON that the last of the commands prints."""
    done = subprocess.run(
        ["bash", "-e"], input=commands + "\necho", env=server.environment, cwd=PROJECT_ROOT,
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    decoder, output = json.JSONDecoder(), done.stdout.strip()
    created, end = decoder.raw_decode(output)
    assert created["title"] == "Buy milk"
    return json.loads(output[end:])


def test_without_debug_there_is_no_such_page() -> None:
    for path in ("/", "//"):
        response = Client().get(path)
        assert (response.status_code, response.json()["code"]) == (404, "not_found")
        assert response["Content-Type"] == "application/problem+json"


@pytest.mark.live
def test_its_links_lead_somewhere(server: LiveServer, page: httpx.Response) -> None:
    browser = httpx.Client(
        base_url=server.base_url, headers={"Accept": "text/html,*/*;q=0.8"}, timeout=60
    )
    jwt = server.environment["AUTH_MODE"] == "jwt"
    found = {}
    with browser:
        for path in re.findall(r'href="(.*?)"', page.text):
            answer = browser.get(path, follow_redirects=True)
            found[path] = answer.status_code
            if path.startswith("/api/0"):
                assert answer.headers["Content-Type"].startswith("text/html")
    sample = next(path for path in found if path.endswith("/tasks"))
    assert found.pop(sample) == (401 if jwt else 200)
    assert set(found.values()) == {200}
    assert {"/api/docs", "/api/schema", "/admin/"} <= set(found)


@pytest.mark.live
def test_it_loads_nothing_from_other_hosts(page: httpx.Response) -> None:
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert not re.search(r"<script|<style|\s(on\w+|style)=|(?:src|href)=.https?:", page.text)


@pytest.mark.live
def test_the_pages_commands_work(server: LiveServer, page: httpx.Response) -> None:
    block = re.search(r"<pre>(.*?)</pre>", page.text, re.DOTALL)
    assert block
    assert "Buy milk" in str(run(html.unescape(block[1]), server))


@pytest.mark.live
def test_the_banners_commands_work(server: LiveServer) -> None:
    block = re.search(r"terminal[^:]*:\n\n(.*?)\n\n", server.log(), re.DOTALL)
    assert block
    assert "Buy milk" in str(run(block[1], server))


@pytest.mark.live
def test_with_an_issuers_keys_the_commands_say_whose_token_is_needed() -> None:
    banner = "from todo_project import first_steps; print(first_steps.banner())"
    jwt = {"AUTH_MODE": "jwt", "JWT_JWKS_URL": "https://issuer.example/jwks"}
    shown = servers.run("-c", banner, DEBUG="true", **jwt).stdout
    assert "from your issuer" in shown
    assert "issue_token" not in shown

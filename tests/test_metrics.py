"""Metrics: sums over all processes of gunicorn, ended ones included, on a port of their own."""

import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import pytest
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from tests.client import NOBODYS, TASKS, at_once
from tests.database_plugin import LiveServer, open_live_server, require
from tests.issuer import Issuer, Key, bearer
from tests.live import Client, lock, waiting
from todo_project import metrics
from tools import samples_check
from tools.samples_check import MONITORING
from tools.servers import HOST, PROJECT_ROOT, free_port, run, wait_until

COUNT = "http_request_duration_seconds_count"
TRIPS = "database_round_trips_total"
INCOMPLETE = 'Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"title":'


@contextmanager
def open_metered_server(vendor: str = "postgresql", **environment: Any) -> Iterator[LiveServer]:
    """A live server whose metrics can be read, from before its first worker is forked."""
    environment["METRICS_PORT"] = str(free_port())
    with open_live_server(vendor, **environment) as server:
        assert is_up(server)
        yield server


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with open_metered_server() as server:
        yield server


def scrape(server: LiveServer) -> str:
    port = server.environment["METRICS_PORT"]
    with urlopen(f"http://{HOST}:{port}/metrics", timeout=60) as response:
        return response.read().decode()


def is_up(server: LiveServer) -> bool:
    try:
        return bool(scrape(server))
    except OSError:
        return False


def value(server: LiveServer, name: str, **labels: str) -> float:
    """The sum of the series of that name that have these labels."""
    families = text_string_to_metric_families(scrape(server))
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return sum(s.value for s in samples if labels.items() <= s.labels.items())


def ask(server: LiveServer, clients: int, path: str = TASKS) -> None:
    """Send a request on each of so many connections, at the same time."""

    def ask_once(_: int) -> None:
        with Client(server) as client:
            client.ask("GET", path)

    at_once(clients, ask_once)


def folders(server: LiveServer) -> list[Path]:
    return list(server.folder.glob("todo-metrics-*"))


@pytest.mark.live
def test_counts_add_up_over_processes_and_after_one_died(server: LiveServer) -> None:
    route = {"route": "/api/<uuid:user_id>/tasks", "method": "GET", "status": "200"}
    count, trips = value(server, COUNT, **route), value(server, TRIPS)
    ask(server, 40)
    assert value(server, COUNT, **route) == count + 40
    assert wait_until(lambda: value(server, TRIPS) >= trips + 40)  # written every second
    assert value(server, "http_request_duration_seconds_bucket", **route, le="+Inf") == count + 40
    assert wait_until(lambda: value(server, "database_connections") >= 1)
    assert wait_until(lambda: value(server, "http_requests_in_flight") == 0)

    with ExitStack() as stack:  # killed while it reads four bodies
        for _ in range(4):
            client = stack.enter_context(socket.create_connection((HOST, server.port)))
            client.sendall(f"POST {TASKS} HTTP/1.1\r\nHost: localhost\r\n{INCOMPLETE}".encode())
        assert wait_until(lambda: value(server, "http_requests_in_flight") == 4)
        killed = set(server.worker_pids())
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: len(set(server.worker_pids()) - killed) == 2)
    assert value(server, COUNT, **route) == count + 40
    assert value(server, "http_requests_in_flight") == 0
    assert value(server, "database_connections") == 0
    ask(server, 10)
    assert value(server, COUNT, **route) == count + 50

    os.kill(server.pid, signal.SIGHUP)
    assert wait_until(lambda: server.log().count("Booting worker") >= 6)
    ask(server, 10)
    assert value(server, COUNT, **route) == count + 60


@pytest.mark.live
def test_errors_are_counted_by_their_code_and_no_client_makes_a_series(server: LiveServer) -> None:
    def counts() -> list[float]:
        return [
            value(server, "http_problems_total", code="not_found"),
            value(server, COUNT, route="unmatched", status="404"),
            value(server, COUNT, method="other", status="405"),
        ]

    before = counts()
    with Client(server) as client:
        for number in range(5):
            client.ask("GET", f"/nothing/{number}")
            client.ask("GET", f"{TASKS}/{NOBODYS}")
            client.ask(f"ODD{number}", TASKS)
    assert [after - count for after, count in zip(counts(), before, strict=True)] == [10, 5, 5]
    assert "ODD" not in scrape(server)


@pytest.mark.live
def test_a_database_that_hangs_is_visible() -> None:
    with open_metered_server(WEB_CONCURRENCY="1") as server, lock(server):
        ask(server, sent := 4)
        assert wait_until(lambda: value(server, "database_breaker_open") == 1)
        assert value(server, "database_breaker_events_total", event="opened") >= 1
        while value(server, "database_breaker_events_total", event="refused") < 3:
            ask(server, 4)  # one may be a probe
            sent += 4
        assert value(server, "http_problems_total", code="database_unavailable") == sent
        assert wait_until(lambda: value(server, "database_wait_seconds_total") > 4)
        assert waiting(server) <= 4


@pytest.mark.live
def test_the_keys_have_the_time_of_their_fetch() -> None:
    key = Key("EdDSA")
    with (
        Issuer(key) as issuer,
        open_metered_server("sqlite", AUTH_MODE="jwt", JWT_JWKS_URL=issuer.url) as server,
    ):
        name = "token_keys_fetched_timestamp_seconds"
        assert value(server, name) == 0
        before = time.time()
        with Client(server) as client:
            token = bearer(key.sign())
            assert client.ask("GET", TASKS, headers=token).status == 200
            assert client.ask("GET", TASKS, headers=bearer("x")).status == 401
        assert wait_until(lambda: value(server, name) > before - 1)
        assert value(server, name) <= time.time() + 1
        assert value(server, "http_problems_total", code="invalid_token") == 1


@pytest.mark.live
def test_metrics_are_on_loopback_and_never_on_the_public_port(server: LiveServer) -> None:
    def listening() -> set[tuple[str, int]]:
        connections = psutil.Process(server.pid).net_connections()
        listeners = [each.laddr for each in connections if each.status == psutil.CONN_LISTEN]
        return {(address.ip, address.port) for address in listeners}

    assert listening() == {
        ("0.0.0.0", server.port),
        (HOST, int(server.environment["METRICS_PORT"])),
    }
    with Client(server) as client:
        assert client.ask("GET", "/metrics").status == 404


@pytest.mark.live
def test_without_a_port_no_metrics_are_kept() -> None:
    with open_live_server("sqlite") as server:
        assert len(psutil.Process(server.pid).net_connections()) == 1
        assert folders(server) == []


@pytest.mark.live
def test_a_port_in_use_is_reported_and_opened_later(
    live_server_factory: Callable[..., LiveServer],
) -> None:
    first = live_server_factory("sqlite", METRICS_PORT=str(free_port()))
    assert is_up(first)
    ask(first, 3, "/healthz")
    second = live_server_factory("sqlite", METRICS_PORT=first.environment["METRICS_PORT"])
    assert wait_until(lambda: "METRICS_PORT: [Errno 98]" in second.log())
    assert len(folders(first)) == 1
    first.stop()
    assert folders(first) == []
    ask(second, 1, "/nothing")
    assert wait_until(lambda: is_up(second))
    assert value(second, COUNT, status="404") == 1


@pytest.mark.live  # independent of the run's database: once is enough
def test_without_a_folder_for_the_counts_the_service_does_not_start() -> None:
    setting = {"METRICS_PORT": str(free_port()), "TMPDIR": "/nowhere"}
    done = run("-m", "todo_project", DATABASE_URL="sqlite:///x.sqlite3", **setting)
    (line,) = done.stderr.splitlines()
    assert line.startswith("Configuration error: METRICS_PORT needs a folder for its counts: ")
    assert done.returncode == 1


# The files of docs/monitoring --------------------------------------------------------------------


@pytest.fixture
def promtool() -> None:
    """For tests that run promtool: skip them where it is missing, under CI fail them."""
    require(samples_check.PROMTOOL, "promtool", "prometheus")


@pytest.mark.live
@pytest.mark.usefixtures("promtool")
def test_promtool_accepts_what_is_served(server: LiveServer) -> None:
    samples_check.promtool("check", "metrics", text=scrape(server))


@pytest.mark.usefixtures("promtool")
def test_promtool_accepts_the_alert_rules() -> None:
    samples_check.check_alerts()


def expressions(node: Any) -> Iterator[str]:
    """The queries of a dashboard."""
    if isinstance(node, dict):
        if "expr" in node:
            yield node["expr"]
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from expressions(each)


def test_the_files_and_the_page_name_the_existing_metrics() -> None:
    kinds = (Counter, Gauge, Histogram)
    collectors = [m for m in vars(metrics).values() if isinstance(m, kinds)]
    made = {metric.name for collector in collectors for metric in collector.describe()}
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    queries = "\n".join([*expressions(dashboard), (MONITORING / "alerts.yaml").read_text()])
    named = re.findall(r"\b((?:http|database|token)_\w+?)(?:_total|_count|_bucket)?[{\[]", queries)
    assert set(named) == made
    page = (PROJECT_ROOT / "docs" / "monitoring.md").read_text().partition("## Metrics")[2]
    assert set(re.findall(r"^\| `((?:http|database|token)_\w+)", page, re.MULTILINE)) == made

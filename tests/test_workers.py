"""Workers that end and start under load: no acknowledged write is lost, no request broken off."""

import os
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psutil
import pytest

from tests.client import TASKS, Json
from tests.database_plugin import LiveServer, open_live_server
from tests.live import Client, Load, lock, waiting
from todo_project import cpus
from tools.servers import Gunicorn, wait_until

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with open_live_server() as server:
        yield server


def kill_worker(server: LiveServer) -> None:
    os.kill(server.worker_pids()[0], signal.SIGKILL)


def end_worker(server: LiveServer) -> None:
    os.kill(server.worker_pids()[0], signal.SIGTERM)


def restart_workers(server: LiveServer) -> None:
    os.kill(server.pid, signal.SIGHUP)


def end_service(server: LiveServer) -> None:
    assert server.stop() == 0
    server.start()


def kill_service(server: LiveServer) -> None:
    server.kill()
    server.start()


@pytest.mark.parametrize(
    ("strike", "replaced"),
    [
        (kill_worker, 1),
        (end_worker, 1),
        (restart_workers, 2),
        (end_service, 2),
        (kill_service, 2),
    ],
)
def test_no_acknowledged_write_is_lost_or_done_twice(
    server: LiveServer, strike: Callable[[LiveServer], None], replaced: int
) -> None:
    before = set(server.worker_pids())

    def is_replaced() -> bool:
        now = set(server.worker_pids())
        return len(now) == len(before) and len(now - before) == replaced

    load = Load(server)
    with load.running():
        load.wait_for(500)
        strike(server)
        assert wait_until(is_replaced)
        load.wait_for(500)
    # A service that ends also breaks connections that it has not accepted: nothing was done there.
    load.verify(cut_off=strike in (kill_worker, kill_service))
    assert set(load.statuses) == {200, 201}, server.log()[-2500:]
    if strike in (end_worker, restart_workers):  # other workers listen
        assert load.broken == 0


def test_a_request_in_flight_is_answered_before_the_service_ends() -> None:
    with open_live_server(WEB_CONCURRENCY="1") as server, ThreadPoolExecutor(5) as pool:
        with lock(server):
            asked = [pool.submit(create, server) for _ in range(4)]
            assert wait_until(lambda: waiting(server) == 4)
            ended = pool.submit(server.stop)
            assert wait_until(lambda: "Handling signal: term" in server.log())
        made = {future.result()["id"] for future in asked}
        assert ended.result() == 0
        found = server.postgres.execute("SELECT id::text FROM tasks_task", database=server.database)
    assert made == {id for (id,) in found}


def create(server: Gunicorn) -> Json:
    with Client(server) as client:
        return client.create()


@pytest.mark.parametrize("vendor", ["postgresql", "sqlite"])
def test_two_services_on_one_database_act_as_one(vendor: str) -> None:
    """Each accepts the other's cursors and recognizes its idempotency keys."""
    with (
        open_live_server(vendor) as first,
        Gunicorn(first.environment) as second,
        Client(first) as one,
        Client(second) as other,
    ):
        key = {"Idempotency-Key": "one"}
        task = one.create(headers=key)
        assert other.create(headers=key) == task
        other.create("Buy bread")
        page = one.ask("GET", f"{TASKS}?limit=1&ordering=created_at")
        assert page.json() == [task]
        link = re.search('<([^>]*)>; rel="next"', page.headers["Link"])
        assert link
        assert [task["title"] for task in other.ask("GET", link[1]).json()] == ["Buy bread"]
        toggled = other.ask("PATCH", f"{TASKS}/{task['id']}/complete")
        assert one.ask("GET", f"{TASKS}/{task['id']}").json() == toggled.json()


CORES = sorted(os.sched_getaffinity(0))


@pytest.mark.skipif(cpus.available() < max(2, len(CORES)), reason="fewer than two cores")
def test_with_a_worker_for_each_core_each_is_pinned_to_its_own(
    live_server_factory: Callable[..., LiveServer],
) -> None:
    server = live_server_factory(vendor="sqlite", WEB_CONCURRENCY="")

    def held() -> list[list[int]]:
        with suppress(psutil.Error):  # one is ending
            return sorted(psutil.Process(pid).cpu_affinity() for pid in server.worker_pids())
        return []

    each_its_own = [[core] for core in CORES]
    assert wait_until(lambda: held() == each_its_own)
    before = server.worker_pids()
    os.kill(before[0], signal.SIGKILL)
    assert wait_until(lambda: held() == each_its_own and server.worker_pids() != before)


@pytest.mark.skipif(len(CORES) < 2, reason="only one core")
@pytest.mark.parametrize(("pinned", "held"), [("true", 1), ("false", len(CORES))])
def test_a_single_worker_is_pinned_to_one_core_unless_configured_otherwise(
    live_server_factory: Callable[..., LiveServer], pinned: str, held: int
) -> None:
    server = live_server_factory(vendor="sqlite", WEB_CONCURRENCY="1", WEB_PIN_PROCESSES=pinned)
    (pid,) = server.worker_pids()
    assert wait_until(lambda: len(psutil.Process(pid).cpu_affinity()) == held)

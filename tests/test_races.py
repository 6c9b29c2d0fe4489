"""Simultaneous requests to two processes, and retries of requests that were interrupted."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from tests.client import SHARED, Json, at_once
from tests.database_plugin import LiveServer, open_live_server
from tools.servers import wait_until

pytestmark = pytest.mark.live

MILK = {"title": "Buy milk"}
KEY = {"Idempotency-Key": "k"}


@pytest.fixture(scope="module", params=["postgresql", "sqlite", "citus"])
def client(request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """A client of the service in two processes of four threads."""
    with (
        open_live_server(request.param, WEB_CONCURRENCY="2", WEB_THREADS="4") as server,
        httpx.Client(base_url=server.base_url, timeout=60, limits=SHARED) as client,
    ):
        assert len(server.worker_pids()) == 2
        yield client


@pytest.fixture
def path() -> str:
    """The list of an owner who has no task yet."""
    return f"/api/{uuid4()}/tasks"


def test_creates_with_one_key_make_one_task(client: httpx.Client, path: str) -> None:
    def post(title: str, key: str = "k") -> httpx.Response:
        return client.post(path, json={"title": title}, headers={"Idempotency-Key": key})

    answers = at_once(50, lambda _: post("Buy milk"))
    assert [answer.status_code for answer in answers] == [201] * 50
    (made,) = client.get(path).json()
    assert {answer.content for answer in answers} == {answers[0].content}
    assert answers[0].json() == made
    for name in ("ETag", "Location"):
        assert len({answer.headers[name] for answer in answers}) == 1

    refused = at_once(50, lambda _: post("Buy tea"))
    assert [answer.status_code for answer in refused] == [422] * 50
    assert {answer.json()["code"] for answer in refused} == {"idempotency_key_reused"}
    assert client.get(path).json() == [made]

    # One key with two payloads at once: the first one gets it.
    mixed = at_once(50, lambda n: post(f"Buy {n % 2}", "other"))
    second = next(task for task in client.get(path).json() if task != made)
    assert client.get(path).json() == [second, made]
    for n, answer in enumerate(mixed):
        outcome = answer.status_code, answer.json().get("id")
        assert outcome == (
            (201, second["id"]) if second["title"] == f"Buy {n % 2}" else (422, None)
        )


def test_of_writers_with_one_tag_exactly_one_wins(client: httpx.Client, path: str) -> None:
    created = client.post(path, json=MILK)
    path, tag = created.headers["Location"], created.headers["ETag"]

    def write(n: int) -> httpx.Response:
        full = {"title": f"Writer {n}", "description": None, "is_completed": True}
        method, suffix, body = [
            ("PUT", "", full),
            ("PATCH", "", {"title": f"Writer {n}"}),
            ("PATCH", "/complete", {"is_completed": True}),
            ("PATCH", "/complete", None),
        ][n % 4]
        options: Any = {} if body is None else {"json": body}
        return client.request(method, path + suffix, headers={"If-Match": tag}, **options)

    for _ in range(5):
        answers = at_once(20, write)
        assert Counter(answer.status_code for answer in answers) == {200: 1, 412: 19}
        (winner,) = (answer for answer in answers if answer.status_code == 200)
        assert client.get(path).json() == winner.json()
        assert {answer.headers["ETag"] for answer in answers} == {winner.headers["ETag"]}
        back = client.patch(path, json={"title": "Buy milk", "is_completed": False})
        tag = back.headers["ETag"]

    deleted = at_once(20, lambda _: client.delete(path, headers={"If-Match": tag}))
    assert Counter(answer.status_code for answer in deleted) == {204: 1, 404: 19}
    assert client.get(path).status_code == 404


def test_no_toggle_is_lost_among_200_threads(client: httpx.Client, path: str) -> None:
    path = client.post(path, json=MILK).headers["Location"]

    def toggle_twice(_: int) -> list[Json]:
        answers = [client.patch(f"{path}/complete") for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 200]
        return [answer.json() for answer in answers]

    told = [task for both in at_once(200, toggle_twice) for task in both]
    # In the order of `updated_at` each toggle saw the one before it, so none was lost.
    told.sort(key=lambda task: task["updated_at"])
    assert [task["is_completed"] for task in told] == [True, False] * 200
    assert len({task["updated_at"] for task in told}) == 400
    assert client.get(path).json() == told[-1]


# A first attempt that is interrupted ----------------------------------------------------------


@pytest.fixture(scope="module")
def fragile() -> Iterator[LiveServer]:
    """The service behind a network that breaks."""
    with open_live_server(proxy=True, WEB_CONCURRENCY="1", WEB_THREADS="1") as server:
        yield server


def lose_the_request(server: LiveServer, stack: ExitStack, owner: str) -> Callable[[], bool]:
    """The INSERT has left the service and never reaches the database."""
    server.proxy.reset()
    server.proxy.freeze()
    stack.callback(server.proxy.thaw)
    return lambda: any("INSERT" in sql for sql in server.proxy.statements)


def cut_during_the_insert(server: LiveServer, stack: ExitStack, owner: str) -> Callable[[], bool]:
    """The INSERT waits for another one with the same key, which is then rolled back."""
    other = stack.enter_context(psycopg.connect(server.database_url))
    other.execute(
        "INSERT INTO tasks_task (id, user_id, title, is_completed, created_at, updated_at,"
        " idempotency_key) VALUES (gen_random_uuid(), %s, 'x', false, now(), now(), 'k')",
        [owner],
    )
    stack.callback(other.rollback)
    blockers = "SELECT unnest(pg_blocking_pids(pid)) FROM pg_stat_activity"
    return lambda: (other.info.backend_pid,) in server.postgres.execute(blockers)


def lose_the_answer(server: LiveServer, stack: ExitStack, owner: str) -> Callable[[], bool]:
    """The task is made, but the service gets no answer: it would take longer than a request may."""
    server.proxy.delay = 2.5
    stack.callback(setattr, server.proxy, "delay", 0.0)
    made = "SELECT 1 FROM tasks_task WHERE user_id = %s"
    return lambda: bool(server.postgres.execute(made, [owner], server.database))


@pytest.mark.parametrize("breakage", [lose_the_request, cut_during_the_insert, lose_the_answer])
def test_the_retry_of_an_interrupted_create_makes_one_task(
    fragile: LiveServer, path: str, breakage: Callable[..., Callable[[], bool]]
) -> None:
    with (
        httpx.Client(base_url=fragile.base_url, timeout=60) as client,
        ThreadPoolExecutor() as pool,
    ):
        # The service has a connection, and no breaker is open.
        assert wait_until(lambda: client.get(path).status_code == 200)
        with ExitStack() as stack:
            is_under_way = breakage(fragile, stack, path.split("/")[2])
            first = pool.submit(client.post, path, json=MILK, headers=KEY)
            assert wait_until(is_under_way)
            fragile.proxy.cut()
            failed = first.result()
        assert failed.status_code == 503
        assert failed.json()["code"] == "outcome_unknown"
        assert failed.headers["Retry-After"]

        answers: list[httpx.Response] = []

        def retry() -> bool:
            answers.append(client.post(path, json=MILK, headers=KEY))
            return answers[-1].status_code != 503

        assert wait_until(retry)
        assert answers[-1].status_code == 201
        assert client.get(path).json() == [answers[-1].json()]
        assert client.post(path, json=MILK, headers=KEY).json() == answers[-1].json()


# What it costs --------------------------------------------------------------------------------


def test_safety_costs_no_round_trip(fragile: LiveServer, path: str) -> None:
    with httpx.Client(base_url=fragile.base_url, timeout=60) as client:
        assert wait_until(lambda: client.get(path).status_code == 200)

        def cost(method: str, path: str, status: int, json: object = None, **headers: str) -> int:
            fragile.proxy.reset()
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            options: Any = {} if json is None else {"json": json}
            response = client.request(method, path, headers=named, **options)
            assert response.status_code == status
            return fragile.proxy.round_trips

        assert cost("POST", path, 201, MILK, Idempotency_Key="k") == 1
        assert cost("POST", path, 201, MILK, Idempotency_Key="k") == 1
        assert cost("POST", path, 422, {"title": "Buy tea"}, Idempotency_Key="k") == 1
        page = client.get(path)
        task = f"{path}/{page.json()[0]['id']}"
        tag = client.get(task).headers["ETag"]
        full = {"title": "Buy tea", "description": None, "is_completed": False}
        for at, current in ((task, tag), (path, page.headers["ETag"])):
            assert cost("GET", at, 304, If_None_Match=current) == 1
        for method, at, status, body in [
            ("PUT", task, 200, full),
            ("PATCH", task, 200, {"title": "Buy milk"}),
            ("PATCH", task, 200, {}),
            ("PATCH", f"{task}/complete", 200, None),
            ("PATCH", f"{task}/complete", 200, {"is_completed": False}),
            ("DELETE", task, 204, None),
        ]:
            tag = client.get(task).headers["ETag"]
            assert cost(method, at, 412, body, If_Match='"x"') == 2
            assert cost(method, at, status, body, If_Match=tag) == 1

"""RATE_LIMIT: per owner, and per client address for requests that fail to authenticate.

Limits are mostly per hour, so that hardly ever a window ends during a test.
"""

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any, TypeVar
from uuid import uuid4

import httpx
import pytest

from tests.client import ALICE, BOB, at_once
from tests.database_plugin import LiveServer, open_live_server, require
from tests.issuer import SECRET, bearer, by_secret
from tests.live import Answer, Client
from todo_project.auth.counters import Limit, ProcessCounters
from tools.proxy import Proxy
from tools.servers import Redis, wait_until

pytestmark = pytest.mark.live

T = TypeVar("T")
JWT: Any = {"AUTH_MODE": "jwt", "JWT_SECRET": SECRET}


def tasks(owner: str = ALICE) -> str:
    return f"/api/{owner}/tasks"


def serve(**environment: str) -> Any:
    """The service with one process, so that the limit is not divided."""
    options: Any = {"WEB_CONCURRENCY": "1", **environment}
    return open_live_server(vendor="sqlite", **options)


@pytest.fixture
def redis() -> Iterator[Redis]:
    require(Redis.program(), "redis-server or valkey-server", "redis-server")
    with Redis() as redis:
        yield redis


def answer(server: LiveServer) -> Answer:
    """The answer to a request on a new connection, which any of the processes may accept."""
    with Client(server) as client:
        return client.ask("GET", tasks())


def quota(response: httpx.Response) -> list[int]:
    """The number of requests left within each limit."""
    return [int(left) for left in re.findall(r";r=(\d+)", response.headers["RateLimit"])]


def test_every_answer_shows_the_limits_which_are_enforced() -> None:
    with (
        serve(**JWT, RATE_LIMIT="6/hour;1000/day") as server,
        httpx.Client(base_url=server.base_url, headers=bearer(by_secret()), timeout=60) as client,
    ):
        # Neither a probe nor a request that is refused before its owner is known counts.
        for path, status in (("/healthz", 200), ("/api/docs", 200), ("/nothing", 404)):
            answer = client.get(path)
            assert (answer.status_code, "RateLimit" in answer.headers) == (status, False)
        assert client.get("/api/1/tasks").status_code == 400
        assert client.get(tasks(BOB)).status_code == 403

        answers = [
            client.get(tasks()),
            client.post(tasks(), json={"title": "Buy milk"}),
            client.delete(tasks()),
            client.post(tasks(), json={"title": ""}),
            client.get(f"{tasks()}/{uuid4()}"),
            client.get(tasks(), headers={"If-None-Match": "*"}),
        ]
        assert [answer.status_code for answer in answers] == [200, 201, 405, 422, 404, 304]
        assert [quota(answer) for answer in answers] == [
            [left, 994 + left] for left in (5, 4, 3, 2, 1, 0)
        ]
        for answer in answers:
            assert answer.headers["RateLimit-Policy"] == (
                '"requests-3600s";q=6;w=3600, "requests-86400s";q=1000;w=86400'
            )
            assert re.fullmatch(
                r'"requests-3600s";r=\d;t=\d+, "requests-86400s";r=\d+;t=\d+',
                answer.headers["RateLimit"],
            )

        refused = client.get(tasks())
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert refused.headers["Content-Type"] == "application/problem+json"
        assert 1 <= int(refused.headers["Retry-After"]) <= 3600
        assert quota(refused)[0] == 0
        # 401, 400 for an id and 403 come before it, 405 after it.
        assert client.get(tasks(), headers=bearer("x")).status_code == 401
        assert client.get(tasks(BOB)).status_code == 403
        assert client.delete(tasks()).status_code == 429
        # Another owner has quotas of their own.
        assert client.get(tasks(BOB), headers=bearer(by_secret(BOB))).status_code == 200


def test_after_retry_after_a_request_is_accepted() -> None:
    with (
        serve(RATE_LIMIT="3/second") as server,
        httpx.Client(base_url=server.base_url, timeout=60) as client,
    ):
        for _ in range(3):
            while (answer := client.get(tasks())).status_code == 200:
                pass
            time.sleep(int(answer.headers["Retry-After"]))
            assert client.get(tasks()).status_code == 200


def test_without_authentication_the_limit_is_per_client_address() -> None:
    with serve(RATE_LIMIT="2/hour", TRUSTED_PROXIES="1") as server:

        def statuses(address: str) -> list[int]:
            headers = {"X-Forwarded-For": f"198.51.100.9, {address}"}
            with httpx.Client(base_url=server.base_url, headers=headers, timeout=60) as client:
                return [client.get(tasks(owner)).status_code for owner in (ALICE, BOB, ALICE)]

        assert statuses("203.0.113.1") == [200, 200, 429]
        assert statuses("203.0.113.2") == [200, 200, 429]


def test_failures_to_authenticate_are_limited_to_a_tenth() -> None:
    with (
        serve(**JWT, RATE_LIMIT="30/hour;500/day") as server,
        httpx.Client(base_url=server.base_url, timeout=60) as client,
    ):
        headers = [{}, bearer("garbage"), bearer(by_secret(exp=1)), {}, bearer("garbage")]
        answers = [client.get(tasks(), headers=header) for header in headers]
        assert [answer.status_code for answer in answers] == [401, 401, 401, 429, 429]
        assert [quota(answer) for answer in answers] == [[2], [1], [0], [0], [0]]
        assert answers[0].headers["RateLimit-Policy"] == '"failures-3600s";q=3;w=3600'
        assert answers[3].json()["code"] == "rate_limited"
        assert answers[3].headers["Retry-After"]
        # A client at the same address with a valid token is not refused.
        assert client.get(tasks(), headers=bearer(by_secret())).status_code == 200


def test_without_a_store_each_process_allows_a_share_and_the_log_says_so() -> None:
    with serve(RATE_LIMIT="100/day", WEB_CONCURRENCY="2") as server:
        seen = Counter(answer(server).status for _ in range(250))
        assert set(seen) == {200, 429}
        assert 50 <= seen[200] <= 100
        assert server.log().count("RATE_LIMIT_STORAGE_URL is not set") == 1


def test_each_process_allows_at_least_one_request() -> None:
    with serve(RATE_LIMIT="1/day", WEB_CONCURRENCY="2") as server:
        seen = Counter(answer(server).status for _ in range(40))
        assert 1 <= seen[200] <= 2


def test_counters_in_memory_slide_and_end_with_the_next_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counters, limit, now = ProcessCounters(), Limit(10, 60), 600_000.0
    monkeypatch.setattr(time, "time", lambda: now)

    def hit(key: str = "owner") -> tuple[bool, int, float]:
        return counters.count([limit], ("requests", key))[0]

    assert [hit() for _ in range(11)] == [
        *((True, remaining, 60) for remaining in range(9, -1, -1)),
        (False, 0, 60),
    ]
    assert hit("another") == (True, 9, 60)
    now += 60 + 30  # half of the ten still count
    assert [hit()[:2] for _ in range(6)] == [
        *((True, remaining) for remaining in range(4, -1, -1)),
        (False, 0),
    ]
    now += 120
    assert hit() == (True, 9, 30)
    assert "another" not in str(counters._windows)
    now -= 1000  # a clock that is set back
    assert hit()[0]


def test_counters_in_memory_lose_no_request_to_another_thread() -> None:
    counters, limit, key = ProcessCounters(), Limit(1000, 86400), ("requests", "x")
    found = at_once(8, lambda _: [counters.count([limit], key) for _ in range(200)])
    acquired = [state[0] for states in found for [state] in states]
    assert (acquired.count(True), len(acquired)) == (1000, 1600)


# With Redis or Valkey -------------------------------------------------------------------------


def limited(client: httpx.Client) -> bool:
    """Whether the store has counted a request; on a busy machine it may take more than 50 ms."""
    return "RateLimit" in client.get(tasks()).headers


def undisturbed(servers: list[LiveServer], measure: Callable[[], T]) -> T:
    """The result of a measurement during which the store always answered in time."""

    def losses() -> int:
        return sum(server.log().count("store is unavailable") for server in servers)

    for _ in range(10):
        for server in servers:
            with httpx.Client(base_url=server.base_url, timeout=60) as client:
                assert wait_until(lambda: all(limited(client) for _ in range(10)))
        before = losses()
        result = measure()
        if losses() == before:
            return result
    pytest.fail("the machine is too busy: the store took more than 50 ms each time")


def flood(
    servers: list[LiveServer], requests: int, headers: dict[str, str], owner: str = ALICE
) -> Counter[int]:
    """The statuses of so many requests from eight clients, to each server in turn."""

    def send(number: int) -> Counter[int]:
        seen: Counter[int] = Counter()
        with httpx.Client(headers=headers, timeout=60) as client:
            for turn in range(requests // 8):
                server = servers[(number + turn) % len(servers)]
                seen[client.get(server.base_url + tasks(owner)).status_code] += 1
        return seen

    with ThreadPoolExecutor(8) as pool:
        return sum(pool.map(send, range(8)), Counter())


def test_processes_and_hosts_share_one_limit(redis: Redis) -> None:
    limit = {"RATE_LIMIT": "500/day", "RATE_LIMIT_STORAGE_URL": redis.url, "WEB_CONCURRENCY": "2"}
    with (
        serve(**limit, TRUSTED_PROXIES="1") as first,
        serve(**limit, TRUSTED_PROXIES="1") as second,
    ):
        addresses = count(1)

        def measure() -> Counter[int]:
            return flood([first, second], 800, {"X-Forwarded-For": f"203.0.113.{next(addresses)}"})

        seen = undisturbed([first, second], measure)
        assert set(seen) == {200, 429}
        assert 495 <= seen[200] <= 505


def test_a_request_costs_the_store_one_round_trip_whatever_the_limits(redis: Redis) -> None:
    with Proxy(redis.port) as proxy:
        limit = {
            "RATE_LIMIT": "5000/second;50000/minute;500000/day",
            "RATE_LIMIT_STORAGE_URL": proxy.url(redis.url),
            "WEB_THREADS": "1",
        }
        with serve(**limit) as server, httpx.Client(base_url=server.base_url, timeout=60) as client:

            def measure() -> tuple[int, int]:
                proxy.reset()
                for _ in range(10):
                    client.get(tasks())
                client.get("/healthz")
                return proxy.round_trips, proxy.connections

            assert undisturbed([server], measure) == (10, 0)


def test_a_hostile_user_does_not_use_up_the_quota_of_another(redis: Redis) -> None:
    """Alice sends requests as fast as eight clients can; Bob stays within the limit."""
    limit = {"RATE_LIMIT": "100/hour", "RATE_LIMIT_STORAGE_URL": redis.url}
    with serve(**JWT, **limit, WEB_CONCURRENCY="2") as server:

        def measure() -> tuple[Counter[int], Counter[int]]:
            alice, bob = str(uuid4()), str(uuid4())
            with ThreadPoolExecutor(1) as pool:
                attack = pool.submit(flood, [server], 800, bearer(by_secret(alice)), alice)
                return flood([server], 80, bearer(by_secret(bob)), bob), attack.result()

        assert undisturbed([server], measure) == ({200: 80}, {200: 100, 429: 700})


@pytest.mark.parametrize(
    ("end", "back"), [(Redis.kill, Redis.start), (Redis.pause, Redis.resume)], ids=["kill", "hang"]
)
def test_no_request_fails_while_the_store_is_unavailable(
    redis: Redis, end: Callable[[Redis], None], back: Callable[[Redis], None]
) -> None:
    limit = {"RATE_LIMIT": "1000000/minute", "RATE_LIMIT_STORAGE_URL": redis.url}
    with serve(**limit, WEB_CONCURRENCY="2") as server:
        ended = threading.Event()
        limited = 0

        def load(_: int) -> Counter[int]:
            nonlocal limited
            seen: Counter[int] = Counter()
            while not ended.is_set():
                answered = answer(server)
                seen[answered.status] += 1
                limited = limited + 1 if "RateLimit" in answered.headers else 0
            return seen

        def unavailable() -> int:
            """The number of processes that have lost the store, if each says so once."""
            log = server.log()
            return log.count("store is unavailable") - log.count("store is available")

        with ThreadPoolExecutor(4) as pool:
            loads = [pool.submit(load, number) for number in range(4)]
            assert wait_until(lambda: limited > 20)
            for _ in range(2):
                end(redis)
                assert wait_until(lambda: unavailable() == 2)
                assert wait_until(lambda: limited == 0)
                assert unavailable() == 2
                back(redis)
                assert wait_until(lambda: unavailable() == 0)
                assert wait_until(lambda: limited > 20)
            ended.set()
            seen = sum((future.result() for future in loads), Counter())
        assert set(seen) == {200}
        assert "Traceback" not in server.log()


def test_no_request_waits_for_a_store_that_takes_more_than_50_ms(redis: Redis) -> None:
    with Proxy(redis.port) as proxy:
        limit = {"RATE_LIMIT": "5/hour", "RATE_LIMIT_STORAGE_URL": proxy.url(redis.url)}
        with serve(**limit) as server, httpx.Client(base_url=server.base_url, timeout=60) as client:
            assert wait_until(lambda: limited(client))
            proxy.delay = 0.05
            answers = [client.get(tasks()) for _ in range(10)]
            assert {answer.status_code for answer in answers} == {200}
            assert not [answer for answer in answers if "RateLimit" in answer.headers]
            proxy.delay = 0
            assert wait_until(lambda: client.get(tasks()).status_code == 429)


def test_it_starts_and_serves_without_its_store(redis: Redis) -> None:
    redis.kill()
    limit = {"RATE_LIMIT": "5/hour", "RATE_LIMIT_STORAGE_URL": redis.url}
    with serve(**limit) as server, httpx.Client(base_url=server.base_url, timeout=60) as client:
        assert {client.get(tasks()).status_code for _ in range(20)} == {200}
        redis.start()
        assert wait_until(lambda: client.get(tasks()).status_code == 429)

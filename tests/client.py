"""A test client for the API that asserts the usual status of each method."""

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, TypeVar

import httpx
from django.test import Client

ALICE = "a11ce000-0000-4000-8000-000000000001"
BOB = "b0b00000-0000-4000-8000-000000000002"
CHARLIE = "c4a71e00-0000-4000-8000-000000000003"
TASKS = f"/api/{ALICE}/tasks"
NOBODYS = "00000000-0000-4000-8000-00000000dead"  # the id of no task

Json = dict[str, Any]
T = TypeVar("T")


class API:
    """Talks JSON to the service, in process.

    `get`, `post`, … return the decoded body (None for an empty one) and assert the usual status of
    the method, or `expected`. Header names are given as in HTTP. `last` is the whole response. A
    string or bytes as body is sent unchanged.
    """

    last: Any  # an HttpResponse with the test client's attributes

    def __init__(self, **headers: str) -> None:
        self.client = Client(headers={name.replace("_", "-"): v for name, v in headers.items()})

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        expected: int = 200,
        *,
        headers: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Any:
        if body is None:
            body, content_type = b"", ""
        elif not isinstance(body, str | bytes):
            body = json.dumps(body)
        self.last = self.client.generic(
            method, path, body, content_type=content_type, headers=headers
        )
        content = self.last.content
        assert self.last.status_code == expected, f"{self.last.status_code}: {content[:2000]!r}"
        if expected >= 400 and method != "HEAD":
            problem = self.last.json()
            assert self.last["Content-Type"] == "application/problem+json"
            assert (problem["status"], problem["type"]) == (expected, "about:blank")
            assert problem["title"]
            assert problem["detail"]
            assert problem["code"]
        if not content:
            return None
        return json.loads(content) if "json" in self.last["Content-Type"] else content

    def get(self, path: str, expected: int = 200, **options: Any) -> Any:
        return self.request("GET", path, None, expected, **options)

    def post(self, path: str, body: Any = None, expected: int = 201, **options: Any) -> Any:
        return self.request("POST", path, body, expected, **options)

    def put(self, path: str, body: Any = None, expected: int = 200, **options: Any) -> Any:
        return self.request("PUT", path, body, expected, **options)

    def patch(self, path: str, body: Any = None, expected: int = 200, **options: Any) -> Any:
        return self.request("PATCH", path, body, expected, **options)

    def delete(self, path: str, expected: int = 204, **options: Any) -> Any:
        return self.request("DELETE", path, None, expected, **options)

    def create(self, owner: str = ALICE, title: str = "Buy milk", **fields: Any) -> Json:
        """Create a task of an owner."""
        return self.post(f"/api/{owner}/tasks", {"title": title, **fields})


SHARED = httpx.Limits(max_connections=None, keepalive_expiry=None)
"""For a client that threads share. A connection that has been idle for too long would be closed,
also when another thread is just about to use it."""


def at_once(count: int, work: Callable[[int], T]) -> list[T]:
    """The results, in order, of `work(0)`, `work(1)`, …, in `count` threads that start together."""
    start = Barrier(count)

    def begin(number: int) -> T:
        start.wait(60)
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))

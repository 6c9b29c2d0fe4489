"""Random requests, retries and races against a live server, compared with `tests.model`.

Each run is different, and takes about 10 s on each database. A failure prints the latest requests.
MODEL_SECONDS sets a longer time; a failure is then also reduced to fewer requests, for minutes.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import httpx
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from tests.client import NOBODYS, SHARED, at_once
from tests.database_plugin import open_live_server
from tests.model import Answer, Forbidden, Model, Request

SECONDS = os.environ.get("MODEL_SECONDS")
PROFILE = settings(
    phases=[Phase.generate, Phase.shrink] if SECONDS else [Phase.generate],
    max_examples=10,
    stateful_step_count=30,
    deadline=None,
    database=None,
    derandomize=False,  # under CI, Hypothesis would otherwise repeat the same run
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
ROUTES = {
    "create": ("POST", ""),
    "list": ("GET", ""),
    "get": ("GET", "/{id}"),
    "replace": ("PUT", "/{id}"),
    "patch": ("PATCH", "/{id}"),
    "set": ("PATCH", "/{id}/complete"),
    "toggle": ("PATCH", "/{id}/complete"),
    "delete": ("DELETE", "/{id}"),
}
OWNERS = 3


@dataclass(frozen=True)
class Op:
    """A request whose task and tags are chosen when it is sent."""

    verb: str
    owner: int = 0
    target: int = 0  # index into all tasks made so far
    body: Any = None
    key: str | None = None
    tags: tuple[str, ...] | None = None  # of If-Match or If-None-Match
    query: tuple[tuple[str, str], ...] = ()


def mostly(good: st.SearchStrategy[Any], *bad: Any) -> st.SearchStrategy[Any]:
    return st.integers(0, 15).flatmap(lambda n: st.sampled_from(bad) if n == 15 else good)


# Letters that both databases compare alike: SQLite folds the case of ASCII only.
text = st.text("abAB%_\\é鍵🥛", max_size=3)
values = {
    "title": mostly(text.map(lambda t: f" {t}a"), "", "  ", "a" * 256, 5, None),
    "description": mostly(st.none() | text, "a" * 2001, False),
    "is_completed": mostly(st.booleans(), None, 1, "true"),
}
# Few values, so that writes often change nothing and creates are often repeated.
few = {"title": st.sampled_from("ab"), "description": st.none(), "is_completed": st.booleans()}
extra = {"id": st.just(NOBODYS), "colour": st.just("red")}
some = st.fixed_dictionaries({}, optional=few) | st.fixed_dictionaries({}, optional=values)
full = st.fixed_dictionaries(few) | st.fixed_dictionaries(values)
sane = st.fixed_dictionaries({"title": few["title"]}, optional={"is_completed": st.booleans()})
odd = st.fixed_dictionaries({}, optional=values | extra)
keys = st.none() | st.sampled_from(["k", "K"])
known_tags = st.sampled_from(["current", "current", "stale", "weak", '"x"', "x", ""])
tags = (
    st.none()
    | known_tags.map(lambda tag: (tag,))
    | st.just(("*",))
    | st.tuples(known_tags, known_tags)
)
queries = st.fixed_dictionaries(
    {},
    optional={
        "is_completed": st.sampled_from(["true", "false"]),
        "search": st.text("abAB%_\\é", min_size=1, max_size=2),
        "ordering": st.sampled_from(
            ["-created_at", "created_at", "-updated_at", "updated_at", "title", "-title"]
        ),
        "limit": st.sampled_from(["1", "2", "3", "1000"]),
    },
).map(lambda query: tuple(query.items()))
# Pages that are often requested, so that the model sees whether their tags change.
favourites = st.sampled_from(
    [(), (("limit", "1"), ("ordering", "created_at")), (("is_completed", "true"), ("limit", "2"))]
)


def op(verb: str, **parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Op]:
    return st.builds(Op, st.just(verb), st.integers(0, OWNERS - 1), st.integers(0, 9), **parts)


creates = op("create", body=sane | sane | odd, key=keys)
reads = op("get", tags=tags) | op("list", tags=tags, query=favourites | queries)
writes = (
    op("replace", body=full | full | odd, tags=tags)
    | op("patch", body=some | some | odd, tags=tags)
    | op("set", body=st.fixed_dictionaries({"is_completed": values["is_completed"]}), tags=tags)
    | op("toggle", tags=tags)
    | op("delete", tags=tags)
)
races = st.lists(creates | writes | writes | reads, min_size=2, max_size=4)


class Tasks(RuleBasedStateMachine):
    server: str
    client: httpx.Client

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.owners = [
            str(uuid4()) for _ in range(OWNERS)
        ]  # new, so that the database need not be empty
        self.made: list[tuple[str, str]] = []  # owner, id
        self.last: Request | None = None
        self.history: list[Any] = []

    # One after the other -----------------------------------------------------------------

    @rule(op=creates)
    def create(self, op: Op) -> None:
        self.do(self.resolve(op))

    @rule(op=writes, trespass=st.integers(0, 7).map(lambda n: n == 7))
    def write(self, op: Op, trespass: bool) -> None:
        self.do(self.resolve(op, trespass))

    @rule(op=reads, trespass=st.integers(0, 7).map(lambda n: n == 7))
    def read(self, op: Op, trespass: bool) -> None:
        self.do(self.resolve(op, trespass))

    @rule()
    def send_the_last_one_again(self) -> None:
        if self.last:
            self.do(self.last)

    @rule(owner=st.integers(0, OWNERS - 1), query=queries)
    def walk(self, owner: int, query: tuple[tuple[str, str], ...]) -> None:
        """Follow `next` to the last page and `prev` back to the first."""
        params = dict(query)
        found = self.model.listed(self.owners[owner], params)
        limit = int(params.get("limit", 1000))
        expected = [found[at : at + limit] for at in range(0, len(found), limit)] or [[]]
        first = self.client.get(f"/api/{self.owners[owner]}/tasks", params=params)
        pages = self.follow(first, "next", len(expected))
        shown = [page.json() for page in pages]
        self.check(shown == expected, f"walk {params}\n  wants {expected}\n  got   {shown}")
        shown = [page.json() for page in self.follow(pages[-1], "prev", len(expected))][::-1]
        self.check(shown == expected, f"way back {params}\n  wants {expected}\n  got   {shown}")

    def follow(self, page: httpx.Response, way: str, expected: int) -> list[httpx.Response]:
        pages = [page]
        while way in pages[-1].links and len(pages) <= expected:  # one too many is enough
            pages.append(self.client.get(pages[-1].links[way]["url"]))
        return pages

    # All at once -------------------------------------------------------------------------

    @rule(ops=races, together=st.booleans(), same=st.booleans())
    def race(self, ops: list[Op], together: bool, same: bool) -> None:
        first = ops[0]
        if same:  # a retry that overtakes
            ops = [first] * len(ops)
        elif together:
            ops = [replace(op, owner=first.owner, target=first.target) for op in ops]
        requests = [self.resolve(op) for op in ops]
        answers = at_once(len(requests), lambda number: self.ask(requests[number]))
        exchanges = list(zip(requests, answers, strict=True))
        self.history.append(["at once", *exchanges])
        for owner in {request.owner for request in requests}:
            everything = Request("list", owner)
            then = (everything, self.ask(everything))
            self.history.append(then)
            # Owners do not affect each other, so the race is checked for each owner alone.
            own = [exchange for exchange in exchanges if exchange[0].owner == owner]
            after = self.model.take_at_once(own, then)
            self.check(after is not None, "no order of the requests gives these answers")
            self.model = after or self.model
        for exchange in exchanges:
            self.note_made(*exchange)

    # How it is done ----------------------------------------------------------------------

    def resolve(self, op: Op, trespass: bool = False) -> Request:
        if op.verb in ("create", "list"):
            at = (self.owners[op.owner], "")
        elif self.made:
            at = self.made[op.target % len(self.made)]
        else:
            at = (self.owners[op.owner], NOBODYS)
        known = self.model.tags.get(at) or ('"none"',)
        if op.verb == "list":
            page = (at[0], *sorted(op.query))
            known = tuple(tag for (of, tag) in self.model.pages if of == page and tag[0] == '"')
            known = known or ('"none"',)
        words = {"current": known[-1], "stale": known[0], "weak": f"W/{known[-1]}"}
        tags = op.tags and tuple(words.get(tag, tag) for tag in op.tags)
        name = "if_none_match" if op.verb in ("get", "list") else "if_match"
        owner = self.owners[(self.owners.index(at[0]) + trespass) % OWNERS]
        return Request(op.verb, owner, at[1], op.body, op.key, query=dict(op.query), **{name: tags})

    def do(self, request: Request) -> None:
        exchange = (request, self.ask(request))
        self.last = request
        self.history.append(exchange)
        try:
            self.model.take(*exchange)
        except Forbidden as error:
            self.check(False, str(error))
        self.note_made(*exchange)

    def ask(self, request: Request) -> Answer:
        method, suffix = ROUTES[request.verb]
        headers = {
            "Idempotency-Key": request.key and [request.key],
            "If-Match": request.if_match,
            "If-None-Match": request.if_none_match,
        }
        response = self.client.request(
            method,
            f"/api/{request.owner}/tasks{suffix.format(id=request.id)}",
            params=dict(request.query),
            headers={name: ",".join(of) for name, of in headers.items() if of is not None},
            **({} if request.body is None else {"json": request.body}),
        )
        status = response.status_code
        body: Any = response.json() if response.content else None
        return Answer(
            status,
            body if status < 300 else None,
            code=body["code"] if status >= 400 else None,
            tag=response.headers.get("ETag"),
            location=response.headers.get("Location"),
            links=frozenset(map(str, response.links if status == 200 else ())),
        )

    def note_made(self, request: Request, answer: Answer) -> None:
        if request.verb == "create" and answer.status == 201:
            at = (request.owner, answer.body["id"])
            if at not in self.made:
                self.made.append(at)

    def check(self, truth: bool, message: str) -> None:
        if not truth:
            lines = "\n".join(map(str, self.history[-15:]))
            raise AssertionError(f"{message}\nThe latest requests and answers:\n{lines}")


@pytest.fixture(params=["postgresql", "sqlite"])
def client(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> Iterator[httpx.Client]:
    caplog.set_level("WARNING", "httpx")  # logging a request costs more than the request
    with (
        open_live_server(request.param) as server,
        httpx.Client(base_url=server.base_url, timeout=60, limits=SHARED) as client,
    ):
        yield client


@pytest.mark.live
def test_the_model_explains_every_answer(client: httpx.Client) -> None:
    machine = type("Tasks", (Tasks,), {"client": client})
    end = time.monotonic() + float(SECONDS or 10)
    while time.monotonic() < end:
        run_state_machine_as_test(machine, settings=PROFILE)

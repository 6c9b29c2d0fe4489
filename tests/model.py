"""The contract for tasks (docs/api.md) as a plain Python model, without HTTP, SQL or concurrency.

`Model.take(request, answer)` checks an answer and applies the request to the model's state.
Values that only the server can choose (ids, times, tags) are taken from the answer once checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.models import Task

TaskKey = tuple[str, str]  # owner, id
Json = dict[str, Any]

WRITABLE = ("title", "description", "is_completed")
READ_ONLY = ("id", "user_id", "created_at", "updated_at")


class Brief:
    """Shows only values that are not the default: a failure prints many requests."""

    def __repr__(self) -> str:
        return " ".join(f"{name}={value!r}" for name, value in vars(self).items() if value)


@dataclass(frozen=True, repr=False)
class Request(Brief):
    verb: str  # create, list, get, replace, patch, toggle, set or delete
    owner: str
    id: str = ""
    body: Any = None
    key: str | None = None  # Idempotency-Key
    if_match: tuple[str, ...] | None = None
    if_none_match: tuple[str, ...] | None = None
    query: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Answer(Brief):
    status: int
    body: Any = None  # of a success
    code: str | None = None  # of an error
    tag: str | None = None
    location: str | None = None
    links: frozenset[str] = frozenset()


Exchange = tuple[Request, Answer]
Tasks = list[Json]  # in Model, `list` is a verb


class Forbidden(AssertionError):
    """The contract does not allow this answer."""


def demand(truth: bool, rule: str) -> None:
    if not truth:
        raise Forbidden(rule)


class Model:
    def __init__(self) -> None:
        # Their values are replaced and never changed, so a shallow copy suffices.
        self.tasks: dict[TaskKey, Json] = {}
        self.tags: dict[TaskKey, tuple[str, ...]] = {}  # all so far, of deleted tasks as well
        self.keys: dict[tuple[str, str], tuple[Json, str]] = {}  # payload, id of the task
        self.pages: dict[Any, Any] = {}  # content by tag, and tag by content

    def take(self, request: Request, answer: Answer) -> None:
        """Apply the request; raises `Forbidden` if the contract does not allow the answer."""
        expected = getattr(self, request.verb)(request, answer)
        demand(answer == expected, f"{request}\n  wants {expected}\n  got   {answer}")

    def take_at_once(self, exchanges: Sequence[Exchange], then: Exchange) -> Model | None:
        """The state after requests made all at once, and `then` one more; None if no order of
        them gives these answers."""
        for n, exchange in enumerate(exchanges or [then]):
            after = Model()
            vars(after).update({name: dict(held) for name, held in vars(self).items()})
            try:
                after.take(*exchange)
            except Forbidden:
                continue
            if not exchanges:
                return after
            if end := after.take_at_once([*exchanges[:n], *exchanges[n + 1 :]], then):
                return end
        return None

    # The operations: each returns the expected answer ---------------------------------------

    def create(self, request: Request, answer: Answer) -> Answer:
        payload = valid(request.body, {"description": None, "is_completed": False})
        if payload is None:
            return Answer(422, code="validation_error")
        key = (request.owner, request.key or "")
        if request.key and key in self.keys:
            first, id = self.keys[key]
            if payload != first:
                return Answer(422, code="idempotency_key_reused")
            return self.shown(201, (request.owner, id), location=True)
        demand(answer.status == 201, f"a create gives 201, not {answer}")
        made = answer.body
        at = (request.owner, made["id"])
        demand(all(made["id"] != id for _, id in self.tags), "an id is new")
        demand(made["created_at"] == made["updated_at"], "a new task has not been changed")
        self.tasks[at] = {
            **Task.resource.defaults,  # of fields that no request sets
            **payload,
            "id": made["id"],
            "user_id": request.owner,
            "created_at": made["created_at"],
            "updated_at": made["created_at"],
        }
        self.tags[at] = (str(answer.tag),)
        if request.key:
            self.keys[key] = (payload, made["id"])
        return self.shown(201, at, location=True)

    def get(self, request: Request, answer: Answer) -> Answer:
        at = (request.owner, request.id)
        if at not in self.tasks:
            return Answer(404, code="not_found")
        tag = self.tags[at][-1]
        if weakly_matches(request.if_none_match, tag):
            return Answer(304, tag=tag)
        return self.shown(200, at)

    def replace(self, request: Request, answer: Answer) -> Answer:
        return self.change(request, answer, valid(request.body, {}))

    def patch(self, request: Request, answer: Answer) -> Answer:
        return self.change(request, answer, valid(request.body, None))

    def set(self, request: Request, answer: Answer) -> Answer:
        values = valid(request.body, None, ("is_completed",))
        return self.change(request, answer, values or None)

    def toggle(self, request: Request, answer: Answer) -> Answer:
        task = self.tasks.get((request.owner, request.id), {"is_completed": None})
        return self.change(request, answer, {"is_completed": not task["is_completed"]})

    def delete(self, request: Request, answer: Answer) -> Answer:
        at = (request.owner, request.id)
        if refusal := self.refusal(request):
            return refusal
        del self.tasks[at]
        self.keys = {key: made for key, made in self.keys.items() if (key[0], made[1]) != at}
        return Answer(204)

    def list(self, request: Request, answer: Answer) -> Answer:
        limit = int(request.query.get("limit", 1000))
        found = self.listed(request.owner, request.query)
        body, links = found[:limit], frozenset({"next"} if found[limit:] else ())
        page = (request.owner, *sorted(request.query.items()))
        tag, content = str(answer.tag), f"{body}, {sorted(links)}"
        demand(self.pages.get((page, tag), content) == content, "a page has its own tag")
        demand(self.pages.get((page, content), tag) == tag, "what is unchanged keeps its tag")
        if weakly_matches(request.if_none_match, tag):
            return Answer(304, tag=tag)
        # Not before: during a race the tag of a page not shown may be that of several contents.
        self.pages |= {(page, tag): content, (page, content): tag}
        return Answer(200, body, tag=tag, links=links)

    # What they share ------------------------------------------------------------------------

    def change(self, request: Request, answer: Answer, values: Json | None) -> Answer:
        if values is None:
            return Answer(422, code="validation_error")
        if refusal := self.refusal(request):
            return refusal
        at = (request.owner, request.id)
        before = self.tasks[at]
        if {**before, **values} != before:
            demand(answer.status == 200, f"a change gives 200, not {answer}")
            moment = answer.body["updated_at"]
            demand(moment > before["updated_at"], "updated_at rises")
            demand(answer.tag not in self.tags[at], "a change has a new tag")
            self.tasks[at] = {**before, **values, "updated_at": moment}
            self.tags[at] += (str(answer.tag),)
        return self.shown(200, at)

    def refusal(self, request: Request) -> Answer | None:
        at = (request.owner, request.id)
        if at not in self.tasks:
            return Answer(404, code="not_found")
        tag = self.tags[at][-1]
        if request.if_match not in (None, ("*",)) and tag not in (request.if_match or ()):
            return Answer(412, code="precondition_failed", tag=tag)
        return None

    def shown(self, status: int, at: TaskKey, location: bool = False) -> Answer:
        path = f"/api/{at[0]}/tasks/{at[1]}" if location else None
        return Answer(status, self.tasks[at], tag=self.tags[at][-1], location=path)

    def listed(self, owner: str, query: Mapping[str, str]) -> Tasks:
        """All tasks of a list, in order."""
        tasks = [task for (of, _), task in self.tasks.items() if of == owner]
        if "is_completed" in query:
            tasks = [t for t in tasks if t["is_completed"] is (query["is_completed"] == "true")]
        if "search" in query:
            word = query["search"].lower()
            texts = ("title", "description")
            tasks = [t for t in tasks if any(word in (t[name] or "").lower() for name in texts)]
        ordering = query.get("ordering", "-created_at")
        name = ordering.removeprefix("-")
        return sorted(tasks, key=lambda t: (t[name], t["id"]), reverse=ordering != name)


def valid(body: Any, defaults: Json | None, names: Sequence[str] = WRITABLE) -> Json | None:
    """The values of a body, or None if it is invalid. Without `defaults` all are optional."""
    if not isinstance(body, dict) or set(body) - {*names, *READ_ONLY}:
        return None
    values = {**(defaults or {}), **{name: body[name] for name in names if name in body}}
    if defaults is not None and set(values) != set(names):
        return None
    if "title" in values:
        if not isinstance(values["title"], str):
            return None
        values["title"] = values["title"].strip()
        if not 1 <= len(values["title"]) <= 255:
            return None
    description = values.get("description")
    if description is not None and not (isinstance(description, str) and len(description) <= 2000):
        return None
    return values if isinstance(values.get("is_completed", True), bool) else None


def weakly_matches(tags: tuple[str, ...] | None, tag: str) -> bool:
    return tags is not None and (tags == ("*",) or tag in {t.removeprefix("W/") for t in tags})

"""ETags and conditional requests (RFC 9110 sections 8.8.3 and 13.1).

A task's tag is its `updated_at` and a version of what is returned. It changes with every change of
the task, so it is strong, and a writing statement can compare it without reading the task first.
"""

import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple, Self

from django.http import HttpRequest
from django.utils.http import parse_etags

from tasks.models import NO_PRECONDITIONS, Preconditions, Task
from todo_project.api.fields import DateTimeField

VERSION = Task.resource.version

_parse = re.compile(f'"({DateTimeField.RETURNED[1:-1]})-{VERSION}"').fullmatch


def task_etag(task: Mapping[str, Any]) -> str:
    return f'"{task["updated_at"]}-{VERSION}"'


def page_etag(body: bytes, links: str) -> str:
    """The tag of a page: it changes exactly when the body or the links do."""
    hashed = hashlib.sha256(body)
    hashed.update(links.encode())
    return f'"{hashed.hexdigest()[:32]}"'


class Conditions(NamedTuple):
    """The tags in a request's If-Match, None for any, and in its If-None-Match.

    Weak tags match in If-None-Match alone.
    """

    match: list[str] | None
    none_match: list[str]

    @classmethod
    def of(cls, request: HttpRequest) -> Self:
        match = request.META.get("HTTP_IF_MATCH", "*").strip()
        none_match = request.META.get("HTTP_IF_NONE_MATCH")
        return cls(
            None if match == "*" else parse_etags(match),
            [tag.removeprefix("W/") for tag in parse_etags(none_match)] if none_match else [],
        )

    def if_match_fails(self, current: str) -> bool:
        return self.match is not None and current not in self.match

    def if_none_match_fails(self, current: str) -> bool:
        return self.none_match == ["*"] or current in self.none_match

    def preconditions(self) -> Preconditions | None:
        """What a write asks of the task's `updated_at`; None if no task can meet it.

        Anything that does not have the form of our tags matches nothing, and is left out.
        """
        if self.none_match == ["*"]:
            return None
        if self == (None, []):
            return NO_PRECONDITIONS
        return Preconditions(
            None if self.match is None else _times(self.match), _times(self.none_match) or None
        )


def _times(tags: list[str]) -> list[datetime]:
    times = []
    for tag in tags:
        if found := _parse(tag):
            with suppress(ValueError):  # 30 February
                times.append(datetime.fromisoformat(found[1]))
    return times

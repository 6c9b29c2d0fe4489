"""Rate limits, which settings.py installs if RATE_LIMIT is set.

The fields RateLimit-Policy and RateLimit are those of draft-ietf-httpapi-ratelimit-headers-10.
"""

from collections.abc import Callable, Sequence
from math import ceil
from operator import attrgetter
from typing import Any
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from limits import parse_many
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from todo_project.api.problems import Problem
from todo_project.auth.bearer import BearerAuthentication, Owner
from todo_project.auth.client import address
from todo_project.auth.counters import Limit, ProcessCounters, SharedCounters

FAILURE_SHARE = 10
"""A client address may fail to authenticate a tenth as often as an owner may send requests."""


class Limiter:
    """Limits that are counted together, under a name that is unique."""

    def __init__(
        self, name: str, limits: Sequence[Limit], counters: ProcessCounters | SharedCounters
    ) -> None:
        self._name, self._limits, self._counters = name, limits, counters
        self._policies = [f'"{name}-{limit.seconds}s"' for limit in limits]
        self._policy_field = ", ".join(
            f"{policy};q={limit.amount};w={limit.seconds}"
            for policy, limit in zip(self._policies, limits, strict=True)
        )

    def hit(self, request: HttpRequest, client: UUID | str) -> None:
        """Count the request, note the response's fields. Raises Problem (RFC 6585 section 4).

        Does nothing while the store is unavailable.
        """
        fields, waits = [], []
        states = self._counters.count(self._limits, (self._name, client))
        for policy, (acquired, remaining, reset) in zip(self._policies, states, strict=False):
            seconds = ceil(reset)
            fields.append(f"{policy};r={remaining};t={seconds}")
            if not acquired:
                waits.append(max(1, seconds))
        if fields:
            request.rate_limit = self._policy_field, ", ".join(fields)  # type: ignore[attr-defined]
        if waits:
            raise Problem("rate_limited", headers={"Retry-After": str(max(waits))})


def limiters() -> tuple[Limiter, Limiter]:
    """The limiters of requests, and of failures to authenticate."""
    url = settings.RATE_LIMIT_STORAGE_URL
    processes = 1 if url else settings.WEB_CONCURRENCY
    counters = SharedCounters(url) if url else ProcessCounters()
    limits = [
        Limit(max(1, item.amount // processes), item.get_expiry())
        for item in parse_many(settings.RATE_LIMIT or "")
    ]
    amount, seconds = min(limits, key=attrgetter("seconds"))
    failures = Limit(max(1, amount // FAILURE_SHARE), seconds)
    return Limiter("requests", limits, counters), Limiter("failures", [failures], counters)


requests, failures = limiters()


class OwnerThrottle(BaseThrottle):
    """Limits the requests of an owner, or of a client address with AUTH_MODE=none.

    REST framework asks it after authentication and permissions.
    """

    def allow_request(self, request: Request, view: Any) -> bool:
        owner: Any = request.user
        requests.hit(request._request, owner.id if owner else address(request._request))
        return True


class LimitedAuthentication(BearerAuthentication):
    """Limits the failures of a client address. Its valid tokens are not affected."""

    def authenticate(self, request: Request) -> tuple[Owner, str] | None:
        try:
            return super().authenticate(request)
        except Problem as problem:
            if problem.status_code == 401:
                failures.hit(request._request, address(request._request))
            raise


class RateLimitMiddleware:
    """Adds the fields to every response to a request that was counted."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        if (fields := getattr(request, "rate_limit", None)) is not None:
            response["RateLimit-Policy"], response["RateLimit"] = fields
        return response

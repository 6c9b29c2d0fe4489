"""Rate limits, which settings.py installs if RATE_LIMIT is set.

The fields RateLimit-Policy and RateLimit are those of draft-ietf-httpapi-ratelimit-headers-10.
"""

import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from limits import RateLimitItem, parse_many
from rest_framework.exceptions import AuthenticationFailed, NotAuthenticated
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from todo_project.api.problems import ProblemException
from todo_project.auth.bearer import BearerAuthentication, Owner
from todo_project.auth.client import address
from todo_project.auth.counters import ProcessCounters, SharedCounters

if TYPE_CHECKING:  # rest_framework.views itself imports this module, for its default
    from rest_framework.views import APIView

FAILURE_SHARE = 10
"""A client address may fail to authenticate a tenth as often as an owner may send requests."""


class RateLimited(ProblemException):
    """RFC 6585 section 4."""

    status_code = 429
    default_detail = "Too many requests. Wait for the seconds in Retry-After."
    default_code = "rate_limited"


class Limiter:
    """Limits that are counted together, under a name that is unique."""

    def __init__(
        self, name: str, limits: Sequence[RateLimitItem], counters: ProcessCounters | SharedCounters
    ) -> None:
        self._name, self._limits, self._counters = name, limits, counters
        self._policies = [f'"{name}-{limit.get_expiry()}s"' for limit in limits]
        self._policy_field = ", ".join(
            f"{policy};q={limit.amount};w={limit.get_expiry()}"
            for policy, limit in zip(self._policies, limits, strict=True)
        )

    def hit(self, request: HttpRequest, key: str) -> None:
        """Count the request and note the fields of its response. Raises RateLimited.

        Does nothing while the store is unavailable.
        """
        states, waits = [], []
        windows = self._counters.count(self._limits, f"{self._name}/{key}")
        for policy, limit, window in zip(self._policies, self._limits, windows, strict=False):
            seconds = ceil(window.reset(limit))
            states.append(f"{policy};r={window.remaining(limit)};t={seconds}")
            if not window.acquired:
                waits.append(max(1, seconds))
        if states:
            request.rate_limit_fields = {  # type: ignore[attr-defined]
                "RateLimit-Policy": self._policy_field,
                "RateLimit": ", ".join(states),
            }
        if waits:
            raise RateLimited(headers={"Retry-After": str(max(waits))})


_lock = threading.Lock()


def limiters() -> tuple[Limiter, Limiter]:
    """The process's limiters of requests and of failures to authenticate."""
    with _lock:  # one set of counters, also for the first requests
        return _limiters(
            settings.RATE_LIMIT, settings.RATE_LIMIT_STORAGE_URL, settings.WEB_CONCURRENCY
        )


@lru_cache(maxsize=4)
def _limiters(rates: str, storage_url: str | None, processes: int) -> tuple[Limiter, Limiter]:
    def share(limit: RateLimitItem, divisor: int) -> RateLimitItem:
        return type(limit)(max(1, limit.amount // divisor), limit.multiples)

    counters = SharedCounters(storage_url) if storage_url else ProcessCounters()
    limits = [share(limit, 1 if storage_url else processes) for limit in parse_many(rates)]
    shortest = min(limits, key=RateLimitItem.get_expiry)
    return (
        Limiter("requests", limits, counters),
        Limiter("failures", [share(shortest, FAILURE_SHARE)], counters),
    )


class OwnerThrottle(BaseThrottle):
    """Limits the requests of an owner, or of a client address with AUTH_MODE=none.

    REST framework asks it after authentication and permissions.
    """

    def allow_request(self, request: Request, view: "APIView") -> bool:
        requests, _ = limiters()
        owner = request.user
        requests.hit(request._request, str(owner.id) if owner else address(request._request))
        return True


class LimitedAuthentication(BearerAuthentication):
    """Limits the failures of a client address. Its valid tokens are not affected."""

    def authenticate(self, request: Request) -> tuple[Owner, str] | None:
        try:
            return super().authenticate(request)
        except (NotAuthenticated, AuthenticationFailed):
            _, failures = limiters()
            failures.hit(request._request, address(request._request))
            raise


class RateLimitMiddleware:
    """Adds the fields to every response to a request that was counted."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        for name, value in getattr(request, "rate_limit_fields", {}).items():
            response[name] = value
        return response

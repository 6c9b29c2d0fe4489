"""What a request was and took: a line in the log, and the metrics."""

from collections.abc import Callable
from datetime import UTC, datetime
from time import perf_counter
from uuid import UUID

import orjson
from django.conf import settings
from django.http import HttpRequest, HttpResponseBase

from todo_project import logs
from todo_project.api.problems import MEDIA_TYPE
from todo_project.database.deadline import usage


class ObserveMiddleware:
    """The outermost, where ACCESS_LOG or METRICS_PORT is set; else it is not there at all."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        started = perf_counter()
        usage.reset()
        response = self.get_response(request)
        seconds = perf_counter() - started
        match = request.resolver_match
        route = match and f"/{match.route}"
        code = problem_code(response) if response.status_code >= 400 else None
        if settings.ACCESS_LOG:
            logs.write_request(
                {
                    "time": datetime.now(UTC),
                    "level": "INFO",
                    "logger": "access",
                    "request_id": response.headers.get("X-Request-ID"),
                    "method": request.method,
                    "route": route,
                    "status": response.status_code,
                    "code": code,
                    "duration_ms": round(seconds * 1000, 3),
                    "bytes": None if response.streaming else len(response.content),
                    "owner": owner(request),
                    "database_ms": round(usage.seconds * 1000, 3),
                    "round_trips": usage.round_trips,
                    "retries": usage.retries,
                    "breaker": usage.breaker or None,
                }
            )
        return response


def problem_code(response: HttpResponseBase) -> str | None:
    """The `code` of a problem (RFC 9457), whoever made the response; None for a page."""
    data = getattr(response, "data", None)
    if data is None and response.get("Content-Type") == MEDIA_TYPE and not response.streaming:
        data = orjson.loads(response.content or b"{}")  # HEAD has none
    return data.get("code") if isinstance(data, dict) else None


def owner(request: HttpRequest) -> UUID | None:
    """The token's subject, or else the user of the path, who may be anybody's claim."""
    kwargs = request.resolver_match.kwargs if request.resolver_match else {}
    if "user_id" not in kwargs:
        return None
    subject = getattr(getattr(request, "user", None), "id", None)
    named = subject or kwargs["user_id"]
    return named if isinstance(named, UUID) else None

"""What a request was and took: a line in the log, and the metrics."""

from collections.abc import Callable
from datetime import UTC, datetime
from time import perf_counter
from uuid import UUID

import orjson
from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from todo_project import logs
from todo_project.api.problems import MEDIA_TYPE
from todo_project.database.deadline import usage

if settings.METRICS_PORT:
    from todo_project import metrics


class ObserveMiddleware:
    """The outermost, where ACCESS_LOG or METRICS_PORT is set; else it is not there at all."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response
        # To read a setting takes 2,000 instructions.
        self.logs = settings.ACCESS_LOG
        self.line = logs.plain_line if settings.DEBUG else orjson.dumps
        self.counts = bool(settings.METRICS_PORT)

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        started = perf_counter()
        usage.reset()
        if self.counts:
            metrics.begin()
        response = self.get_response(request)
        seconds = perf_counter() - started
        match = request.resolver_match
        route = f"/{match.route}" if match else None
        status = response.status_code
        code = problem_code(response) if status >= 400 else None
        if self.counts:
            metrics.end(route or "unmatched", str(request.method), status, code, seconds)
        if self.logs:
            fields = {
                "time": datetime.now(UTC),
                "level": "INFO",
                "logger": "access",
                "request_id": response.headers.get("X-Request-ID"),
                "method": request.method,
                "route": route,
                "status": status,
                "code": code,
                "duration_ms": milliseconds(seconds),
                "bytes": len(response.content) if isinstance(response, HttpResponse) else None,
                "owner": owner(request),
                "database_ms": milliseconds(usage.seconds),
                "round_trips": usage.round_trips,
                "retries": usage.retries,
                "breaker": usage.breaker or None,
            }
            logs.write(self.line(fields))
        return response


def milliseconds(seconds: float) -> float:
    """To the microsecond; round() takes five times as long."""
    return int(seconds * 1e6) / 1e3


def problem_code(response: HttpResponseBase) -> str | None:
    """The `code` of a problem (RFC 9457), wherever it was made; None for a page."""
    data = getattr(response, "data", None)
    if data is None and response.get("Content-Type") == MEDIA_TYPE:
        assert isinstance(response, HttpResponse)
        data = orjson.loads(response.content or b"{}")  # HEAD has none
    return data.get("code") if isinstance(data, dict) else None


def owner(request: HttpRequest) -> UUID | None:
    """The token's subject, or else the user of the path, which anyone can claim."""
    named = request.resolver_match.kwargs.get("user_id") if request.resolver_match else None
    if named is None:  # the admin has its own users, and to fetch one takes a query
        return None
    subject = getattr(request, "user", None)
    named = named if subject is None else subject.id
    return named if isinstance(named, UUID) else None

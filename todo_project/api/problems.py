"""Problem details for HTTP APIs (RFC 9457), the form of every error.

`exception_handler` is for REST framework's exceptions. The views named in urls.py as `handler…`
are for Django's (an unknown URL, a bad request outside any view, an unhandled exception). The
middleware calls the other functions.
"""

import logging
import sys
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, TypedDict

import orjson
from django.conf import settings
from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from rest_framework import exceptions
from rest_framework.response import Response

from todo_project import logs
from todo_project.database.errors import (
    OutcomeUnknown,
    Unavailable,
    is_unavailable,
    unavailable_reason,
)

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

# RFC 9110 has renamed these; Python did so in 3.13.
_RENAMED = {413: "Content Too Large", 422: "Unprocessable Content"}

CHALLENGE = 'Bearer realm="tasks"'

RETRY_AFTER = 2
"""Seconds that a client is asked to wait after a 503."""


class FieldError(TypedDict):
    field: str
    code: str
    detail: str


def field_error(field: str, code: str, detail: str) -> FieldError:
    return {"field": field, "code": code, "detail": detail}


class ProblemException(exceptions.APIException):
    """An error of the API.

    `errors` names the fields or parameters at fault; `headers` go with the response.
    """

    def __init__(
        self,
        detail: str | None = None,
        code: str | None = None,
        errors: Iterable[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail, code)
        self.errors = list(errors)
        self.headers = headers or {}


class BadRequest(ProblemException):
    status_code = HTTPStatus.BAD_REQUEST


class Conflict(ProblemException):
    status_code = HTTPStatus.CONFLICT


class EncodedContent(ProblemException):
    """RFC 9110 section 15.5.16: the body has a Content-Encoding."""

    status_code = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    default_detail = "The body has a Content-Encoding: send it without one."
    default_code = "unsupported_media_type"

    def __init__(self) -> None:
        super().__init__(headers={"Accept-Encoding": "identity"})  # RFC 9110 section 12.5.3


class PreconditionFailed(ProblemException):
    """RFC 9110 section 13.1. `headers` should have the current ETag."""

    status_code = HTTPStatus.PRECONDITION_FAILED
    default_detail = (
        "The precondition in If-Match or If-None-Match is not met; ETag has the current tag."
    )
    default_code = "precondition_failed"


class Invalid(ProblemException):
    status_code = HTTPStatus.UNPROCESSABLE_ENTITY
    default_detail = "The body is invalid. See errors."
    default_code = "validation_error"


class ServiceUnavailable(ProblemException):
    status_code = HTTPStatus.SERVICE_UNAVAILABLE
    default_code = "database_unavailable"

    def __init__(self, detail: str, code: str | None = None) -> None:
        super().__init__(detail, code, headers={"Retry-After": str(RETRY_AFTER)})


def title(status: int) -> str:
    return _RENAMED.get(status) or HTTPStatus(status).phrase


def body(
    status: int, code: str, detail: str, errors: Iterable[FieldError] = (), **extra: str
) -> dict[str, Any]:
    """The problem object. `extra` are extension members (RFC 9457 section 3.2)."""
    problem: dict[str, Any] = {
        "type": "about:blank",
        "title": title(status),
        "status": status,
        "detail": detail,
        "code": code,
        **extra,
    }
    if errors:
        problem["errors"] = errors
    return problem


def response(
    status: int, code: str, detail: str, headers: Mapping[str, str] | None = None, **extra: str
) -> HttpResponse:
    return HttpResponse(
        orjson.dumps(body(status, code, detail, (), **extra)),
        headers={"Content-Type": MEDIA_TYPE, **(headers or {})},
        status=status,
        reason=title(status),
    )


def exception_handler(error: Exception, context: Mapping[str, Any]) -> Response | None:
    """REST framework's hook. None for an exception that Django is to handle."""
    if isinstance(error, Http404):
        error = exceptions.NotFound()
    elif isinstance(error, DjangoPermissionDenied):
        error = exceptions.PermissionDenied()
    elif not isinstance(error, exceptions.APIException):
        return None
    code = error.get_codes()
    assert isinstance(code, str), "REST framework's own validation errors are not in use"
    headers = dict(getattr(error, "headers", {}))
    if isinstance(error, exceptions.MethodNotAllowed):
        headers["Allow"] = ", ".join(context["view"].allowed_methods)
    if isinstance(error, exceptions.NotAuthenticated | exceptions.AuthenticationFailed):
        headers["WWW-Authenticate"] = challenge(error)
    if error.status_code >= 500:
        logger.error("%s: %s", code, error.__cause__ or error.detail)
    result = Response(
        body(error.status_code, code, str(error.detail), getattr(error, "errors", ())),
        status=error.status_code,
        headers=headers,
    )
    renderer = getattr(context["request"], "accepted_renderer", None)
    if renderer is None or renderer.format == "json":
        result.content_type = MEDIA_TYPE
    result.reason_phrase = title(error.status_code)
    result._has_been_logged = True  # type: ignore[attr-defined]
    return result


def challenge(error: exceptions.APIException) -> str:
    """`WWW-Authenticate` (RFC 6750 section 3): no error code where no token was sent."""
    if isinstance(error, exceptions.NotAuthenticated):
        return CHALLENGE
    description = str(error.detail).replace("\\", "").replace('"', "'")
    return f'{CHALLENGE}, error="invalid_token", error_description="{description}"'


def unavailable(error: Exception) -> HttpResponse:
    """503 for a database that is away, refuses or is too busy; logs the cause, once.

    `detail` says what state the database is in, and the code tells a write that was not done from
    one that may have been.
    """
    cause = str(error).strip().replace("\n", " ")
    logger.error("database unavailable: %s: %s", type(error).__name__, cause)
    if isinstance(error, OutcomeUnknown):
        code = "outcome_unknown"
        detail = (
            "The connection to the database broke. The change may have been made, or not. Read "
            "before you send it again, or send it with an Idempotency-Key or If-Match."
        )
    else:
        reason = error if isinstance(error, Unavailable) else unavailable_reason(error)
        code, detail = "database_unavailable", f"{reason}. Nothing was changed."
    result = response(503, code, detail, {"Retry-After": str(RETRY_AFTER)})
    result._has_been_logged = True  # type: ignore[attr-defined]
    return result


def content_too_large() -> HttpResponse:
    return response(413, "content_too_large", "The body is too large.")


def method_not_allowed(allow: str) -> HttpResponse:
    """405 where no view of REST framework answers; `allow` as in the header."""
    return response(405, "method_not_allowed", f"Allowed are {allow}.", {"Allow": allow})


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return response(400, "bad_request", "The request is malformed.")


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    return response(403, "permission_denied", "You may not do this.")


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    return response(403, "csrf_failed", f"CSRF check failed. {reason}")


def locked_out(request: HttpRequest, original: object, credentials: object) -> HttpResponse:
    """429 for too many wrong passwords at the admin's login (django-axes' hook)."""
    retry = {"Retry-After": str(round(settings.AXES_COOLOFF_TIME * 3600))}
    return response(429, "too_many_attempts", "Too many wrong passwords. Try again later.", retry)


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return response(404, "not_found", "There is no such URL.")


def server_error(request: HttpRequest) -> HttpResponse:
    """500. The `request_id` finds the log line; the body says nothing else about the cause."""
    error = sys.exc_info()[1]
    if error is not None and is_unavailable(error):
        # In a middleware after the view, where the admin's session is saved.
        return unavailable(OutcomeUnknown(str(error)))
    return response(
        500,
        "internal_error",
        "The service failed; the request_id finds the log line.",
        request_id=logs.current.request_id,
    )

"""Problem details for HTTP APIs (RFC 9457), the form of every error.

`exception_handler` is for REST framework's exceptions. The views named in urls.py as `handler…`
are for Django's (an unknown URL, a bad request outside any view, an unhandled exception). The
middleware calls the other functions.
"""

import logging
import sys
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
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


CODES: dict[str, tuple[int, str]] = {}
"""Of each `code` the status and the `detail`, a format string."""


def declare(status: int, **details: str) -> None:
    """Add codes to `CODES`. An error is stated once, for the response and the OpenAPI document."""
    CODES.update((code, (status, detail)) for code, detail in details.items())


declare(
    400,
    bad_request="The request is malformed.",
    incomplete_body="The body is malformed, or ended before its announced length.",
    invalid_host="The Host header is not allowed.",
    malformed_id="{name} in the path is not a UUID.",
    parse_error="The body is not JSON, or exceeds its limits: {error}.",
)
declare(401, not_authenticated="A bearer token is required.")
declare(401, invalid_token="{reason}")  # noqa: S106
declare(403, permission_denied="The token is for another user.")
declare(403, csrf_failed="CSRF check failed. {reason}")
declare(404, not_found="There is no such URL.")
declare(405, method_not_allowed="Allowed are {allow}.")
declare(406, not_acceptable="This URL answers in {media_types}.")
declare(
    412,
    precondition_failed=(
        "The precondition in If-Match or If-None-Match is not met; ETag has the current tag."
    ),
)
declare(413, content_too_large="The body is too large.")
declare(415, unsupported_media_type='Unsupported media type "{media_type}" in request.')
declare(422, validation_error="The body is invalid. See errors.")
declare(
    429,
    rate_limited="Too many requests. Wait for the seconds in Retry-After.",
    too_many_attempts="Too many wrong passwords. Try again later.",
)
declare(500, internal_error="The service failed; the request_id finds the log line.")
declare(
    503,
    database_unavailable="{reason}. Nothing was changed.",
    issuer_unavailable="The token issuer's keys are unavailable.",
    outcome_unknown=(
        "The connection to the database broke. The change may have been made, or not. Read before "
        "you send it again, or send it with an Idempotency-Key or If-Match."
    ),
)


class Problem(exceptions.APIException):
    """An error by its code.

    `values` and `errors` fill in the declared `detail`, unless another one is given. `errors` names
    the fields or parameters at fault, `extension` has members of the body besides the usual ones
    (RFC 9457 section 3.2), and `headers` go with the response.
    """

    def __init__(
        self,
        code: str,
        detail: str | None = None,
        *,
        errors: Sequence[FieldError] = (),
        extension: Mapping[str, str] = MappingProxyType({}),
        headers: Mapping[str, str] = MappingProxyType({}),
        **values: Any,
    ) -> None:
        self.code = code
        self.status_code, declared = CODES[code]
        super().__init__(detail or declared.format(errors=errors, **values), code)
        self.errors, self.extension, self.headers = errors, extension, dict(headers)
        if self.status_code == 401:
            self.headers["WWW-Authenticate"] = challenge(code, str(self.detail))
        elif self.status_code == 503:
            self.headers["Retry-After"] = str(RETRY_AFTER)


def challenge(code: str, detail: str) -> str:
    """`WWW-Authenticate` (RFC 6750 section 3): no error code where no token was sent."""
    if code == "not_authenticated":
        return CHALLENGE
    description = detail.replace("\\", "").replace('"', "'")
    return f'{CHALLENGE}, error="{code}", error_description="{description}"'


def title(status: int) -> str:
    return _RENAMED.get(status) or HTTPStatus(status).phrase


def body(problem: Problem) -> dict[str, Any]:
    return {
        "type": "about:blank",
        "title": title(problem.status_code),
        "status": problem.status_code,
        "detail": str(problem.detail),
        "code": problem.code,
        **problem.extension,
        **({"errors": problem.errors} if problem.errors else {}),
    }


def response(problem: Problem) -> HttpResponse:
    return HttpResponse(
        orjson.dumps(body(problem)),
        headers={"Content-Type": MEDIA_TYPE, **problem.headers},
        status=problem.status_code,
        reason=title(problem.status_code),
    )


def exception_handler(error: Exception, context: Mapping[str, Any]) -> Response | None:
    """REST framework's hook. None for an exception that Django is to handle."""
    if isinstance(error, Http404):
        error = Problem("not_found")
    elif isinstance(error, DjangoPermissionDenied):
        error = exceptions.PermissionDenied()
    elif not isinstance(error, exceptions.APIException):
        return None
    cause = error.__cause__
    if not isinstance(error, Problem):
        code = error.get_codes()
        assert isinstance(code, str), "REST framework's own validation errors are not in use"
        headers = {}
        if isinstance(error, exceptions.MethodNotAllowed):
            headers["Allow"] = ", ".join(context["view"].allowed_methods)
        error = Problem(code, str(error.detail), headers=headers)
    if error.status_code >= 500:
        logger.error("%s: %s", error.code, cause or error.detail)
    result = Response(body(error), status=error.status_code, headers=error.headers)
    renderer = getattr(context["request"], "accepted_renderer", None)
    if renderer is None or renderer.format == "json":
        result.content_type = MEDIA_TYPE
    result.reason_phrase = title(error.status_code)
    result._has_been_logged = True  # type: ignore[attr-defined]
    return result


def unavailable(error: Exception) -> HttpResponse:
    """503 for a database that is away, refuses or is too busy; logs the cause, once.

    `detail` says what state the database is in, and the code tells a write that was not done from
    one that may have been.
    """
    cause = str(error).strip().replace("\n", " ")
    logger.error("database unavailable: %s: %s", type(error).__name__, cause)
    if isinstance(error, OutcomeUnknown):
        problem = Problem("outcome_unknown")
    else:
        reason = error if isinstance(error, Unavailable) else unavailable_reason(error)
        problem = Problem("database_unavailable", reason=reason)
    result = response(problem)
    result._has_been_logged = True  # type: ignore[attr-defined]
    return result


def method_not_allowed(allow: str) -> HttpResponse:
    """405 where no view of REST framework answers; `allow` as in the header."""
    return response(Problem("method_not_allowed", headers={"Allow": allow}, allow=allow))


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return response(Problem("bad_request"))


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    return response(Problem("permission_denied", "You may not do this."))


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    return response(Problem("csrf_failed", reason=reason))


def locked_out(request: HttpRequest, original: object, credentials: object) -> HttpResponse:
    """429 for too many wrong passwords at the admin's login (django-axes' hook)."""
    retry = {"Retry-After": str(round(settings.AXES_COOLOFF_TIME * 3600))}
    return response(Problem("too_many_attempts", headers=retry))


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return response(Problem("not_found"))


def server_error(request: HttpRequest) -> HttpResponse:
    """500. The `request_id` finds the log line; the body says nothing else about the cause."""
    error = sys.exc_info()[1]
    if error is not None and is_unavailable(error):
        # In a middleware after the view, where the admin's session is saved.
        return unavailable(OutcomeUnknown(str(error)))
    return response(Problem("internal_error", extension={"request_id": logs.current.request_id}))

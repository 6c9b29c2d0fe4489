"""What happens to every request, before and after the view."""

import io
import logging
import os
import re
from collections.abc import Callable
from typing import Any

from axes.middleware import AxesMiddleware
from django.conf import settings
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.exceptions import DisallowedHost, ValidationError
from django.db import DataError
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotAllowed
from django.middleware.common import CommonMiddleware
from django.middleware.csrf import CsrfViewMiddleware
from whitenoise.middleware import WhiteNoiseMiddleware

from todo_project import logs
from todo_project.api import problems
from todo_project.api.problems import Problem
from todo_project.database.deadline import end_deadline, start_deadline
from todo_project.database.errors import OutcomeUnknown, is_unavailable

logger = logging.getLogger(__name__)

MAX_BODY = 64 * 1024
"""Bytes that a body may have, on every path."""

MAX_DISCARDED = 16 * 1024 * 1024
"""Bytes of a larger body that are read and discarded: a client that sends before it reads would
otherwise see a broken connection instead of the answer."""

GetResponse = Callable[[HttpRequest], HttpResponseBase]

_is_request_id = re.compile(r"[A-Za-z0-9._-]{1,128}").fullmatch
_is_admin = re.compile(r"/admin(/|$)").match
_is_static = re.compile(r"/static(/|$)").match
_allows_any_host = re.compile(r"/(healthz|readyz)/?$").match


class RequestMiddleware:
    """The request id, the headers that every response has, and a database that is away."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        request_id = request.META.get("HTTP_X_REQUEST_ID", "")
        if not _is_request_id(request_id):
            request_id = os.urandom(16).hex()
        logs.current.request_id = request_id
        try:
            response = self.get_response(request)
        finally:
            end_deadline()
            logs.current.request_id = "-"
        response["X-Request-ID"] = request_id
        if "Cache-Control" not in response:
            response["Cache-Control"] = "private, no-cache"
        if isinstance(response, HttpResponse) and not (
            response.status_code in (204, 304) or response.has_header("Content-Length")
        ):
            response["Content-Length"] = str(len(response.content))
            if request.method == "HEAD":
                response.content = b""
        return response

    def process_exception(
        self, request: HttpRequest, exception: Exception
    ) -> HttpResponseBase | None:
        """Django's hook for an exception that no view handles."""
        if not is_unavailable(exception):
            return None
        if request.method == "POST" and _is_admin(request.path_info):
            # The ORM does not say how far its transaction came.
            exception = OutcomeUnknown(str(exception))
        return problems.unavailable(exception)


class InputMiddleware:
    """Checks host, path and body before any view, and starts the database's deadline.

    A class of its own, because CorsMiddleware must run between it and RequestMiddleware: a browser
    only shows an error to a page of another origin if it has the CORS headers. Preflight requests
    end there.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        path = request.path_info
        if not _allows_any_host(path):
            try:
                request.get_host()
            except DisallowedHost:
                return problems.response(Problem("invalid_host"))
        request.body_problem = read_body(request)  # type: ignore[attr-defined]
        # Decoded it would be a separator here, and none in a proxy's rules for paths.
        if "%2f" in request.META.get("RAW_URI", "").partition("?")[0].lower():
            return problems.not_found(request)
        if path.endswith("/") and path != "/" and not (_is_admin(path) or _is_static(path)):
            # The routes have no trailing slash; a redirect would lose the body of a POST.
            request.path_info = path[:-1]
        start_deadline()
        return self.get_response(request)

    def process_view(self, request: HttpRequest, *args: Any) -> HttpResponseBase | None:
        """Django's hook between the URL resolver and the view: an unknown URL is 404 first."""
        problem: Problem | None = request.body_problem  # type: ignore[attr-defined]
        return problems.response(problem) if problem else None


def read_body(request: HttpRequest) -> Problem | None:
    """Read the body into memory. Returns what is wrong with it, if anything is.

    Django takes the length from Content-Length alone, so that it would see no body in a chunked
    request, and a *set* would become a *toggle*.
    """
    chunked = "HTTP_TRANSFER_ENCODING" in request.META
    length = request.META.get("CONTENT_LENGTH") or "0"
    if length == "0" and not chunked:
        return None
    body, problem = b"", "content_too_large"
    if chunked or int(length) <= MAX_DISCARDED:
        stream = request.META["wsgi.input"]
        expected = MAX_DISCARDED + 1 if chunked else int(length)
        try:
            data = stream.read(min(expected, MAX_BODY + 1))
            received = len(data)
            while MAX_BODY < received < expected and (
                more := stream.read(min(MAX_BODY, expected - received))
            ):
                received += len(more)
            if received < expected and not chunked:
                problem = "incomplete_body"
            elif received <= MAX_BODY:
                body, problem = data, ""
        except Exception:  # of the server's own classes, for a bad chunk or trailer
            problem = "incomplete_body"
    request.META["CONTENT_LENGTH"] = str(len(body))
    request._stream = io.BytesIO(body)
    return Problem(problem) if problem else None


class StaticMiddleware(WhiteNoiseMiddleware):
    """Static files, with errors in the service's form."""

    @staticmethod
    def serve(static_file: Any, request: HttpRequest) -> HttpResponseBase:
        if request.body_problem:  # type: ignore[attr-defined]
            return problems.response(request.body_problem)  # type: ignore[attr-defined]
        if request.method not in ("GET", "HEAD"):
            return problems.method_not_allowed("GET, HEAD")
        request.META.pop("HTTP_RANGE", None)  # WhiteNoise's 416 would be no problem details
        return WhiteNoiseMiddleware.serve(static_file, request)


def page_policy(form_action: str) -> str:
    """The Content-Security-Policy (W3C, level 3) of a page whose parts all come from this service.
    `data:` images are the icons in style sheets."""
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "font-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
        f"form-action {form_action}"
    )


class AdminOnly:
    """Mixin: the middleware acts on the admin's paths only."""

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if _is_admin(request.path_info):
            return super().__call__(request)  # type: ignore[misc]
        return self.get_response(request)  # type: ignore[attr-defined]


BAD_VALUE_ERRORS = (ValidationError, ValueError, ArithmeticError, DataError)


class AdminCommonMiddleware(AdminOnly, CommonMiddleware):
    """The outermost of the admin's: what the admin itself leaves to be refused, and the policy."""

    def process_request(self, request: HttpRequest) -> Any:
        if "%00" in request.META["QUERY_STRING"]:  # as a filter's value PostgreSQL refuses it
            return problems.bad_request(request)
        return super().process_request(request)

    def process_exception(
        self, request: HttpRequest, exception: Exception
    ) -> HttpResponseBase | None:
        """400 where the admin makes a statement of parameters that it does not check."""
        if not (_is_admin(request.path_info) and isinstance(exception, BAD_VALUE_ERRORS)):
            return None
        logger.warning("the admin refused a value: %s", exception, exc_info=exception)
        return problems.bad_request(request)

    def process_response(
        self, request: HttpRequest, response: HttpResponseBase
    ) -> HttpResponseBase:
        if isinstance(response, HttpResponseNotAllowed):  # an empty page
            response = problems.method_not_allowed(response["Allow"])
        # Django's own debug pages have inline styles.
        if not (settings.DEBUG and response.status_code >= 400):
            response["Content-Security-Policy"] = page_policy(form_action="'self'")
        return super().process_response(request, response)


def admin_only(middleware: type) -> type:
    return type(f"Admin{middleware.__name__}", (AdminOnly, middleware), {})


AdminSessionMiddleware = admin_only(SessionMiddleware)
AdminCsrfMiddleware = admin_only(CsrfViewMiddleware)
AdminAuthenticationMiddleware = admin_only(AuthenticationMiddleware)
AdminMessageMiddleware = admin_only(MessageMiddleware)
AdminAxesMiddleware = admin_only(AxesMiddleware)

"""What happens to every request, before and after Django's own machinery."""

import io
import os
import re
from collections.abc import Callable

from axes.middleware import AxesMiddleware
from django.conf import settings
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.middleware.common import CommonMiddleware
from django.middleware.csrf import CsrfViewMiddleware

from todo_project import logs
from todo_project.api import problems
from todo_project.database.deadline import end_deadline, start_deadline
from todo_project.database.errors import OutcomeUnknown, is_unavailable

BODY_LIMIT = 64 * 1024
"""Bytes that a body may have."""

DROP_LIMIT = 16 * 1024 * 1024
"""Bytes of a body over the limit that are read all the same, so that the client, which sends
before it listens, sees the answer and not a broken connection."""

GetResponse = Callable[[HttpRequest], HttpResponseBase]

_acceptable_request_id = re.compile(r"[A-Za-z0-9._-]{1,128}").fullmatch
_is_admin = re.compile(r"/admin(/|$)").match
_is_static = re.compile(r"/static(/|$)").match
_answers_any_host = re.compile(r"/(healthz|readyz)/?$").match


class RequestMiddleware:
    """Request id, one form for both slash forms, allowed hosts, bodies, the database deadline."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        request_id = request.META.get("HTTP_X_REQUEST_ID", "")
        if not _acceptable_request_id(request_id):
            request_id = os.urandom(16).hex()
        logs.current.request_id = request_id
        try:
            response = self._respond(request)
        finally:
            end_deadline()
            logs.current.request_id = "-"
        if response.status_code == 405 and response.streaming:  # WhiteNoise's, without a body
            allowed = response["Allow"]
            response = problems.response(405, "method_not_allowed", f"Allowed are {allowed}.")
            response["Allow"] = allowed
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

    def _respond(self, request: HttpRequest) -> HttpResponseBase:
        path = request.path_info
        if not _answers_any_host(path):
            try:
                request.get_host()
            except DisallowedHost:
                return problems.response(400, "invalid_host", "The Host header is not allowed.")
        if not (_is_admin(path) or _is_static(path)):
            if path.endswith("/") and path != "/":
                # The routes are written without; a redirect would lose a POST's body.
                request.path_info = path[:-1]
            if not read_body(request):
                return problems.response(400, "incomplete_body", "The body broke off.")
        start_deadline()
        return self.get_response(request)

    def process_exception(
        self, request: HttpRequest, exception: Exception
    ) -> HttpResponseBase | None:
        """Django's hook for what no view has handled."""
        if not is_unavailable(exception):
            return None
        if request.method == "POST" and _is_admin(request.path_info):
            # The ORM does not tell how far its transaction came.
            exception = OutcomeUnknown(str(exception))
        return problems.unavailable(exception)


def read_body(request: HttpRequest) -> bool:
    """Read the body before anything waits for the database; False when it broke off.

    Django takes the length from Content-Length alone, so a chunked body would look empty to it,
    and a *set* become a *toggle*. `request.body_too_large` is for the view to act on: an unknown
    URL is 404 first.
    """
    request.body_too_large = False  # type: ignore[attr-defined]
    chunked = "HTTP_TRANSFER_ENCODING" in request.META
    length = request.META.get("CONTENT_LENGTH") or "0"
    if length == "0" and not chunked:
        return True
    if not chunked and int(length) > DROP_LIMIT:
        request.body_too_large = True  # type: ignore[attr-defined]
        body = b""
    else:
        stream = request.META["wsgi.input"]
        expected = DROP_LIMIT + 1 if chunked else int(length)
        try:
            body = stream.read(min(expected, BODY_LIMIT + 1))
            dropped = len(body)
            while BODY_LIMIT < dropped < expected and (
                more := stream.read(min(BODY_LIMIT, expected - dropped))
            ):
                dropped += len(more)
        except Exception:  # the server's own classes for what is wrong with a chunk or a trailer
            return False
        if not chunked and dropped < expected:
            return False
        if len(body) > BODY_LIMIT:
            request.body_too_large = True  # type: ignore[attr-defined]
            body = b""
    request.META["CONTENT_LENGTH"] = str(len(body))
    request._stream = io.BytesIO(body)
    return True


def page_policy(form_action: str) -> str:
    """The Content-Security-Policy (W3C, level 3) of a page: all of it comes from this service,
    nothing is inline, and nobody frames it. `data:` images are the icons in style sheets."""
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "font-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
        f"form-action {form_action}"
    )


class AdminOnly:
    """Mixin: the middleware acts on the admin's paths alone."""

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if _is_admin(request.path_info):
            return super().__call__(request)  # type: ignore[misc]
        return self.get_response(request)  # type: ignore[attr-defined]


class AdminCommonMiddleware(AdminOnly, CommonMiddleware):
    """Sets the policy of the admin's pages besides: of its middlewares it is the outermost."""

    def process_response(
        self, request: HttpRequest, response: HttpResponseBase
    ) -> HttpResponseBase:
        # Django's own debug pages style themselves inline.
        if not (settings.DEBUG and response.status_code >= 400):
            response["Content-Security-Policy"] = page_policy(form_action="'self'")
        return super().process_response(request, response)


class AdminSessionMiddleware(AdminOnly, SessionMiddleware):
    pass


class AdminCsrfMiddleware(AdminOnly, CsrfViewMiddleware):
    pass


class AdminAuthenticationMiddleware(AdminOnly, AuthenticationMiddleware):
    pass


class AdminMessageMiddleware(AdminOnly, MessageMiddleware):
    pass


class AdminAxesMiddleware(AdminOnly, AxesMiddleware):
    pass

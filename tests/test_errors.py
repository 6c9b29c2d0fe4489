"""What every response has in common: problem details, order of refusals, headers, slashes."""

import json
import logging
import re

import pytest
from django.db import transaction
from django.test import Client
from django.urls import get_resolver, resolve

from tasks.views import TaskViewSet
from tests.client import ALICE, API, NOBODYS, TASKS
from tests.values import MISSING, READS, WRITES

TITLES = {
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    412: "Precondition Failed",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


def check(response, status, code):
    """That a response is a problem (RFC 9457) with just the members it may have."""
    problem = response.json()
    assert (response.status_code, problem["code"]) == (status, code)
    assert response["Content-Type"] == "application/problem+json"
    assert response["Cache-Control"] == "private, no-cache"
    assert response["Content-Length"] == str(len(response.content))
    assert response["X-Request-ID"]
    assert response.reason_phrase == problem["title"] == TITLES[status]
    members = ["type", "title", "status", "detail", "code"]
    if "errors" in problem:
        assert problem["errors"]
        members.append("errors")
        for error in problem["errors"]:
            assert list(error) == ["field", "code", "detail"]
            assert all(isinstance(value, str) for value in error.values())
    elif status == 500:
        members.insert(5, "request_id")
    assert list(problem) == members
    assert (problem["type"], problem["status"]) == ("about:blank", status)
    assert problem["detail"]
    return problem


# Every source of an error: who raises it, a request, status and code.
SOURCES = {
    "the URL resolver": ("GET", "/nothing", {}, 404, "not_found"),
    "the route converter": ("GET", "/api/1/tasks", {}, 400, "malformed_id"),
    "the host check": ("GET", TASKS, {"Host": "evil.example"}, 400, "invalid_host"),
    "a host that is none": ("GET", TASKS, {"Host": "a b/"}, 400, "invalid_host"),
    "the host check on no URL": ("GET", "/nothing", {"Host": "evil.example"}, 400, "invalid_host"),
    "static files": ("GET", "/static/nothing", {}, 404, "not_found"),
    "static file": ("POST", "/static/todo_project/docs.js", {}, 405, "method_not_allowed"),
    "the body limit of static files": (
        "POST",
        "/static/todo_project/docs.js",
        {"body": "x" * 65537},
        413,
        "content_too_large",
    ),
    "the admin's query": ("GET", "/admin/?a=%00", {}, 400, "bad_request"),
    "the body limit of the admin": (
        "POST",
        "/admin/login/",
        {"body": "x" * 65537, "type": "multipart/form-data; boundary=x"},
        413,
        "content_too_large",
    ),
    "an encoded body": (
        "POST",
        TASKS,
        {"body": "{}", "Content-Encoding": "gzip"},
        415,
        "unsupported_media_type",
    ),
    "negotiation": ("GET", TASKS, {"Accept": "text/html"}, 406, "not_acceptable"),
    "the method": ("DELETE", TASKS, {}, 405, "method_not_allowed"),
    "the method of a probe": ("POST", "/healthz", {}, 405, "method_not_allowed"),
    "the parser": ("POST", TASKS, {"body": "{"}, 400, "parse_error"),
    "no parser": ("POST", TASKS, {"body": "x", "type": "text/x"}, 415, "unsupported_media_type"),
    "the body limit": ("POST", TASKS, {"body": "x" * 65537}, 413, "content_too_large"),
    "the validator": ("POST", TASKS, {"body": "{}"}, 422, "validation_error"),
    "a parameter": ("GET", f"{TASKS}?limit=0", {}, 400, "invalid_parameter"),
    "a cursor": ("GET", f"{TASKS}?cursor=x", {}, 400, "invalid_cursor"),
    "a header": (
        "POST",
        TASKS,
        {"body": '{"title": "x"}', "Idempotency-Key": "é"},
        400,
        "invalid_idempotency_key",
    ),
    "the view": ("GET", MISSING, {}, 404, "not_found"),
    "CSRF": ("POST", "/admin/login/", {}, 403, "csrf_failed"),
}


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "code"), SOURCES.values(), ids=SOURCES
)
def test_every_error_is_a_problem(db, method, path, options, status, code):
    headers = dict(options)
    body, content_type = headers.pop("body", ""), headers.pop("type", "application/json")
    client = Client(enforce_csrf_checks=True)
    response = client.generic(method, path, body, content_type=content_type, headers=headers)
    check(response, status, code)


def test_an_unhandled_exception_reveals_only_its_request_id(db, monkeypatch, caplog):
    def fail(*args, **kwargs):
        raise RuntimeError("password=hunter2")

    monkeypatch.setattr(TaskViewSet, "retrieve", fail)
    client = Client(raise_request_exception=False, headers={"X-Request-ID": "find-me.1"})
    with caplog.at_level(logging.ERROR):
        response = client.get(MISSING)
    problem = check(response, 500, "internal_error")
    assert problem["request_id"] == response["X-Request-ID"] == "find-me.1"
    assert b"hunter2" not in response.content
    assert b"RuntimeError" not in response.content
    (record,) = caplog.records
    assert record.exc_info[0] is RuntimeError


# Order ----------------------------------------------------------------------------------------

BIG = "x" * 70_000
FAULTS = [
    # Each line has the fault of its status and those of all the lines below that it can have.
    (404, "POST", "/api/1/nothing", BIG, {"Accept": "text/x"}),
    (413, "DELETE", "/api/1/tasks", BIG, {"Accept": "text/x", "Content-Type": "text/x"}),
    (406, "DELETE", "/api/1/tasks", "{", {"Accept": "text/x", "Content-Type": "text/x"}),
    (400, "DELETE", "/api/1/tasks", "{", {"Content-Type": "text/x"}),
    (405, "PUT", TASKS, "{", {"Content-Type": "text/x"}),
    (405, "POST", f"{TASKS}/{NOBODYS}", "{", {"Content-Type": "text/x", "Idempotency-Key": ""}),
    (405, "GET", f"{TASKS}/{NOBODYS}/complete?limit=0", "", {}),
    (415, "POST", TASKS, "{", {"Content-Type": "text/x", "Idempotency-Key": "a b"}),
    (415, "PUT", MISSING, "{", {"Content-Type": "text/x", "If-Match": '"x"'}),
    (415, "PATCH", f"{MISSING}/complete", "{", {"Content-Type": "text/x", "If-Match": '"x"'}),
    (400, "POST", TASKS, "{}", {"Idempotency-Key": "a b"}),
    (400, "PUT", MISSING, "{", {"If-Match": '"x"'}),
    (422, "PUT", MISSING, "{}", {"If-Match": '"x"'}),
    (422, "PATCH", MISSING, '{"title": ""}', {"If-Match": '"x"'}),
    (422, "PATCH", f"{MISSING}/complete", "{}", {"If-Match": '"x"'}),
    (404, "PATCH", MISSING, "{}", {"If-Match": '"x"'}),
    (404, "DELETE", MISSING, "", {"If-Match": '"x"'}),
    (404, "PATCH", f"{MISSING}/complete", "", {"If-Match": '"x"'}),
    (412, "PATCH", f"{TASKS}/{{id}}", "{}", {"If-Match": '"x"'}),
    (412, "DELETE", f"{TASKS}/{{id}}", "", {"If-Match": '"x"'}),
]


@pytest.mark.parametrize(("status", "method", "path", "body", "headers"), FAULTS)
def test_of_several_errors_the_first_is_reported(api, status, method, path, body, headers):
    task = api.create()
    # Without a Content-Type the test client adds one.
    label = headers.get("Content-Type", "application/json")
    path = path.format(**task)
    api.request(method, path, body, status, headers=headers, content_type=label)
    assert api.get(TASKS) == [task]


# Methods --------------------------------------------------------------------------------------

ALLOWED = {
    TASKS: "GET, HEAD, POST, OPTIONS",
    MISSING: "GET, HEAD, PUT, PATCH, DELETE, OPTIONS",
    f"{MISSING}/complete": "PATCH, OPTIONS",
    "/healthz": "GET, HEAD, OPTIONS",
    "/readyz": "GET, HEAD, OPTIONS",
    "/api/schema": "GET, HEAD, OPTIONS",
    "/api/docs": "GET, HEAD, OPTIONS",
}
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY"]


def test_every_route_is_listed():
    names = {name for name in get_resolver().reverse_dict if isinstance(name, str)}
    assert names == {resolve(path).url_name for path in ALLOWED}


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("path", ALLOWED)
def test_a_method_not_allowed_is_405_with_allow(api, path, slash, django_assert_num_queries):
    allowed = set(ALLOWED[path].split(", "))
    with django_assert_num_queries(0):
        for method in [*METHODS, "get", "X" * 100]:
            if method not in allowed and method.upper() not in allowed:
                api.request(method, path + slash, None, 405)
                assert set(api.last["Allow"].split(", ")) == allowed
        api.request("OPTIONS", path + slash, None)
        assert set(api.last["Allow"].split(", ")) == allowed
        assert api.last.content == b""
        assert api.last["Content-Length"] == "0"


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("route", ["", "/{id}", "?limit=1"])
def test_head_has_the_headers_of_get(api, route, slash):
    for _ in range(2):
        task = api.create()
    path, _, query = (TASKS + route.format(**task)).partition("?")
    path += slash + ("?" + query if query else "")
    api.get(path)
    got = {**api.last.headers, "X-Request-ID": None}
    assert api.request("HEAD", path) is None
    assert {**api.last.headers, "X-Request-ID": None} == got
    assert got["ETag"]
    assert int(got["Content-Length"]) > 100
    assert ("Link" in got) is bool(query)
    api.request("HEAD", f"{MISSING}{slash}", None, 404)
    assert api.last.content == b""


def test_other_methods_are_not_taken_for_the_one_in_a_header_or_parameter(api):
    task = api.create()
    path = f"{TASKS}/{task['id']}"
    for header in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
        api.post(f"{path}?_method=DELETE", {"title": "x"}, 405, headers={header: "DELETE"})
    assert api.get(path) == task


# Slashes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "route", "body", "status"),
    [
        *WRITES,
        *((method, route, None, status) for method, route, status in READS),
        ("PATCH", "/{id}/complete", None, 200),
        ("DELETE", "/{id}", None, 204),
        ("OPTIONS", "", None, 200),
        ("GET", "?limit=1", None, 200),
        ("GET", "/1", None, 400),
        ("GET", f"/{NOBODYS}", None, 404),
        ("PUT", "", None, 405),
        ("POST", "", {}, 422),
    ],
)
def test_both_slash_forms_answer_the_same(api, method, route, body, status):
    tasks = [api.create(description="x") for _ in range(2)]
    path, question, query = (TASKS + route.format(**tasks[0])).partition("?")
    answers = []
    for slash in ("", "/"):
        with transaction.atomic():
            content = api.request(method, path + slash + question + query, body, status)
            transaction.set_rollback(True)
        answer = json.dumps([content, {**api.last.headers, "X-Request-ID": None}])
        # Values that differ each time: ids, times, and the tags made from them.
        answers.append(re.sub(r"[0-9a-f]{8}-[-0-9a-f]{27}|\d{4}-[-0-9:.T]+Z", "…", answer))
    assert answers[0] == answers[1]
    assert api.get(TASKS) == tasks[::-1]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/api/schema", "/api/docs"])
def test_both_slash_forms_outside_the_tasks_answer_the_same(api, path):
    for method in ("GET", "HEAD", "OPTIONS"):
        answers = []
        for slash in ("", "/"):
            content = api.request(method, path + slash)
            answers.append((content, {**api.last.headers, "X-Request-ID": None}))
        assert answers[0] == answers[1]


# Accept, hosts, request ids --------------------------------------------------------------------


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "application/*",
        "application/json",
        "APPLICATION/JSON",
        "application/json; charset=utf-8",
        "application/json;q=0.001",
        "application/json, text/plain, */*",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        " application/json ,",
    ],
)
def test_json_is_served_to_clients_that_accept_it(api, accept):
    task = api.create()
    assert api.get(TASKS, headers={"Accept": accept}) == [task]
    assert api.last["Content-Type"] == "application/json"
    assert api.post(TASKS, {"title": "x"}, headers={"Accept": accept})["title"] == "x"


@pytest.mark.parametrize(
    "accept",
    [
        "text/html",
        "application/xml",
        "application/json;q=0",
        "*/*;q=0",
        "*/*;q=0.000, text/html",
        "application/json;q=0, */*",
        "*/*, application/*;q=0",
        "application/problem+json",
        "json",
        "garbage",
        "text/*",
        "/",
        ";;;q=",
        "é",
        "application/jsonx",
        "text/html;" + "a=b;" * 1000,
    ],
)
def test_it_is_406_for_others_and_nothing_happens(api, accept, django_assert_num_queries):
    with django_assert_num_queries(0):
        assert api.get(TASKS, 406, headers={"Accept": accept})["code"] == "not_acceptable"
        api.post(TASKS, {"title": "x"}, 406, headers={"Accept": accept})
        api.delete(MISSING, 406, headers={"Accept": accept})
    assert api.get("/healthz", headers={"Accept": accept}) == {"status": "ok"}


@pytest.mark.parametrize(
    "host",
    ["evil.example", "testserver.evil.example", "", "testserver@evil", "a b", "\xe9", "[::1"],
)
def test_hosts_that_are_not_allowed_get_400_except_for_health(api, host):
    headers = {"Host": host}
    for path in (TASKS, MISSING, "/", "/nothing", "/admin/", "/static/x", "/healthzz"):
        assert api.get(path, 400, headers=headers)["code"] == "invalid_host"
    api.post(TASKS, {"title": "x"}, 400, headers=headers)
    for path in ("/healthz", "/healthz/", "/readyz", "/readyz/"):
        assert api.get(path, headers=headers)["status"] == "ok"
    assert api.get(TASKS) == []


@pytest.mark.parametrize("host", ["testserver", "TESTSERVER:8000", "localhost", "127.0.0.1:1"])
def test_allowed_hosts_are_served_on_any_port_and_not_redirected(api, host):
    for proto in ("http", "https"):
        assert api.get(TASKS, headers={"Host": host, "X-Forwarded-Proto": proto}) == []


PATHS = [TASKS, MISSING, "/healthz", "/nothing", "/api/1/tasks", "/admin/login/"]


@pytest.mark.parametrize("id", ["a", "0" * 128, "A.b_c-9", "01a1fbd9-ad9f-7c31-8bae-3229d4df72da"])
def test_it_keeps_good_request_ids(db, id):
    for path in PATHS:
        assert Client().get(path, headers={"X-Request-ID": id})["X-Request-ID"] == id


@pytest.mark.parametrize("id", [None, "", "0" * 129, "a b", "a\n", "é", "<x>", "a,b", "a/b", "\0"])
def test_it_replaces_other_request_ids(db, id):
    headers = {} if id is None else {"X-Request-ID": id}
    made = {Client().get(path, headers=headers)["X-Request-ID"] for path in PATHS}
    assert len(made) == len(PATHS)
    assert all(re.fullmatch("[0-9a-f]{32}", id) for id in made)


@pytest.mark.parametrize(
    ("method", "route", "body", "status"),
    [*WRITES, *((m, r, None, s) for m, r, s in READS), ("DELETE", "/{id}", None, 204)],
)
def test_no_answer_is_for_shared_caches(api, method, route, body, status):
    task = api.create()
    api.request(method, TASKS + route.format(**task), body, status)
    assert api.last["Cache-Control"] == "private, no-cache"
    assert api.last["X-Content-Type-Options"] == "nosniff"
    assert "Set-Cookie" not in api.last
    assert not api.last.cookies
    assert "Server" not in api.last
    assert ("Content-Length" in api.last) is (status != 204)
    if status != 204:
        assert api.last["Content-Type"] == "application/json"


def test_one_client_can_go_on_after_an_error(db):
    api = API(X_Request_ID="same")
    api.get(MISSING, 404)
    task = api.create()
    assert api.last["X-Request-ID"] == "same"
    assert api.get(f"/api/{ALICE}/tasks") == [task]

"""Permissions: every route of the URLconf, every method, every kind of client."""

import time
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from django.urls import URLPattern, URLResolver, get_resolver

from tasks.models import Task
from tests.client import ALICE, API, BOB, NOBODYS, Json
from tests.issuer import SECRET, bearer, by_secret, tampered

VERBS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE")
BODIES = {
    "POST": {"title": "Mine"},
    "PUT": {"title": "Mine", "description": None, "is_completed": True},
    "PATCH": {"is_completed": True},
}

# The status that the owner gets for each method, by route. A new route fails the suite until it is
# listed here. Methods that are not named are 405.
OWNERS = {
    "api/<uuid:user_id>/tasks": {"GET": 200, "HEAD": 200, "OPTIONS": 200, "POST": 201},
    "api/<uuid:user_id>/tasks/<uuid:id>": {
        "GET": 200,
        "HEAD": 200,
        "OPTIONS": 200,
        "PUT": 200,
        "PATCH": 200,
        "DELETE": 204,
    },
    "api/<uuid:user_id>/tasks/<uuid:id>/complete": {"OPTIONS": 200, "PATCH": 200},
}
# These need no token.
OPEN = {
    "healthz": {"GET": 200, "HEAD": 200, "OPTIONS": 200},
    "readyz": {"GET": 200, "HEAD": 200, "OPTIONS": 200},
    "api/schema": {"GET": 200, "HEAD": 200, "OPTIONS": 200},
    "api/docs": {"GET": 200, "HEAD": 200, "OPTIONS": 200},
}
# The login pages of the admin; every other page redirects to them.
ADMIN_OPEN = {"admin/login/", "admin/logout/", "admin/jsi18n/"}


def routes(patterns: Any = None, prefix: str = "") -> Iterator[str]:
    """Every route of the project, as in the URLconf."""
    for pattern in get_resolver().url_patterns if patterns is None else patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns, route)
        else:
            assert isinstance(pattern, URLPattern)
            yield route


@pytest.fixture(autouse=True)
def tokens_are_asked_for(settings: Any) -> None:
    settings.AUTH_MODE, settings.JWT_SECRET, settings.JWT_JWKS_URL = "jwt", SECRET, None


@pytest.fixture
def task(db: None) -> Json:
    """A task of Alice."""
    return API(**bearer(by_secret(ALICE))).create(ALICE, "Divorce lawyer", description="Secret")


def url(route: str, owner: str, id: str) -> str:
    return "/" + route.replace("<uuid:user_id>", owner).replace("<uuid:id>", id)


def send(api: API, verb: str, path: str, expected: int, **options: Any) -> None:
    api.request(verb, path, BODIES.get(verb), expected, **options)


def alices_data() -> list[Json]:
    return [dict(task) for task in Task.objects.filter(user_id=ALICE).values()]


def test_every_route_is_listed() -> None:
    assert {route for route in routes() if not route.startswith("admin/")} == {*OWNERS, *OPEN}


@pytest.mark.parametrize("route", OWNERS)
class TestOwnersRoute:
    def test_the_owner_may_use_every_method(self, task: Json, route: str) -> None:
        api = API(**bearer(by_secret(ALICE)))
        for verb in VERBS:
            send(api, verb, url(route, ALICE, task["id"]), OWNERS[route].get(verb, 405))

    def test_another_user_with_the_owners_path_gets_403(
        self, task: Json, route: str, django_assert_num_queries: Any
    ) -> None:
        before, bob = alices_data(), API(**bearer(by_secret(BOB)))
        for verb, id in product(VERBS, (task["id"], NOBODYS)):
            with django_assert_num_queries(0):
                send(bob, verb, url(route, ALICE, id), 403)
            assert bob.last.content == (b"" if verb == "HEAD" else FORBIDDEN)
        assert alices_data() == before

    def test_another_user_with_their_own_path_gets_404(self, task: Json, route: str) -> None:
        before, bob = alices_data(), API(**bearer(by_secret(BOB)))
        for verb in VERBS:
            expected = OWNERS[route].get(verb, 405)
            if "<uuid:id>" in route and verb != "OPTIONS" and expected != 405:
                expected = 404
            answers = []
            for id in (task["id"], NOBODYS):
                send(bob, verb, url(route, BOB, id), expected)
                seen = f"{bob.last.headers} {bob.last.content!r}"
                assert task["title"] not in seen
                assert ALICE not in seen
                headers = {k: v for k, v in bob.last.headers.items() if k != "X-Request-ID"}
                answers.append((headers, bob.last.content))
            if expected == 404:  # as if her task did not exist
                assert answers[0] == answers[1]
        assert alices_data() == before

    @pytest.mark.parametrize("token", ["none", "expired", "tampered"])
    def test_without_a_valid_token_every_request_is_401(
        self, task: Json, route: str, token: str, django_assert_num_queries: Any
    ) -> None:
        before = alices_data()
        headers = {
            "none": {},
            "expired": bearer(by_secret(ALICE, exp=int(time.time()) - 31)),
            "tampered": bearer(tampered(by_secret(ALICE))),
        }[token]
        api = API(**headers)
        for verb in VERBS:
            with django_assert_num_queries(0):
                send(api, verb, url(route, ALICE, task["id"]), 401)
            assert api.last["WWW-Authenticate"].startswith('Bearer realm="tasks"')
            assert ('error="invalid_token"' in api.last["WWW-Authenticate"]) == (token != "none")
        assert alices_data() == before


FORBIDDEN = (
    b'{"type":"about:blank","title":"Forbidden","status":403,'
    b'"detail":"The token is for another user.","code":"permission_denied"}'
)


@pytest.mark.parametrize("route", OPEN)
def test_an_open_route_needs_no_token(db: None, route: str) -> None:
    for headers in ({}, bearer(by_secret(BOB)), bearer("garbage")):
        api = API(**headers)
        for verb in VERBS:
            send(api, verb, "/" + route, OPEN[route].get(verb, 405))


def test_the_admin_is_not_opened_by_a_token(task: Json) -> None:
    """Every page redirects to the login, whatever token is sent."""
    client = API(**bearer(by_secret(ALICE))).client
    before = alices_data()
    for route in {route for route in routes() if route.startswith("admin/")} - ADMIN_OPEN:
        path = url(route, ALICE, task["id"]).replace("<path:object_id>", task["id"])
        path = path.replace("<id>", "1").replace("<int:content_type_id>", "1")
        for verb in ("GET", "POST", "DELETE"):
            answer = client.generic(verb, path if "(?P" not in path else "/admin/tasks/")
            assert (answer.status_code, answer["Location"].partition("?")[0]) == (
                302,
                "/admin/login/",
            ), path
    assert alices_data() == before


def test_of_several_errors_the_first_in_order_is_reported(task: Json) -> None:
    """Everything is wrong with a request, and one error after the other is corrected."""
    request: dict[str, Any] = {
        "method": "PUT",
        "path": f"/api/{ALICE}/tasks/nonsense/complete/more",
        "body": b"{" * 70_000,
        "content_type": "text/plain",
    }
    headers = {"Accept": "text/html", "If-Match": '"stale"'}
    complete = f"/api/{ALICE}/tasks/{{}}/complete".format
    api = API()
    steps: list[tuple[int, dict[str, Any]]] = [
        (404, {}),
        (413, {"path": complete("nonsense")}),
        (406, {"body": b"{"}),
        (401, {"Accept": "*/*"}),
        (400, bearer(by_secret(BOB))),
        (403, {"path": complete(NOBODYS)}),
        (405, bearer(by_secret(ALICE))),
        (415, {"method": "PATCH"}),
        (400, {"content_type": "application/json"}),
        (422, {"body": b'{"is_completed": "yes"}'}),
        (404, {"body": b'{"is_completed": true}'}),
        (412, {"path": complete(task["id"])}),
        (200, {"If-Match": "*"}),
    ]
    for expected, mended in steps:
        for name, value in mended.items():
            (request if name in request else headers)[name] = value
        api.request(**request, expected=expected, headers=headers)


@pytest.mark.parametrize("spelled", [ALICE.upper(), ALICE.title()])
def test_the_case_of_an_id_is_ignored(task: Json, spelled: str) -> None:
    for subject, path in ((spelled, ALICE), (ALICE, spelled)):
        assert API(**bearer(by_secret(subject))).get(f"/api/{path}/tasks") == [task]

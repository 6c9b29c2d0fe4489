"""The OpenAPI document: /api/schema, openapi.yaml (what was accepted), and /api/docs."""

import json
import re
import sys

import pytest
import yaml
from django.core.exceptions import ImproperlyConfigured
from drf_spectacular.generators import SchemaGenerator

from tasks.list_parameters import PARSERS
from tasks.schema import DOCUMENT
from tests.client import API
from tests.live import routes
from todo_project.api.fields import NO_NULL_CHARACTERS, trimmed_pattern
from tools.openapi_check import CHECKED_IN

YAML = {"Accept": "application/yaml"}
ALWAYS = {401, 403, 406, 413, 429, 500, 503}
BODY = ALWAYS | {400, 415, 422}

OPERATIONS = {
    "listTasks": {200, 304, 400, 412} | ALWAYS,
    "createTask": {201, 409} | BODY,
    "getTask": {200, 304, 400, 404, 412} | ALWAYS,
    "replaceTask": {200, 404, 412} | BODY,
    "updateTask": {200, 404, 412} | BODY,
    "completeTask": {200, 404, 412} | BODY,
    "deleteTask": {204, 400, 404, 412} | ALWAYS,
    "getHealth": {200, 400, 413, 500},
    "getReadiness": {200, 400, 413, 500, 503},
}
"""The contract: every status of every operation."""


@pytest.fixture
def api() -> API:
    return API()


@pytest.fixture
def document(api, settings):
    settings.AUTH_MODE = "jwt"
    return api.get("/api/schema")


def operations(document):
    return {
        operation["operationId"]: operation
        for methods in document["paths"].values()
        for operation in methods.values()
    }


def test_openapi_yaml_is_what_is_served(api, settings):
    settings.AUTH_MODE = "jwt"
    served = api.get("/api/schema", headers=YAML)
    assert served.decode() == CHECKED_IN.read_text(), "accept the change with `make schema`"
    assert api.get("/api/schema/") == yaml.safe_load(served)


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", "application/json"),
        ("text/html, */*;q=0.8", "application/json"),
        ("application/yaml", "application/yaml"),
        ("application/vnd.oai.openapi", "application/vnd.oai.openapi"),
        ("application/vnd.oai.openapi+json", "application/vnd.oai.openapi+json"),
    ],
)
def test_it_comes_as_json_or_yaml(api, accept, media_type):
    api.get("/api/schema", headers={"Accept": accept})
    assert (api.last["Content-Type"], api.last["Vary"]) == (media_type, "Accept")
    load = json.loads if "json" in media_type else yaml.safe_load
    assert load(api.last.content)["openapi"] == "3.1.0"


@pytest.mark.parametrize("path", ["/api/schema", "/api/docs"])
def test_its_errors_are_problems_whatever_was_asked_for(api, path):
    api.post(path, {}, 405, headers=YAML)
    assert api.last["Allow"] == "GET, HEAD, OPTIONS"
    api.request("GET", path, b" " * 70_000, 413, headers=YAML)


def test_it_rejects_an_accept_that_excludes_it(api):
    api.get("/api/schema", 406, headers={"Accept": "text/csv"})


def test_every_route_is_an_operation(document):
    assert len(operations(document)) == len(routes() - {("schema", "GET"), ("docs", "GET")})


def test_a_route_without_an_operation_stops_it(monkeypatch):
    monkeypatch.delitem(DOCUMENT["paths"]["/api/{user_id}/tasks/{id}/complete"], "patch")
    with pytest.raises(ImproperlyConfigured, match=r"PATCH /api/\{user_id\}/tasks/\{id\}/complete"):
        SchemaGenerator().get_schema(public=True)


def test_every_status_of_the_contract_is_declared(document):
    declared = {
        name: {int(status) for status in operation["responses"]}
        for name, operation in operations(document).items()
    }
    assert declared == OPERATIONS


def test_only_tasks_need_a_token(document):
    for operation in operations(document).values():
        assert operation["security"] == ([{"bearer": []}] if "tasks" in operation["tags"] else [])
    assert document["components"]["securitySchemes"]["bearer"]["bearerFormat"] == "JWT"


def test_without_authentication_it_mentions_none(api, document, settings):
    settings.AUTH_MODE = "none"
    open_to_all = api.get("/api/schema")
    for operation in operations(document).values():
        operation.pop("security")
        for status in ("401", "403"):
            operation["responses"].pop(status, None)
    del document["components"]["securitySchemes"]
    for name in ("Unauthorized", "Forbidden"):
        del document["components"]["responses"][name]
    del document["components"]["headers"]["WWW-Authenticate"]
    assert open_to_all == document


def test_its_list_parameters_are_those_that_are_read(document):
    components = document["components"]["parameters"]
    names = [
        name["$ref"].split("/")[-1] for name in operations(document)["listTasks"]["parameters"]
    ]
    queries = [components[name]["name"] for name in names if components[name]["in"] == "query"]
    assert queries == list(PARSERS)


def test_its_titles_are_exactly_those_that_are_accepted():
    matches = re.compile(trimmed_pattern(255)).search
    characters = [chr(c) for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000]
    wrong = [c for c in characters if bool(matches(c)) != bool(c.strip() and c != "\0")]
    assert wrong == []
    for title in ("x" * 255, " \x85x" + "x" * 253 + "y\u3000\n", "a b", "x\ny"):
        assert matches(title)
    for title in ("", " \x1c", "x" * 256, " " + "x" * 256, "a\0b", "\0", "a\0"):
        assert not matches(title)
    assert re.search(NO_NULL_CHARACTERS, "a\n")
    assert not re.search(NO_NULL_CHARACTERS, "a\0")


def test_the_documentation_needs_no_other_host(api):
    page = api.get("/api/docs").decode()
    assert api.last["Content-Security-Policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "font-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
        "form-action 'none'"
    )
    assert "//" not in page
    files = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(files) == 4
    for file in files:
        response = api.client.get(file)
        assert response.status_code == 200
        assert response.getvalue()

"""Bad input on every route: the right refusal, no 5xx, and the data as it was."""

import json
import socket
from contextlib import closing

import httpx
import pytest

from tasks.models import Task
from tests.client import ALICE, NOBODYS, TASKS
from tests.database_plugin import open_live_server
from tests.values import READS, WRITES, shown

LIMIT = 64 * 1024

NOT_JSON = [
    b" ",
    b"\n\t",
    b"\x00",
    b"{",
    b"}",
    b"{}{}",
    b"{} x",
    b"{'title': 'x'}",
    b'{"title": "x",}',
    b'{"title": "x" /* comment */}',
    b'{title: "x"}',
    b"title=x",
    b"undefined",
    b"True",
    b"NaN",
    b"-Infinity",
    b'{"title": NaN}',
    b'{"is_completed": Infinity}',
    b'{"is_completed": 1e400}',  # too large for a double
    b'{"title": ' + b"9" * 5000 + b"}",
    b'{"title": 01}',
    b'{"title": "\n"}',  # a control character unescaped
    b'{"title": "\x00"}',
    b'{"title": "\\x41"}',
    b'{"title": "\\ud800"}',  # lone surrogates, and in the wrong order
    b'{"title": "\\ude00\\ud83d"}',
    b'{"description": "x\\udfffx"}',
    b'{"\\ud800": 1}',
    '{"title": "\ud800"}'.encode(errors="surrogatepass"),
    b'{"title": "\xff"}',
    b'{"title": "\xc0\x80"}',
    b'{"title": "caf\xe9"}',
    b'\xef\xbb\xbf{"title": "x", "description": null, "is_completed": true}',
    '{"title": "x"}'.encode("utf-16"),
    '{"title": "x"}'.encode("utf-32-be"),
    b"[" * 1000,
    b"[" * 60_000,
    b"[" * 30_000 + b"]" * 30_000,
    b'{"title":' * 7000,
    b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
]

NO_OBJECT = [
    b"null",
    b"true",
    b"0",
    b"-0.0",
    b"1e300",
    b"18446744073709551616",
    b'""',
    b'"title"',
    b"[]",
    b"[{}]",
    b'[["title", "x"]]',
    b'[{"title": "x", "description": null, "is_completed": true}]',
    b"[" * 900 + b"]" * 900,
]

# These members are wrong in every write, whatever else the body has.
NO_MEMBERS = [
    {"is_completed": "true"},
    {"is_completed": 10**18},
    {"is_completed": 1e300},
    {"is_completed": {"a": [{}] * 100}},
    {"title": {"$ne": ""}},
    {"title": "a\0"},
    {"title": "x" * 60_000},
    {"owner": ALICE},
    {"__proto__": {"is_completed": True}},
    {"Title": "x"},
    {"title\0": "x"},
    {"x" * 60_000: 1},
]

BODIES = [
    *((body, 400, "parse_error") for body in NOT_JSON),
    *((body, 422, "validation_error") for body in NO_OBJECT),
    *((body, 422, "validation_error") for body in NO_MEMBERS),
    (b"[" * 100_000, 413, "content_too_large"),
    (b" " * (LIMIT + 1), 413, "content_too_large"),
    (json.dumps({"title": "x" * 70_000}), 413, "content_too_large"),
]

CONTENT_TYPES = [
    "text/plain",
    "text/json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "multipart/form-data",
    "application/xml",
    "application/jsonx",
    "application/json-patch+json",
    "application/json,application/json",
    "json",
    "/",
    ";",
    "*/*",
    "application/*",
    "\xe4\x00",
]

IDS = [
    "1",
    "null",
    "undefined",
    " ",
    "%00",
    "%0A",
    "%FF",
    "%F0%9F%98%80",
    "..",
    "-",
    "a" * 2000,
    ALICE.replace("-", ""),
    f"{{{ALICE}}}",
    f"urn:uuid:{ALICE}",
    f"{ALICE}%0A",
    f"{ALICE}%00",
    f"%20{ALICE}",
    f"{ALICE}%20",
    f"{ALICE}0",
    ALICE[:-1],
    ALICE.replace("a", "g"),
    ALICE.replace("-", "_"),
    ALICE.replace("0", "%D9%A0"),  # ARABIC-INDIC DIGIT ZERO
    "a11ce0000000-4000-8000-0000-00000001",
]

NO_URLS = [
    "/",
    "/api",
    "/api/",
    f"/api/{ALICE}",
    "/api//tasks",
    f"/api/{ALICE}//tasks",
    f"{TASKS}//",
    f"{TASKS}//{NOBODYS}",
    f"{TASKS}/{NOBODYS}//",
    f"{TASKS}/{NOBODYS}//complete",
    f"{TASKS}/{NOBODYS}%2Fcomplete%2F%2F",
    f"{TASKS}/{NOBODYS}/complete/x",
    f"{TASKS}/{NOBODYS}/Complete",
    f"{TASKS}%0A",
    f"{TASKS}%00",
    f"{TASKS}.json",
    f"{TASKS}/{NOBODYS}/complete%0A",
    TASKS.upper(),
    f"{TASKS}/%2E%2E/%2E%2E",
    "/healthz//",
    "/readyz/x",
    "/%00",
    "/%FF",
    "/favicon.ico",
    "/static/nothing.css",
    "/static/../manage.py",
    "/administrator",
    "/" + "a" * 5000,
]


@pytest.fixture
def task(api):
    return api.create(description="")


@pytest.fixture
def unchanged(task):
    """The data must be the same after the test."""
    before = list(Task.objects.values())
    yield task
    assert list(Task.objects.values()) == before


@pytest.mark.parametrize(("method", "route", "good", "status"), WRITES)
def test_it_rejects_bad_bodies(
    api, unchanged, method, route, good, status, django_assert_num_queries
):
    path = TASKS + route.format(**unchanged)
    with django_assert_num_queries(0):
        for body, expected, code in BODIES:
            if isinstance(body, dict):
                body = json.dumps({**good, **body})
            problem = api.request(method, path, body, expected)
            assert (shown(body), problem["code"]) == (shown(body), code)
            assert ("errors" in problem) == (expected == 422 and not isinstance(body, bytes))


@pytest.mark.parametrize(("method", "route", "good", "status"), WRITES)
def test_it_rejects_other_content_types(
    api, unchanged, method, route, good, status, django_assert_num_queries
):
    path = TASKS + route.format(**unchanged)
    with django_assert_num_queries(0):
        for content_type in ["", *CONTENT_TYPES]:
            problem = api.request(method, path, good, 415, headers={"Content-Type": content_type})
            assert (content_type, problem["code"]) == (content_type, "unsupported_media_type")


@pytest.mark.parametrize(("method", "route", "good", "status"), WRITES)
@pytest.mark.parametrize(
    "content_type",
    [
        "application/json; charset=utf-8",
        "application/json;charset=UTF-16",  # RFC 8259 section 11: means nothing
        "Application/JSON ;",
        ' application/json; x="y;z"',
    ],
)
def test_it_accepts_json_with_any_parameters(api, task, method, route, good, status, content_type):
    path = TASKS + route.format(**task)
    api.request(method, path, good, status, headers={"Content-Type": content_type})


@pytest.mark.parametrize("encoding", ["gzip", "identity", "x"])
@pytest.mark.parametrize(("method", "route", "good", "status"), WRITES)
def test_it_rejects_a_body_with_a_content_encoding(
    api, unchanged, method, route, good, status, encoding
):
    path = TASKS + route.format(**unchanged)
    problem = api.request(method, path, good, 415, headers={"Content-Encoding": encoding})
    assert problem["code"] == "unsupported_media_type"
    assert api.last["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(("method", "route", "status"), READS)
def test_a_content_encoding_of_no_body_is_ignored(api, task, method, route, status):
    path = TASKS + route.format(**task)
    api.request(method, path, None, status, headers={"Content-Encoding": "gzip"})


@pytest.mark.parametrize(
    ("method", "route"), [(m, r) for m, r, *_ in WRITES if "complete" not in r]
)
def test_it_requires_a_body(api, unchanged, method, route):
    path = TASKS + route.format(**unchanged)
    assert api.request(method, path, None, 400)["code"] == "parse_error"


@pytest.mark.parametrize(("method", "route", "good", "status"), WRITES)
def test_a_body_of_64_kibibytes_is_taken(api, task, method, route, good, status):
    path = TASKS + route.format(**task)
    body = json.dumps(good).encode()
    api.request(method, path, body.ljust(LIMIT), status)
    api.request(method, path, body.ljust(LIMIT + 1), 413)


@pytest.mark.parametrize(
    ("method", "route"),
    [*((m, r) for m, r, *_ in WRITES), *((m, r) for m, r, _ in READS), ("DELETE", "/{id}")],
)
def test_it_rejects_malformed_ids(api, unchanged, method, route, django_assert_num_queries):
    paths = [f"/api/{id}/tasks{route.format(**unchanged)}" for id in IDS]
    if route:
        paths += [TASKS + route.format(id=id) for id in IDS]
    with django_assert_num_queries(0):
        for path in paths:
            problem = api.request(method, path, None, 400)
            if method != "HEAD":
                assert (path, problem["code"]) == (path, "malformed_id")
                assert problem["detail"].startswith("user_id" if TASKS not in path else "id")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"])
def test_other_urls_are_404(api, method, django_assert_num_queries):
    with django_assert_num_queries(0):
        for path in NO_URLS:
            problem = api.request(method, path, b"x" * 70_000 if method == "POST" else None, 404)
            assert (path, problem["code"]) == (path, "not_found")


@pytest.mark.parametrize(("method", "route", "status"), READS)
def test_a_body_of_a_read_is_ignored(api, task, method, route, status):
    path = TASKS + route.format(**task)
    api.request(method, path, b"{", status, content_type="text/plain")


ODD_HEADERS = [
    {"Accept-Encoding": "gzip;q=nan"},
    {"Accept-Language": "\xff" * 100},
    {"Authorization": "Bearer x"},
    {"Authorization": "\xff"},
    {"Cookie": "sessionid=\xff; csrftoken="},
    {"Idempotency-Key": "x"},
    {"If-Modified-Since": "yesterday"},
    {"If-None-Match": ","},
    {"Origin": "null"},
    {"Range": "bytes=0-0"},
    {"Referer": "\x01"},
    {"X-Forwarded-For": "'"},
    {"X-Forwarded-Host": "evil.example"},
    {"X-Forwarded-Proto": "gopher"},
    {"X-HTTP-Method-Override": "DELETE"},
    {"X-Requested-With": "\x7f"},
]


@pytest.mark.parametrize("headers", ODD_HEADERS, ids=lambda h: next(iter(h)))
def test_odd_headers_change_nothing(api, task, headers):
    path = f"{TASKS}/{task['id']}"
    assert api.get(path, headers=headers) == task
    assert api.patch(path, {"title": "Buy milk"}, headers=headers) == task
    assert api.post(TASKS, {"title": "x"}, headers=headers)["title"] == "x"


# Live: what the test client cannot send -----------------------------------------------------


@pytest.fixture(scope="module")
def live():
    with open_live_server() as server:
        yield server


def exchange(live, *parts):
    """Send bytes and return the response, whose connection is then closed."""
    with closing(socket.create_connection(("127.0.0.1", live.port), timeout=60)) as peer:
        for part in parts:
            peer.sendall(part)
        response = b""
        while more := peer.recv(65536):
            response += more
    head, _, body = response.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    return int(lines[0].split()[1]), headers, body


def head(method, path, *headers):
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers]
    return "\r\n".join([*lines, "\r\n"]).encode()


def chunks(body, size=50_000):
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return [b"%x\r\n%s\r\n" % (len(part), part) for part in parts] + [b"0\r\n\r\n"]


JSON = "Content-Type: application/json"
CHUNKED = "Transfer-Encoding: chunked"


@pytest.mark.live
def test_a_chunked_body_is_a_body(live):
    status, _, body = exchange(
        live, head("POST", TASKS, JSON, CHUNKED), *chunks(b'{"title": "Buy milk"}', 4)
    )
    assert status == 201
    task = json.loads(body)
    path = f"{TASKS}/{task['id']}/complete"
    for value in (True, True, False):  # a toggle would differ
        sent = chunks(json.dumps({"is_completed": value}).encode())
        status, _, body = exchange(live, head("PATCH", path, JSON, CHUNKED), *sent)
        assert (status, json.loads(body)["is_completed"]) == (200, value)
    assert exchange(live, head("PATCH", path, JSON, CHUNKED), *chunks(b"{}"))[0] == 422
    assert exchange(live, head("PATCH", path, CHUNKED), *chunks(b"{}"))[0] == 415
    httpx.delete(live.base_url + path.removesuffix("/complete")).raise_for_status()


@pytest.mark.live
@pytest.mark.parametrize(
    "body",
    [
        b"zz\r\n{}\r\n0\r\n\r\n",
        b"-2\r\n{}\r\n0\r\n\r\n",
        b"2\r\n{}??0\r\n\r\n",
        b"2\r\n{}\r\n0\r\nbad trailer\r\n\r\n",
        b"2;" + b"x" * 300_000 + b"\r\n{}\r\n0\r\n\r\n",
    ],
    ids=["size", "negative", "end", "trailer", "extension"],
)
@pytest.mark.parametrize("path", [TASKS, "/healthz"])
def test_it_rejects_malformed_chunks(live, path, body):
    status, headers, answer = exchange(live, head("POST", path, JSON, CHUNKED), body)
    assert (status, json.loads(answer)["code"]) == (400, "incomplete_body")
    assert headers["x-request-id"]


@pytest.mark.live
def test_an_unknown_url_comes_before_a_bad_body(live):
    assert exchange(live, head("POST", "/nothing", JSON, CHUNKED), b"zz\r\n")[0] == 404


@pytest.mark.live
@pytest.mark.parametrize("name", ["SCRIPT_NAME", "PATH_INFO"])
def test_headers_do_not_change_the_route(live, name):
    assert exchange(live, head("GET", TASKS, f"{name}: /api"))[0] == 200


@pytest.mark.live
@pytest.mark.parametrize("megabytes", [1, 10, 15])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_sends_too_much_gets_the_answer(live, megabytes, chunked):
    body = b"[" * (megabytes * 1_000_000)
    for path, expected in ((TASKS, 413), ("/api/nothing", 404), ("/api/1/tasks", 413)):
        if chunked:
            parts = [head("POST", path, JSON, CHUNKED, "Accept: text/x"), *chunks(body)]
        else:
            parts = [head("POST", path, JSON, f"Content-Length: {len(body)}", "Accept: x/y"), body]
        status, headers, content = exchange(live, *parts)
        assert (status, json.loads(content)["status"]) == (expected, expected)
        assert headers["content-type"] == "application/problem+json"
        assert headers["x-request-id"]
    assert httpx.get(live.base_url + TASKS, timeout=60).json() == []


@pytest.mark.live
def test_a_body_longer_than_16_mebibytes_is_not_read(live):
    status, _, content = exchange(live, head("POST", TASKS, JSON, f"Content-Length: {2**24 + 1}"))
    assert (status, json.loads(content)["code"]) == (413, "content_too_large")


@pytest.mark.live
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("//", 404),
        ("//api/x/tasks", 404),
        (f"/api/{ALICE}//tasks", 404),
        (f"{TASKS}//", 404),
        (f"{TASKS}%2F", 404),
        (f"/api/{ALICE}%2Ftasks", 404),
        (f"/api/{ALICE}%2ftasks", 404),
        (f"/api%2F{ALICE}/tasks", 404),
        ("/api/x%2Fy/tasks", 404),
        (f"http://localhost/api/{ALICE}%2Ftasks", 404),
        ("/admin%2Flogin/", 404),
        ("/admin/%2Flogin/", 404),
        ("/static%2Fadmin/css/base.css", 404),
        (f"{TASKS}%2F{NOBODYS}", 404),
        (f"{TASKS}?search=a%2Fb", 200),
        (f"{TASKS}/{NOBODYS}%00", 400),
        (f"{TASKS}/{NOBODYS}%0a", 400),
        (f"{TASKS}?limit=%0", 400),
        (f"{TASKS}?search=%", 200),
        (f"{TASKS}?search=a#b", 200),
        (f"http://localhost{TASKS}", 200),
        (f"http://evil.example{TASKS}", 200),
        ("/../api", 404),
    ],
)
def test_odd_request_targets_are_answered(live, path, expected):
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    status, headers, body = exchange(live, request.encode("latin-1"))
    assert status == expected
    assert headers["x-request-id"]
    if expected >= 400:
        assert json.loads(body)["status"] == expected


@pytest.mark.live
def test_the_longest_link_of_ours_is_taken(live):
    title = "😀" * 255
    with httpx.Client(base_url=live.base_url, timeout=60) as client:
        paths = [
            client.post(TASKS, json={"title": title}).raise_for_status().headers["Location"]
            for _ in range(2)
        ]
        query = {"search": title, "ordering": "-title", "is_completed": "false", "limit": "1"}
        first = client.get(TASKS, params=query).raise_for_status()
        link = first.headers["Link"].partition(">")[0].removeprefix("<")
        assert len(link) > 4000
        second = client.get(link).raise_for_status()
        assert first.json()[0]["id"] > second.json()[0]["id"]
        for path in paths:
            client.delete(path).raise_for_status()

"""ETag and If-None-Match (RFC 9110 sections 8.8.3 and 13.1.2), on a task and on a page of them."""

from collections.abc import Callable
from typing import Any

import pytest

from tasks.models import Task
from tests.client import API, BOB, NOBODYS, TASKS, Json

PATHS = {"task": f"{TASKS}/{{id}}", "list": TASKS}

# fmt: off
OTHERS = [
    "", '"x"', "{bare}", "'{bare}'", "w/{tag}", "W/W/{tag}", "W/ {tag}", "{tag}x", '"{bare}',
    '"*"', "**", '*, "x"', '"\0"', '"\xe9"',
]
# fmt: on


@pytest.fixture
def task(api: API) -> Json:
    return api.create(description="Two pints")


@pytest.fixture(params=[*PATHS.values()], ids=[*PATHS])
def path(request: pytest.FixtureRequest, task: Json) -> str:
    return request.param.format(id=task["id"])


def tag_of(api: API, path: str) -> str:
    api.get(path)
    return api.last["ETag"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "header",
    [
        "{tag}",
        "W/{tag}",
        "*",
        " {tag} ",
        '"x", {tag}',
        'W/"x",W/{tag}',
        '{tag},"x"',
        ', "a,b", {tag}',
    ],
)
def test_a_matching_tag_gives_304_without_a_body(
    api: API, path: str, method: str, header: str, django_assert_num_queries: Any
) -> None:
    tag = tag_of(api, path)
    # SELECT … FROM tasks_task …
    with django_assert_num_queries(1):
        api.request(
            method, path, expected=304, headers={"If-None-Match": header.replace("{tag}", tag)}
        )
    assert api.last["ETag"] == tag
    assert api.last.content == b""
    assert not {"Content-Type", "Content-Length"} & set(api.last.headers)
    assert api.last["Cache-Control"] == "private, no-cache"


@pytest.mark.parametrize("header", OTHERS)
def test_any_other_tag_gives_200(api: API, path: str, header: str) -> None:
    tag = tag_of(api, path)
    header = header.replace("{tag}", tag).replace("{bare}", tag.strip('"'))
    assert api.get(path, headers={"If-None-Match": header}) == api.get(path)


def test_an_empty_list_has_a_tag(api: API) -> None:
    api.get(TASKS, 304, headers={"If-None-Match": tag_of(api, TASKS)})


def test_head_has_the_headers_of_a_get(api: API, path: str) -> None:
    api.get(path)
    got = api.last
    api.request("HEAD", path)
    assert api.last.content == b""
    assert int(api.last["Content-Length"]) == len(got.content)
    ignored = {"X-Request-ID": ""}
    assert {**api.last.headers, **ignored} == {**got.headers, **ignored}


def test_dates_are_ignored(api: API, path: str) -> None:
    api.get(path, headers={"If-Modified-Since": "Fri, 31 Dec 2999 23:59:59 GMT"})


@pytest.mark.parametrize(
    ("path", "status"),
    [(f"{TASKS}/{NOBODYS}", 404), (f"{TASKS}?limit=0", 400), ("/api/1/tasks", 400)],
)
def test_an_error_is_never_304(api: API, path: str, status: int) -> None:
    api.get(path, status, headers={"If-None-Match": "*"})


SAME = {"title": "Buy milk", "description": "Two pints", "is_completed": False}
STALE = {"If-Match": '"2020-01-01T00:00:00.000000Z"'}


@pytest.mark.parametrize(
    ("method", "suffix", "body", "options", "moves"),
    [
        ("PUT", "", {**SAME, "title": "Buy tea"}, {}, True),
        ("PUT", "", SAME, {}, False),
        ("PATCH", "", {"description": ""}, {}, True),
        ("PATCH", "", {"description": None}, {}, True),
        ("PATCH", "", {"title": "Buy milK"}, {}, True),
        ("PATCH", "", {"title": " Buy milk "}, {}, False),
        ("PATCH", "", {}, {}, False),
        ("PATCH", "", {"updated_at": "2999-01-01T00:00:00.000000Z"}, {}, False),
        ("PATCH", "/complete", None, {}, True),
        ("PATCH", "/complete", {"is_completed": True}, {}, True),
        ("PATCH", "/complete", {"is_completed": False}, {}, False),
        ("PATCH", "", {"title": "Buy tea", "colour": "red"}, {"expected": 422}, False),
        ("PATCH", "", {"title": "Buy tea"}, {"expected": 412, "headers": STALE}, False),
        ("DELETE", "", None, {"expected": 412, "headers": STALE}, False),
    ],
)
def test_a_tag_changes_exactly_when_the_task_does(
    api: API,
    task: Json,
    method: str,
    suffix: str,
    body: Any,
    options: dict[str, Any],
    moves: bool,
) -> None:
    path = f"{TASKS}/{task['id']}"
    before, page_before = tag_of(api, path), tag_of(api, TASKS)
    api.request(method, path + suffix, body, **options)
    answered = api.last.get("ETag", before)  # a 422 has none
    after = api.get(path)
    assert answered == api.last["ETag"]
    assert (api.last["ETag"] != before) is moves
    assert (after["updated_at"] > task["updated_at"]) is moves
    assert (after == task) is not moves
    assert (tag_of(api, TASKS) != page_before) is moves


def test_the_tag_changes_after_a_time_in_the_future(api: API, task: Json) -> None:
    """Also over the second, whose fraction is zero: SQLite stores that without one."""
    path = f"{TASKS}/{task['id']}"
    Task.objects.filter(id=task["id"]).update(updated_at="2999-12-31T23:59:59.999998Z")
    tags = [tag_of(api, path)]
    for moment in ["2999-12-31T23:59:59.999999Z", "3000-01-01T00:00:00.000000Z"] + [
        f"3000-01-01T00:00:00.00000{n}Z" for n in (1, 2)
    ]:
        toggled = api.patch(f"{path}/complete", headers={"If-Match": tags[-1]})
        assert toggled["updated_at"] == moment
        assert api.last["ETag"] not in tags
        tags.append(api.last["ETag"])
        assert tag_of(api, path) == tags[-1]


def test_toggling_twice_is_two_changes(api: API, task: Json) -> None:
    path = f"{TASKS}/{task['id']}"
    tags = {tag_of(api, TASKS), tag_of(api, path)}
    for _ in range(2):
        api.patch(f"{path}/complete")
        tags |= {tag_of(api, TASKS), tag_of(api, path)}
    assert len(tags) == 6


def test_a_pages_tag_changes_when_its_link_appears_or_disappears(api: API, task: Json) -> None:
    page = f"{TASKS}?ordering=created_at&limit=1"
    alone, tag = api.get(page), api.last["ETag"]
    second = api.create()
    assert api.get(page) == alone
    assert api.last["Link"].endswith('rel="next"')
    linked = api.last["ETag"]
    assert linked != tag
    api.get(page, headers={"If-None-Match": tag})
    api.get(page, 304, headers={"If-None-Match": linked})
    api.delete(f"{TASKS}/{second['id']}")
    assert tag_of(api, page) == tag


@pytest.mark.parametrize(
    "change",
    [
        lambda api, other: api.create(BOB),
        lambda api, other: api.patch(f"{TASKS}/{other['id']}", {"title": "Buy tea"}),
        lambda api, other: api.create(),  # one more beyond the page changes no link
    ],
    ids=["another owner", "beyond the page", "made beyond the page"],
)
def test_a_pages_tag_stays_when_something_else_changes(
    api: API, task: Json, change: Callable[[API, Json], Any]
) -> None:
    other = api.create()
    page = f"{TASKS}?ordering=created_at&limit=1"
    tag = tag_of(api, page)
    change(api, other)
    assert tag_of(api, page) == tag


def test_pages_of_the_same_tasks_share_no_tag_with_what_differs(api: API) -> None:
    first, second = api.create(title="a"), api.create(title="b")
    tags = {tag_of(api, f"{TASKS}{query}") for query in ("", "?ordering=title", "?search=a")}
    assert len(tags) == 3
    api.delete(f"{TASKS}/{first['id']}")
    api.delete(f"{TASKS}/{second['id']}")
    assert tag_of(api, TASKS) not in tags

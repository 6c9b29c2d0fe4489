"""If-Match and If-None-Match (RFC 9110 section 13.1), mostly on PUT, PATCH, DELETE and complete."""

from typing import Any, NamedTuple

import pytest

from tests.client import API, BOB, NOBODYS, TASKS, Json

FULL = {"title": "Buy tea", "description": None, "is_completed": True}
UNCHANGED = {"title": "Buy milk", "description": None, "is_completed": False}
STALE = '"2020-01-01T00:00:00.000000Z"'


class Write(NamedTuple):
    method: str
    suffix: str
    body: Any
    status: int = 200

    def send(self, api: API, path: str, expected: int | None = None, **headers: str | None) -> Any:
        """Send it with the headers given, like `If_Match="…"`, and expect its usual status."""
        named = {
            name.replace("_", "-"): value for name, value in headers.items() if value is not None
        }
        expected = expected or self.status
        return api.request(self.method, path + self.suffix, self.body, expected, headers=named)


WRITES = {
    "put": Write("PUT", "", FULL),
    "put of the same": Write("PUT", "", UNCHANGED),
    "patch": Write("PATCH", "", {"title": "Buy tea"}),
    "empty patch": Write("PATCH", "", {}),
    "delete": Write("DELETE", "", None, 204),
    "toggle": Write("PATCH", "/complete", None),
    "set": Write("PATCH", "/complete", {"is_completed": True}),
}
every_write = pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)

# fmt: off
HOLDING = [
    "*", " * ", "{tag}", " {tag} ", '"x", {tag}', '{tag},"x"', f"{STALE},{{tag}}", ",{tag},",
    "W/{tag}, {tag}", '"a,b", {tag}', '"\0", {tag}',
    pytest.param("".join(f'"{n}",' for n in range(70_000)) + "{tag}", id="70,000 and the tag"),
]
NOT_HOLDING = [
    "", ",", '""', '"x"', STALE, "W/{tag}", "w/{tag}", "{bare}", "'{bare}'", '"{bare}', '{bare}"',
    '"{bare} "', "{tag}{tag}", "{tag};x", '"*"', "**", '"%"', '"\0"', '"\xe9"', '"x{bare}"',
    '"2020-01-01T00:00:00,000000Z"', '"{bare},{bare}"', '"-infinity"', '" OR TRUE"',
    pytest.param(",".join(f'"{n}"' for n in range(70_000)), id="70,000"),
]
# fmt: on


@pytest.fixture
def task(api: API) -> Json:
    return api.create()


@pytest.fixture
def path(task: Json) -> str:
    return f"{TASKS}/{task['id']}"


@pytest.fixture
def tag(api: API, task: Json) -> str:
    return api.last["ETag"]  # of the create


@every_write
def test_a_write_with_the_current_tag_takes_one_statement(
    api: API, path: str, tag: str, write: Write, django_assert_num_queries: Any
) -> None:
    # UPDATE … WHERE user_id = … AND id = … AND strpos(…, updated_at) > 0 RETURNING …
    with django_assert_num_queries(1):
        written = write.send(api, path, If_Match=tag)
    if write.method == "DELETE":
        api.get(path, 404)
    else:
        answered = api.last["ETag"]
        expected = {"is_completed": True} if write.body is None else write.body
        assert written.items() >= expected.items()
        assert api.get(path) == written
        assert api.last["ETag"] == answered
        assert (answered == tag) is (write.body in (UNCHANGED, {}))


@every_write
def test_a_write_with_another_tag_is_412_with_the_current_one(
    api: API, path: str, tag: str, write: Write, django_assert_num_queries: Any
) -> None:
    current = api.patch(path, {"description": "Two pints"})
    new_tag = api.last["ETag"]
    # the UPDATE finds no row; SELECT … tells 412 from 404
    with django_assert_num_queries(2):
        problem = write.send(api, path, 412, If_Match=tag)
    assert problem["code"] == "precondition_failed"
    assert api.last["ETag"] == new_tag
    assert api.get(path) == current
    # With the tag from the 412 the same request succeeds.
    write.send(api, path, If_Match=new_tag)


@pytest.mark.parametrize("header", HOLDING)
def test_one_matching_tag_of_several_suffices(api: API, path: str, tag: str, header: str) -> None:
    assert api.patch(f"{path}/complete", headers={"If-Match": header.replace("{tag}", tag)})


@pytest.mark.parametrize("header", NOT_HOLDING)
def test_a_weak_or_malformed_tag_matches_nothing(
    api: API, path: str, tag: str, header: str
) -> None:
    header = header.replace("{tag}", tag).replace("{bare}", tag.strip('"'))
    for write in WRITES.values():
        write.send(api, path, 412, If_Match=header)
        assert api.last["ETag"] == tag


@pytest.mark.parametrize(
    ("header", "statements"),
    [(None, 1), ("*", 1), ("{tag}", 2), (STALE, 2), ("W/{tag}", 2), ("x", 2)],
)
@every_write
def test_a_missing_task_is_404_whatever_the_precondition(
    api: API,
    task: Json,
    tag: str,
    write: Write,
    header: str | None,
    statements: int,
    django_assert_num_queries: Any,
) -> None:
    header = header and header.replace("{tag}", tag)
    problems = []
    for missing in (f"{TASKS}/{NOBODYS}", f"/api/{BOB}/tasks/{task['id']}"):
        with django_assert_num_queries(statements):
            problems.append(write.send(api, missing, 404, If_Match=header))
        assert "ETag" not in api.last
    assert problems[0] == problems[1]
    assert api.get(f"{TASKS}/{task['id']}") == task


@pytest.mark.parametrize("header", [STALE, "*", "x"])
@pytest.mark.parametrize("place", ["there", "missing"])
@pytest.mark.parametrize(
    "write",
    [
        Write("PUT", "", {"title": "Buy tea"}, 422),
        Write("PATCH", "", {"title": ""}, 422),
        Write("PATCH", "/complete", {}, 422),
        Write("PATCH", "/complete", "{", 400),
        Write("PUT", "", None, 400),
        Write("POST", "", FULL, 405),
    ],
)
def test_errors_of_the_request_itself_come_first(
    api: API, task: Json, write: Write, place: str, header: str, django_assert_num_queries: Any
) -> None:
    with django_assert_num_queries(0):
        write.send(api, f"{TASKS}/{task['id'] if place == 'there' else NOBODYS}", If_Match=header)


@every_write
def test_dates_are_ignored(api: API, path: str, write: Write) -> None:
    write.send(api, path, If_Unmodified_Since="Thu, 01 Jan 1970 00:00:00 GMT")


@pytest.mark.parametrize("name", ["put", "patch", "toggle", "set"])
def test_a_write_sent_twice_is_done_once(api: API, path: str, tag: str, name: str) -> None:
    done = WRITES[name].send(api, path, If_Match=tag)
    own_tag = api.last["ETag"]
    WRITES[name].send(api, path, 412, If_Match=tag)
    assert api.last["ETag"] == own_tag
    assert api.get(path) == done


def test_a_write_without_effect_keeps_the_tag(api: API, path: str, tag: str) -> None:
    for _ in range(2):
        api.put(path, UNCHANGED, headers={"If-Match": tag})
        assert api.last["ETag"] == tag
    api.delete(path, headers={"If-Match": tag})


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_read_whose_tag_is_not_the_current_one_is_412(
    api: API, path: str, method: str, django_assert_num_queries: Any
) -> None:
    for read in (path, TASKS):
        api.get(read)
        tag = api.last["ETag"]
        for header in (STALE, "x", f"W/{tag}"):
            with django_assert_num_queries(1):
                api.request(method, read, expected=412, headers={"If-Match": header})
            assert api.last["ETag"] == tag
        for header in ("*", tag, f"{STALE}, {tag}"):
            api.request(method, read, headers={"If-Match": header})
        # If-Match comes first (RFC 9110 section 13.2.2).
        both = {"If-Match": STALE, "If-None-Match": tag}
        api.request(method, read, expected=412, headers=both)


@every_write
@pytest.mark.parametrize("header", ["*", "{tag}", "W/{tag}", f"{STALE}, {{tag}}"])
def test_a_write_whose_if_none_match_is_the_current_tag_is_412(
    api: API, path: str, tag: str, write: Write, header: str
) -> None:
    task = api.get(path)
    problem = write.send(api, path, 412, If_None_Match=header.replace("{tag}", tag))
    assert problem["code"] == "precondition_failed"
    assert api.last["ETag"] == tag
    assert api.get(path) == task
    missing = f"{TASKS}/{NOBODYS}"
    write.send(api, missing, 404, If_None_Match=header.replace("{tag}", tag))


@every_write
def test_a_write_with_another_if_none_match_is_done_in_one_statement(
    api: API, path: str, tag: str, write: Write, django_assert_num_queries: Any
) -> None:
    with django_assert_num_queries(1):
        write.send(api, path, If_None_Match=STALE, If_Match=tag)


def test_a_create_ignores_preconditions(api: API) -> None:
    for header in (STALE, "x", "*"):
        for name in ("If-Match", "If-None-Match"):
            api.post(TASKS, {"title": "Buy tea"}, headers={name: header})

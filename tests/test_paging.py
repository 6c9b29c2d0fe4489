"""GET /api/{user_id}/tasks: pages, cursors and links (RFC 8288)."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from random import Random
from urllib.parse import parse_qs, quote, urlsplit
from uuid import UUID

import pytest

from tasks.models import Task
from tests.client import ALICE, BOB, TASKS
from tests.values import make_tasks

ORDERINGS = ["-created_at", "created_at", "-updated_at", "updated_at", "title", "-title"]
LINK = re.compile(r'<(/[!-;=?-~]+)>; rel="(next|prev)"')  # URI characters only: RFC 3986


def links(api):
    """The URL of each relation."""
    header = api.last.headers.get("Link", "")
    found = LINK.findall(header)
    assert header == ", ".join(f'<{url}>; rel="{rel}"' for url, rel in found)
    return {rel: url for url, rel in found}


def walk(api, path, rel="next"):
    """Yield the page at a path and all following ones."""
    while path:
        yield [task["id"] for task in api.get(path)]
        path = links(api).get(rel)


def cursor_of(url):
    (cursor,) = parse_qs(urlsplit(url).query)["cursor"]
    return cursor


def walk_in_a_crowd(api, path, rel, present):
    """Go on from a page while tasks come and go; return the last page.

    Of those `present` now each that survives must come, and none twice.
    """
    seen = []
    while path:
        page = [task["id"] for task in api.get(path)]
        path = links(api).get(rel)
        seen += page
        # Some of earlier and of later pages, and the two that this page's cursors are made from.
        gone = {*Random(len(seen)).sample(sorted(present), 20), *page[:1], *page[-1:]}
        Task.objects.filter(id__in=gone).delete()
        present = present - gone
        make_tasks(20)
    assert len(seen) == len(set(seen))
    assert present <= set(seen)
    return page


@pytest.mark.parametrize("ordering", ORDERINGS)
def test_each_task_is_listed_once_while_others_are_added_and_deleted(api, ordering):
    """5,000 tasks with the same times and title, so that only the ids order them."""
    make_tasks(10, user_id=UUID(BOB))
    ids = set(make_tasks(5000))
    last = walk_in_a_crowd(api, f"{TASKS}?ordering={ordering}&limit=500", "next", ids)
    way_back = links(api)["prev"]
    now = {str(id) for id in Task.objects.filter(user_id=ALICE).values_list("id", flat=True)}
    if last:
        now = {id for id in now if (id > last[0] if ordering.startswith("-") else id < last[0])}
    assert len(now) > 4000
    walk_in_a_crowd(api, way_back, "prev", now)


@pytest.mark.parametrize("ordering", ORDERINGS)
def test_next_and_prev_lead_through_the_same_tasks(api, ordering):
    titles = ["a", "B", "é", "😀", "Ａ", "a" * 255, "😀" * 255]  # noqa: RUF001
    for title in titles:
        make_tasks(5, title)
        api.create(title=title)
    key, reverse = ordering.removeprefix("-"), ordering.startswith("-")
    whole = api.get(f"{TASKS}?ordering={ordering}")
    assert whole == sorted(whole, key=lambda task: (task[key], task["id"]), reverse=reverse)
    ids = [task["id"] for task in whole]
    pages = list(walk(api, f"{TASKS}?ordering={ordering}&limit=4"))
    assert [len(page) for page in pages] == [4] * 10 + [2]
    assert sum(pages, []) == ids  # noqa: RUF017
    back = list(walk(api, links(api)["prev"], "prev"))
    assert sum(back[::-1], []) == ids[:-2]  # noqa: RUF017
    assert set(links(api)) == {"next"}
    forth = list(walk(api, links(api)["next"]))
    assert sum(forth, back[-1]) == ids
    assert set(links(api)) == {"prev"}


def test_a_page_costs_one_query_and_no_count(api, django_assert_num_queries):
    make_tasks(5)
    api.get(f"{TASKS}?limit=2&search=milk&is_completed=false")
    # SELECT … WHERE user_id = … AND is_completed = … AND (title …) AND (created_at, id) < (…)
    # ORDER BY created_at DESC, id DESC LIMIT 3
    with django_assert_num_queries(1) as queries:
        api.get(links(api)["next"])
    sql = queries[0]["sql"].upper()
    assert "COUNT" not in sql
    assert "OFFSET" not in sql


def test_links_appear_only_where_there_are_more_tasks(api):
    make_tasks(4)
    for limit, pages in ((4, 1), (1000, 1), (2, 2), (3, 2)):
        found = list(walk(api, f"{TASKS}?limit={limit}"))
        assert len(found) == pages
        assert sum(map(len, found)) == 4
        assert ("prev" in links(api)) is (pages > 1)


def test_links_keep_the_parameters_and_are_path_absolute(api):
    title = '50% & "é" 😀 +<>#?/\\_'
    for _ in range(3):
        api.create(title=title)
        api.create(title=title, is_completed=True)
        api.create(title="other")
    query = f"is_completed=false&search={quote(title)}&ordering=title&limit=1"
    ids = [page for (page,) in walk(api, f"{TASKS}/?{query}")]
    assert ids == [t["id"] for t in api.get(f"{TASKS}?ordering=title") if t["title"] == title][::2]
    api.get(f"/api/{ALICE.upper()}/tasks?{query}")
    url = urlsplit(links(api)["next"])
    assert url.path == TASKS
    given = parse_qs(url.query, strict_parsing=True)
    assert given.pop("cursor")
    assert given == {
        "is_completed": ["false"],
        "search": [title],
        "ordering": ["title"],
        "limit": ["1"],
    }


def test_the_limit_may_change_between_pages(api):
    make_tasks(10)
    ids = [task["id"] for task in api.get(TASKS)]
    api.get(f"{TASKS}?limit=2")
    cursor = cursor_of(links(api)["next"])
    assert [t["id"] for t in api.get(f"{TASKS}?cursor={cursor}")] == ids[2:]
    assert [t["id"] for t in api.get(f"{TASKS}?limit=5&cursor={cursor}")] == ids[2:7]
    back = cursor_of(links(api)["prev"])
    assert [t["id"] for t in api.get(f"{TASKS}?cursor={back}&limit=1000")] == ids[:2]


def test_an_emptied_page_links_back(api):
    make_tasks(6)
    ids = [task["id"] for task in api.get(TASKS)]
    api.get(f"{TASKS}?limit=2")
    api.get(links(api)["next"])
    both = links(api)
    Task.objects.filter(id__in=ids[:2]).delete()
    assert api.get(both["prev"]) == []
    assert set(links(api)) == {"next"}
    assert [t["id"] for t in api.get(links(api)["next"])] == ids[2:4]
    Task.objects.filter(id__in=ids[4:]).delete()
    assert api.get(both["next"]) == []
    assert set(links(api)) == {"prev"}
    assert [t["id"] for t in api.get(links(api)["prev"])] == ids[2:4]
    Task.objects.all().delete()
    assert api.get(both["next"]) == api.get(both["prev"]) == []


def test_a_cursor_is_valid_after_its_task_is_deleted(api):
    make_tasks(4)
    ids = [task["id"] for task in api.get(TASKS)]
    api.get(f"{TASKS}?limit=2")
    Task.objects.filter(id=ids[1]).delete()
    assert [t["id"] for t in api.get(links(api)["next"])] == ids[2:]


@pytest.fixture
def cursor(api):
    make_tasks(3)
    api.get(f"{TASKS}?limit=1")
    return cursor_of(links(api)["next"])


@pytest.mark.parametrize(
    "path",
    [
        f"/api/{BOB}/tasks?",
        f"{TASKS}?ordering=created_at&",
        f"{TASKS}?ordering=title&",
        f"{TASKS}?ordering=-updated_at&",
        f"{TASKS}?is_completed=false&",
        f"{TASKS}?search=milk&",
        f"{TASKS}?search=None&",
    ],
)
def test_a_cursor_is_valid_for_one_list_only(api, cursor, path, django_assert_num_queries):
    with django_assert_num_queries(0):
        problem = api.get(f"{path}cursor={cursor}", 400)
    assert problem["code"] == "invalid_cursor"
    assert [error["field"] for error in problem["errors"]] == ["cursor"]
    assert len(api.get(f"{TASKS}?ordering=-created_at&cursor={cursor}")) == 2


def test_a_cursor_of_another_spelling_is_refused(api, cursor, django_assert_num_queries):
    raw = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    flipped = [
        urlsafe_b64encode(raw[:n] + bytes([raw[n] ^ 1]) + raw[n + 1 :]).decode().rstrip("=")
        for n in range(len(raw))
    ]
    spellings = [
        *flipped,
        *(cursor[:n] for n in range(0, len(cursor), 3)),
        cursor + "=",
        cursor + "==",
        cursor + "A",
        cursor + "%0A",
        "%20" + cursor,
        cursor[:9] + "." + cursor[9:],
        cursor[:9] + "%00" + cursor[9:],
        cursor.swapcase(),
        cursor * 2,
    ]
    # The last character of base64 may have unused bits, which must be zero.
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    spellings += [cursor[:-1] + digit for digit in digits if digit != cursor[-1]]
    with django_assert_num_queries(0):
        for spelling in spellings:
            problem = api.get(f"{TASKS}?cursor={spelling}", 400)
            assert problem["code"] == "invalid_cursor"
    assert len(api.get(f"{TASKS}?cursor={cursor}")) == 2


def test_a_cursor_of_another_key_is_refused(api, cursor, settings):
    settings.SECRET_KEY = "another key"
    assert api.get(f"{TASKS}?cursor={cursor}", 400)["code"] == "invalid_cursor"


def test_a_cursor_made_with_a_former_key_is_valid(api, cursor, settings):
    settings.SECRET_KEY_FALLBACKS = ["an even older key", settings.SECRET_KEY]
    settings.SECRET_KEY = "another key"
    assert len(api.get(f"{TASKS}?cursor={cursor}")) == 2


def test_a_cursor_does_not_reveal_its_title(api):
    for _ in range(2):
        api.create(title="A secret errand")
    api.get(f"{TASKS}?ordering=title&limit=1")
    raw = urlsafe_b64decode(cursor_of(links(api)["next"]) + "==")
    assert b"secret" not in raw
    assert b"ordering" not in raw


def test_a_task_may_change_its_place_between_pages(api):
    make_tasks(6, "b")
    ids = [task["id"] for task in api.get(f"{TASKS}?ordering=title&limit=3")]
    following = links(api)["next"]
    api.patch(f"{TASKS}/{ids[2]}", {"title": "c"})
    found = [task["id"] for task in api.get(following)]
    assert len(found) == 3
    assert not set(found) & set(ids)

"""GET /api/{user_id}/tasks: content, filters, search and order."""

import gc
import weakref

import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.db import connection
from django.test import RequestFactory

from tests.client import BOB, CHARLIE, TASKS
from tests.values import KEYS, make_tasks

UNICODE = connection.vendor == "postgresql"  # SQLite folds ASCII only


def titles(api, query=""):
    return [task["title"] for task in api.get(f"{TASKS}{query}")]


def test_it_returns_an_array_newest_first(api, django_assert_num_queries):
    tasks = [api.create(title=title) for title in ("b", "a", "c")]
    api.create(owner=BOB)
    # SELECT … WHERE user_id = … ORDER BY created_at DESC, id DESC LIMIT 1001
    with django_assert_num_queries(1):
        found = api.get(TASKS)
    assert found == tasks[::-1]
    assert [list(task) for task in found] == [KEYS] * 3
    assert "Link" not in api.last.headers


def test_without_tasks_it_returns_an_empty_array(api):
    api.create()
    assert api.get(f"/api/{CHARLIE}/tasks") == []
    assert api.last.content == b"[]"


def test_it_filters_by_completion(api):
    api.create(title="open")
    api.create(title="done", is_completed=True)
    assert titles(api, "?is_completed=true") == ["done"]
    assert titles(api, "?is_completed=false") == ["open"]
    assert titles(api, "?is_completed=false&search=done") == []


SEARCHES = {
    "milk": ["MILK 100%", "other"],
    "MILK": ["MILK 100%", "other"],
    "0%25": ["MILK 100%"],
    "%25": ["MILK 100%"],
    "%zz": [],
    "%s": [],
    "_": ["snake_case"],
    "e_c": ["snake_case"],
    "%5C": ["C:\\new"],
    "%5C%5C": [],
    ":%5Cn": ["C:\\new"],
    "'": ["it's"],
    "%C3%A9": ["CAFÉ", "café"] if UNICODE else ["café"],
    "CAF%C3%89": ["CAFÉ", "café"] if UNICODE else ["CAFÉ"],
    "%F0%9F%98%80": ["smile 😀!"],
    "e+%F0%9F%98%80": ["smile 😀!"],
    "nothing like it": [],
    "a" * 255: [],
}


def test_it_searches_titles_and_descriptions(api):
    for title in ("smile 😀!", "CAFÉ", "café", "it's", "C:\\new", "snake_case", "MILK 100%"):
        api.create(title=title)
    api.create(title="other", description="…and Milk")
    api.create(owner=BOB, title="Bob's milk_%\\ é e 😀")
    for search, found in SEARCHES.items():
        assert (search, titles(api, f"?ordering=title&search={search}")) == (search, found)


def test_searches_of_255_astral_characters_are_taken(api):
    title = "%_\\" + "😀" * 252
    api.create(title=title)
    assert [task["title"] for task in api.get(f"{TASKS}?search={title.replace('%', '%25')}")] == [
        title
    ]


@pytest.fixture
def locale(db):
    """A database that sorts by language, as most do, if the server supports it."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_collation WHERE collname = 'und-x-icu'")
            if cursor.fetchall():
                cursor.execute('ALTER TABLE tasks_task ALTER title TYPE text COLLATE "und-x-icu"')


def test_titles_are_ordered_by_code_point(locale, api):
    # UTF-16 would sort U+FF21 after U+1F600, and a locale would ignore case and accents.
    made = ["b", "B", "é", "z", "a", "10", "9", "Ａ", "😀", "~", "a b", "a-b", "ab", "e\u0301"]  # noqa: RUF001
    for title in made:
        api.create(title=title)
    assert titles(api, "?ordering=title") == sorted(made)
    assert titles(api, "?ordering=-title") == sorted(made, reverse=True)


def test_it_orders_by_time(api):
    ids = [api.create(title=title)["id"] for title in "abc"]
    api.patch(f"{TASKS}/{ids[1]}", {"title": "x"})
    api.patch(f"{TASKS}/{ids[0]}", {"title": "y"})
    assert titles(api) == titles(api, "?ordering=-created_at") == ["c", "x", "y"]
    assert titles(api, "?ordering=created_at") == ["y", "x", "c"]
    assert titles(api, "?ordering=updated_at") == ["c", "x", "y"]
    assert titles(api, "?ordering=-updated_at") == ["y", "x", "c"]


@pytest.mark.parametrize(
    ("query", "field", "code"),
    [
        ("page=2", "page", "unknown_parameter"),
        ("format=json", "format", "unknown_parameter"),
        ("Limit=1", "Limit", "unknown_parameter"),
        ("offset", "offset", "unknown_parameter"),
        ("limit%20=1", "limit ", "unknown_parameter"),
        (";", ";", "unknown_parameter"),
        ("=1", "", "unknown_parameter"),
        ("%00=1", "\0", "unknown_parameter"),
        ("limit=1&limit=1", "limit", "repeated_parameter"),
        ("limit=1&limit=2", "limit", "repeated_parameter"),
        ("is_completed=true&is_completed=false", "is_completed", "repeated_parameter"),
        ("cursor=&cursor=", "cursor", "repeated_parameter"),
        ("l%69mit=1&limit=1", "limit", "repeated_parameter"),
        ("limit", "limit", "invalid"),
        ("limit=", "limit", "invalid"),
        ("limit=0", "limit", "min_value"),
        ("limit=1001", "limit", "max_value"),
        ("limit=-1", "limit", "invalid"),
        ("limit=%2B1", "limit", "invalid"),
        ("limit=+1", "limit", "invalid"),
        ("limit=1.0", "limit", "invalid"),
        ("limit=1e2", "limit", "invalid"),
        ("limit=1_0", "limit", "invalid"),
        ("limit=00001", "limit", "invalid"),
        ("limit=1%0A", "limit", "invalid"),
        ("limit=%D9%A1", "limit", "invalid"),  # ARABIC-INDIC DIGIT ONE
        ("limit=%zz", "limit", "invalid"),
        (f"limit={'9' * 5000}", "limit", "invalid"),
        ("is_completed=", "is_completed", "invalid"),
        ("is_completed=True", "is_completed", "invalid"),
        ("is_completed=1", "is_completed", "invalid"),
        ("is_completed=null", "is_completed", "invalid"),
        ("search=", "search", "blank"),
        (f"search={'a' * 256}", "search", "max_length"),
        (f"search={'%F0%9F%98%80' * 256}", "search", "max_length"),
        ("search=a%00b", "search", "null_characters_not_allowed"),
        ("ordering=", "ordering", "invalid_choice"),
        ("ordering=id", "ordering", "invalid_choice"),
        ("ordering=--title", "ordering", "invalid_choice"),
        ("ordering=title,id", "ordering", "invalid_choice"),
        ("ordering=TITLE", "ordering", "invalid_choice"),
        ("ordering=user_id", "ordering", "invalid_choice"),
        ("ordering=-title%00", "ordering", "invalid_choice"),
        ("cursor=", "cursor", "invalid_cursor"),
        ("cursor=x", "cursor", "invalid_cursor"),
        ("cursor=%00", "cursor", "invalid_cursor"),
        ("cursor=%F0%9F%98%80", "cursor", "invalid_cursor"),
        (f"cursor={'A' * 7000}", "cursor", "invalid_cursor"),
    ],
)
def test_it_rejects_bad_parameters(api, query, field, code, django_assert_num_queries):
    with django_assert_num_queries(0):
        problem = api.get(f"{TASKS}?{query}", 400)
    expected = "invalid_cursor" if code == "invalid_cursor" else "invalid_parameter"
    assert problem["code"] == expected
    (error,) = problem["errors"]
    assert (error["field"], error["code"]) == (field, code)
    assert repr(field)[1:-1] in repr(problem["detail"])


@pytest.mark.parametrize(
    ("query", "field"),
    [
        *(("search=%ff", "search"), ("search=%C3", "search"), ("search=%ed%a0%80", "search")),
        *(("search=%c0%80", "search"), ("limit=%80", "limit"), ("%ff=1", "?")),
    ],
)
def test_it_rejects_what_is_not_utf_8(api, query, field):
    problem = api.get(f"{TASKS}?{query}", 400)
    assert problem["code"] == "invalid_parameter"
    assert [error["field"] for error in problem["errors"]] == [field]


def test_it_names_every_bad_parameter(api):
    problem = api.get(f"{TASKS}?x=1&limit=0&ordering=id&search=&is_completed=no&x=2", 400)
    assert [error["field"] for error in problem["errors"]] == [
        "x",
        "x",
        "limit",
        "ordering",
        "search",
        "is_completed",
    ]


@pytest.mark.parametrize("query", ["?", "?&&", "?limit=1000", "?limit=3&", "?l%69mit=0003"])
def test_it_accepts_other_spellings_of_a_query(api, query):
    made = [api.create()["id"] for _ in range(3)]
    assert [task["id"] for task in api.get(TASKS + query)] == made[::-1]


def test_the_default_limit_is_a_thousand(api):
    make_tasks(1001)
    assert len(api.get(TASKS)) == 1000
    assert 'rel="next"' in api.last["Link"]


def test_a_list_is_freed_without_the_garbage_collector(api):
    """A cycle would keep pages of up to 2 MB in memory for many requests."""
    api.create()
    handler = WSGIHandler()
    gc.collect()
    gc.disable()
    try:
        response = handler.get_response(RequestFactory().get(TASKS, headers={"Host": "localhost"}))
        assert response.status_code == 200
        response.close()
        page = weakref.ref(response)
        del response
        assert page() is None
    finally:
        gc.enable()

"""POST with an Idempotency-Key: a retry creates no second task."""

from typing import Any

import pytest

from tests.client import API, BOB, TASKS, Json

MILK = {"title": "Buy milk"}
KEY = {"Idempotency-Key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}


@pytest.fixture
def task(api: API) -> Json:
    return api.post(TASKS, MILK, headers=KEY)


def test_a_replay_has_the_same_response(
    api: API, task: Json, django_assert_num_queries: Any
) -> None:
    first = api.last
    # INSERT … ON CONFLICT (user_id, idempotency_key) … RETURNING …
    with django_assert_num_queries(1):
        assert api.post(TASKS, MILK, headers=KEY) == task
    for name in ("Location", "ETag", "Content-Type", "Content-Length"):
        assert api.last[name] == first[name]
    assert api.get(TASKS) == [task]


def test_a_new_key_takes_one_statement(api: API, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):
        api.post(TASKS, MILK, headers=KEY)


def test_without_a_key_every_post_creates(api: API) -> None:
    assert len({api.post(TASKS, MILK)["id"] for _ in range(3)}) == 3


def test_keys_are_compared_exactly(api: API) -> None:
    keys = ["k", "K", '"k"', "k,", "k,k", "%", "_", "*"]
    ids = {api.post(TASKS, MILK, headers={"Idempotency-Key": key})["id"] for key in keys}
    assert len(ids) == len(keys)


PAYLOADS = {
    "trimmed": ({"title": " a "}, {"title": "a"}),
    "null for omitted": ({"title": "a"}, {"title": "a", "description": None}),
    "false for omitted": ({"title": "a"}, {"title": "a", "is_completed": False}),
    "order": ('{"title":"a","description":"b"}', '{"description":"b","title":"a"}'),
    "spelling": ('{"title":"\\u00e9"}', '{ "title": "é" }'.encode()),
    "repeated": ('{"title":"b","title":"a"}', '{"title":"a"}'),
    "read-only": ({"title": "a", "id": "x", "updated_at": 1}, {"title": "a"}),
}


@pytest.mark.parametrize(("one", "other"), PAYLOADS.values(), ids=PAYLOADS)
@pytest.mark.parametrize("swap", [False, True])
def test_the_same_validated_values_are_the_same_payload(
    api: API, one: Any, other: Any, swap: bool
) -> None:
    first, second = (other, one) if swap else (one, other)
    made = api.post(TASKS, first, headers=KEY)
    assert api.post(TASKS, second, headers=KEY) == made


@pytest.mark.parametrize(
    "other",
    [
        {"title": "buy milk"},
        {**MILK, "description": ""},
        {**MILK, "is_completed": True},
        {**MILK, "description": "false"},
        {"title": "Buy mi", "description": "lk"},
        {"title": "Buy milk\u200b"},
    ],
)
def test_it_refuses_a_key_used_with_another_payload(
    api: API, task: Json, other: Json, django_assert_num_queries: Any
) -> None:
    with django_assert_num_queries(1):
        problem = api.post(TASKS, other, 422, headers=KEY)
    assert problem["code"] == "idempotency_key_reused"
    assert not {"ETag", "Location"} & set(api.last.headers)
    assert api.get(TASKS) == [task]
    # The refused request has not used the key.
    assert api.post(TASKS, MILK, headers=KEY) == task


def test_a_replay_returns_the_current_task(api: API, task: Json) -> None:
    path = api.last["Location"]
    changed = api.patch(path, {"title": "Buy tea", "is_completed": True})
    tag = api.last["ETag"]
    assert api.post(TASKS, MILK, headers=KEY) == changed
    assert (api.last["ETag"], api.last["Location"]) == (tag, path)
    # The payload is that of the create, not the current task.
    api.post(TASKS, {"title": "Buy tea", "is_completed": True}, 422, headers=KEY)
    assert api.get(path, headers={"If-None-Match": "x"}) == changed


@pytest.mark.parametrize("payload", [MILK, {"title": "Buy tea"}])
def test_after_a_delete_the_key_can_be_used_again(api: API, task: Json, payload: Json) -> None:
    api.delete(api.last["Location"])
    anew = api.post(TASKS, payload, headers=KEY)
    assert anew["id"] != task["id"]
    assert api.post(TASKS, payload, headers=KEY) == anew
    assert api.get(TASKS) == [anew]


def test_the_same_key_of_another_owner_is_another_key(api: API, task: Json) -> None:
    bobs = api.post(f"/api/{BOB}/tasks", {"title": "Sell milk"}, headers=KEY)
    assert bobs["user_id"] == BOB
    assert api.post(TASKS, MILK, headers=KEY) == task
    api.delete(api.last["Location"])
    assert api.post(f"/api/{BOB}/tasks", {"title": "Sell milk"}, headers=KEY) == bobs


BAD_KEYS = ["", " ", "a b", "a" * 256, "a\tb", "a\n", "\0", "\x7f", "\x80", "é", "€", "鍵"]


@pytest.mark.parametrize("key", BAD_KEYS, ids=ascii)
def test_it_rejects_a_key_that_is_not_1_to_255_visible_ascii_characters(
    api: API, key: str, django_assert_num_queries: Any
) -> None:
    with django_assert_num_queries(0):
        for body in (MILK, {"title": ""}):
            problem = api.post(TASKS, body, 400, headers={"Idempotency-Key": key})
            assert problem["code"] == "invalid_idempotency_key"
    assert api.get(TASKS) == []


@pytest.mark.parametrize("key", ["!", "~", "a" * 255, "".join(map(chr, range(0x21, 0x7F)))])
def test_every_visible_ascii_character_may_be_in_a_key(api: API, key: str) -> None:
    headers = {"Idempotency-Key": key}
    assert api.post(TASKS, MILK, headers=headers) == api.post(TASKS, MILK, headers=headers)


@pytest.mark.parametrize(
    ("body", "status"), [({"title": ""}, 422), ({**MILK, "colour": "red"}, 422), ("{", 400)]
)
def test_a_refused_create_does_not_use_its_key(api: API, body: Any, status: int) -> None:
    api.post(TASKS, body, status, headers=KEY)
    assert api.post(TASKS, MILK, headers=KEY)["title"] == "Buy milk"


def test_an_unsupported_media_type_comes_before_a_bad_key(api: API) -> None:
    api.post(TASKS, MILK, 415, content_type="text/plain", headers={"Idempotency-Key": ""})


@pytest.mark.parametrize("key", [KEY["Idempotency-Key"], "another", *BAD_KEYS[:4]])
def test_other_methods_ignore_it(api: API, task: Json, key: str) -> None:
    path = api.last["Location"]
    headers = {"Idempotency-Key": key}
    for _ in range(2):
        api.get(TASKS, headers=headers)
        api.get(path, headers=headers)
    # Sent again under the same key these are done again.
    assert [api.patch(f"{path}/complete", headers=headers)["is_completed"] for _ in "12"] == [
        True,
        False,
    ]
    for title in ("Buy tea", "Buy coffee"):
        full = {"title": title, "description": None, "is_completed": False}
        assert api.patch(path, {"title": title}, headers=headers)["title"] == title
        assert api.put(path, full, headers=headers)["title"] == title
    api.delete(path, headers=headers)
    api.delete(path, 404, headers=headers)


def test_preconditions_are_ignored(api: API, task: Json) -> None:
    for header in ("If-Match", "If-None-Match"):
        for tag in ("*", api.last["ETag"], '"x"'):
            assert api.post(TASKS, MILK, headers={**KEY, header: tag}) == task

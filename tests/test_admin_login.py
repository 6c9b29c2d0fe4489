"""Guessing an operator's password at /admin/login/."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from axes.models import AccessAttempt, AccessFailureLog, AccessLog
from django.contrib.auth.models import User
from django.core.serializers import serialize
from django.db.models import F
from django.test import Client

from tests.database_plugin import LiveServer

LOGIN = "/admin/login/"
PASSWORD = "correct horse battery staple"
GUESSES = [f"hunter-{number:02}" for number in range(30)]
LIMIT = 10


@pytest.fixture
def operator(db: None) -> User:
    return User.objects.create_superuser("operator", password=PASSWORD)


def login(
    password: str, username: str = "operator", address: str = "192.0.2.1", **headers: str
) -> Any:
    """The response to a login from a new browser at that address."""
    client = Client(REMOTE_ADDR=address, headers=headers)
    return client.post(LOGIN, {"username": username, "password": password, "next": "/admin/"})


def is_in(response: Any) -> bool:
    return bool(response.status_code == 302 and "sessionid" in response.cookies)


def guess(count: int, **options: Any) -> list[int]:
    return [login(password, **options).status_code for password in GUESSES[:count]]


def test_after_ten_wrong_passwords_the_right_one_is_refused(operator: User, caplog: Any) -> None:
    assert guess(LIMIT - 1) == [200] * 9  # the form once more
    assert guess(3) == [429] * 3
    refused = login(PASSWORD)
    assert (refused.status_code, refused["Retry-After"]) == (429, "900")
    assert refused["Content-Type"] == "application/problem+json"
    assert refused.json()["code"] == "too_many_attempts"
    assert "sessionid" not in refused.cookies

    # Neither another user at that address nor that user at another address is locked out.
    User.objects.create_superuser("other", password=PASSWORD)
    assert is_in(login(PASSWORD, username="other"))
    assert is_in(login(PASSWORD, address="192.0.2.2"))

    # No password is kept, right or wrong.
    kept = serialize("json", [*AccessAttempt.objects.all(), *AccessFailureLog.objects.all(),
                              *AccessLog.objects.all()])  # fmt: skip
    assert "operator" in kept
    for password in (PASSWORD, *GUESSES):
        assert password not in kept
        assert password not in caplog.text


def test_after_a_quarter_of_an_hour_the_right_password_works_even_if_others_go_on_guessing(
    operator: User,
) -> None:
    guess(LIMIT)
    for minutes, expected in ((14, 429), (2, 302)):
        AccessAttempt.objects.update(attempt_time=F("attempt_time") - timedelta(minutes=minutes))
        assert login(GUESSES[0] if expected == 429 else PASSWORD).status_code == expected


def test_the_right_password_resets_the_count(operator: User) -> None:
    for _ in range(2):
        guess(LIMIT - 1)
        assert is_in(login(PASSWORD))


@pytest.mark.parametrize(
    "disguise",
    [
        lambda number: {"X-Forwarded-For": f"203.0.113.{number}"},
        lambda number: {"X-Real-IP": f"203.0.113.{number}", "Forwarded": f"for=203.0.113.{number}"},
        lambda number: {"User-Agent": f"Browser/{number}", "Accept": f"text/x-{number}"},
        lambda number: {"X-Requested-With": "XMLHttpRequest"},
    ],
    ids=["X-Forwarded-For", "other addresses", "browsers", "script"],
)
def test_other_headers_do_not_hide_the_client(
    operator: User, disguise: Callable[[int], Any]
) -> None:
    statuses = [
        login(password, **disguise(number)).status_code for number, password in enumerate(GUESSES)
    ]
    assert statuses == [200] * 9 + [429] * 21
    assert login(PASSWORD, **disguise(99)).status_code == 429


@pytest.mark.parametrize(
    ("proxies", "forwarded", "address"),
    [
        (0, "203.0.113.1", "192.0.2.1"),
        (1, "203.0.113.1", "203.0.113.1"),
        (1, "198.51.100.9, 203.0.113.1", "203.0.113.1"),  # the first was made up by the client
        (2, "198.51.100.9, 203.0.113.1,10.0.0.1", "203.0.113.1"),
        (2, "203.0.113.1", "203.0.113.1"),  # past one of the proxies
        (1, "2001:DB8::0:1", "2001:db8::1"),
        (1, "", "192.0.2.1"),
        (1, "unknown", "192.0.2.1"),
        (1, "203.0.113.1,", "192.0.2.1"),
        (1, "'; DROP TABLE", "192.0.2.1"),
    ],
)
def test_trusted_proxies_say_which_address_is_locked_out(
    operator: User, settings: Any, proxies: int, forwarded: str, address: str
) -> None:
    settings.TRUSTED_PROXIES = proxies
    login(GUESSES[0], **{"X-Forwarded-For": forwarded})
    assert AccessAttempt.objects.get().ip_address == address


def test_behind_a_trusted_proxy_a_stranger_locks_out_only_themselves(
    operator: User, settings: Any
) -> None:
    settings.TRUSTED_PROXIES = 1
    guess(LIMIT, **{"X-Forwarded-For": "203.0.113.1"})
    assert login(PASSWORD, **{"X-Forwarded-For": "203.0.113.1"}).status_code == 429
    assert is_in(login(PASSWORD, **{"X-Forwarded-For": "203.0.113.2"}))


@pytest.mark.parametrize(
    "name", [" operator", "operator ", "\N{FULLWIDTH LATIN SMALL LETTER O}perator"]
)
def test_other_spellings_of_a_name_count_as_that_name(operator: User, name: str) -> None:
    """Django's form strips white space and normalizes with NFKC."""
    assert guess(LIMIT - 1) == [200] * 9
    assert login(GUESSES[0], username=name).status_code == 429
    assert login(PASSWORD, username=name).status_code == 429


@pytest.mark.parametrize("length", [151, 256, 20_000])
def test_attempts_for_overlong_names_are_counted_too(db: None, length: int) -> None:
    assert guess(LIMIT + 1, username="x" * length) == [200] * 9 + [429] * 2


def test_attempts_for_unknown_names_are_counted_too(db: None) -> None:
    """A difference would reveal which names exist."""
    assert guess(LIMIT + 1, username="nobody") == [200] * 9 + [429] * 2


@pytest.mark.live
def test_two_services_on_one_database_count_together(
    live_server_factory: Callable[..., LiveServer],
) -> None:
    first = live_server_factory(WEB_CONCURRENCY="1")
    second = live_server_factory(WEB_CONCURRENCY="1", DATABASE_URL=first.database_url)

    def attempt(server: LiveServer, password: str, number: int) -> int:
        headers = {"X-Forwarded-Proto": "https", "X-Forwarded-For": f"203.0.113.{number}"}
        with httpx.Client(base_url=server.base_url, headers=headers, timeout=60) as client:
            form = client.get(LOGIN)
            [token] = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', form.text)
            # httpx does not send a Secure cookie without TLS.
            cookie = form.headers["Set-Cookie"].partition(";")[0]
            data = {"username": "operator", "password": password, "csrfmiddlewaretoken": token}
            referer = f"https://127.0.0.1:{server.port}{LOGIN}"
            headers = {"Cookie": cookie, "Referer": referer}
            return client.post(LOGIN, data=data, headers=headers).status_code

    statuses = [
        attempt((first, second)[number % 2], password, number)
        for number, password in enumerate(GUESSES[: LIMIT + 2])
    ]
    assert statuses == [200] * 9 + [429] * 3
    for server in (first, second):
        assert not [password for password in GUESSES if password in server.log()]

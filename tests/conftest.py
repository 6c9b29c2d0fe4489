from collections.abc import Iterator
from importlib import import_module

import pytest
from django.core.management import call_command
from django.test import override_settings

from tests.client import API
from tests.database_plugin import on_citus


@pytest.fixture(scope="session")
def django_db_modify_db_settings_parallel_suffix() -> None:
    """Under pytest-xdist each process has a server, or memory, of its own: no need for a suffix."""


@pytest.fixture(scope="session")
def django_db_keepdb(django_db_keepdb) -> bool:
    """Django finds the database with the cluster's nodes instead of making one without."""
    return django_db_keepdb or on_citus()


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup, django_db_blocker) -> None:
    if on_citus():
        with django_db_blocker.unblock():
            call_command("distribute", "--shards=8")


@pytest.fixture(scope="session", autouse=True)
def urls() -> None:
    """The routes are those without DEBUG, also when the first test of the run sets it."""
    import_module("todo_project.urls")


@pytest.fixture(scope="session", autouse=True)
def quick_settings() -> Iterator[None]:
    """Each password otherwise takes a third of a second, and each client a look at all files."""
    hashers = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    with override_settings(PASSWORD_HASHERS=hashers, WHITENOISE_AUTOREFRESH=True):
        yield


@pytest.fixture
def api(db) -> API:
    """The service without authentication, as AUTH_MODE=none has it."""
    return API()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First the files that boot servers: they wait, and with pytest-xdist others fill the gaps."""
    live = {item.path for item in items if item.get_closest_marker("live")}
    items.sort(key=lambda item: item.path not in live)

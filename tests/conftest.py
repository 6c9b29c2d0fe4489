from collections.abc import Iterator
from importlib import import_module

import pytest
from django.core.management import call_command
from django.test import override_settings

from tests.client import API
from tests.database_plugin import on_citus


@pytest.fixture(scope="session")
def django_db_modify_db_settings_parallel_suffix() -> None:
    """No suffix: under pytest-xdist each process has its own server or file."""


@pytest.fixture(scope="session")
def django_db_keepdb(django_db_keepdb) -> bool:
    """Django uses the database of the cluster; one that it creates would have no nodes."""
    return django_db_keepdb or on_citus()


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup, django_db_blocker) -> None:
    if on_citus():
        with django_db_blocker.unblock():
            call_command("distribute", "--shards=8")


@pytest.fixture(scope="session", autouse=True)
def urls() -> None:
    """Load the routes without DEBUG, even if the first test of the run sets it."""
    import_module("todo_project.urls")


@pytest.fixture(scope="session", autouse=True)
def quick_settings() -> Iterator[None]:
    """Otherwise hashing a password takes 0.3 s, and each client lists all static files."""
    hashers = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    with override_settings(PASSWORD_HASHERS=hashers, WHITENOISE_AUTOREFRESH=True):
        yield


@pytest.fixture
def api(db) -> API:
    """A client of the service with AUTH_MODE=none."""
    return API()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run files that start servers first: they wait, and with pytest-xdist others run meanwhile."""
    live = {item.path for item in items if item.get_closest_marker("live")}
    items.sort(key=lambda item: item.path not in live)

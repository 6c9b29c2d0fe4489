from importlib import import_module

import pytest
from django.core.management import call_command

from tests.client import API
from tests.database_plugin import on_citus


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


@pytest.fixture
def api(db) -> API:
    """The service without authentication, as AUTH_MODE=none has it."""
    return API()

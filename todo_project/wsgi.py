"""The WSGI application, `todo_project.wsgi`: plain WSGI, whatever server runs it."""

import os

import django
from django.core.handlers.wsgi import WSGIHandler
from django.db import Error, connection
from django.http import HttpRequest, HttpResponseBase

from todo_project import env
from todo_project.database.errors import WrongEncoding

CONNECT_TIMEOUT = 2
"""Seconds for each address: a server whose database is away must start all the same."""

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "todo_project.settings")


class Handler(WSGIHandler):
    """Checks the thread's database connection by itself: see `TodoProjectConfig`."""

    def get_response(self, request: HttpRequest) -> HttpResponseBase:
        connection.close_if_unusable_or_obsolete()
        return super().get_response(request)


def refuse_wrong_encoding() -> None:
    """End the process with one line if the database is there and not in UTF-8."""
    if connection.vendor == "sqlite":
        return
    probe = connection.copy()  # of its own: connections must not be open when gunicorn forks
    probe.settings_dict["OPTIONS"]["connect_timeout"] = CONNECT_TIMEOUT
    try:
        probe.ensure_connection()
    except WrongEncoding as error:
        env.fail("DATABASE_URL", f"is refused: {error}")
    except Error:
        pass  # requests are told
    finally:
        probe.close()


django.setup(set_prefix=False)
application = Handler()
refuse_wrong_encoding()

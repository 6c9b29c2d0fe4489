"""The WSGI application, `todo_project.wsgi`: plain WSGI, whatever server runs it."""

import os

import django
from django.core.handlers.wsgi import WSGIHandler
from django.db import connection
from django.http import HttpRequest, HttpResponseBase

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "todo_project.settings")


class Handler(WSGIHandler):
    """Checks the thread's database connection by itself: see `TodoProjectConfig`."""

    def get_response(self, request: HttpRequest) -> HttpResponseBase:
        connection.close_if_unusable_or_obsolete()
        return super().get_response(request)


django.setup(set_prefix=False)
application = Handler()

from todo_project.database.startup import refuse_wrong_encoding  # noqa: E402  # needs the settings

refuse_wrong_encoding()

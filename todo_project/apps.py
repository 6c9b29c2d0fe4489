from django.apps import AppConfig
from django.conf import settings
from django.core.cache import close_caches
from django.core.handlers.base import reset_urlconf
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, reset_queries

from todo_project.api import converters


class TodoProjectConfig(AppConfig):
    name = "todo_project"

    def ready(self) -> None:
        from todo_project import checks  # noqa: F401  # registers them

        converters.install()  # before any route is made

        # Sending a signal that has receivers costs as much as resolving the URL, and these two are
        # sent for each request. `wsgi.Handler` checks the connections when a request starts. Once
        # more at its end is of no use: connections have no maximum age, no cache here has a
        # connection, and each request sets the URLconf again.
        request_started.disconnect(close_old_connections)
        if not settings.DEBUG:
            request_started.disconnect(reset_queries)
        request_finished.disconnect(close_old_connections)
        request_finished.disconnect(close_caches)
        request_finished.disconnect(reset_urlconf)

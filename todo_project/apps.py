from django.apps import AppConfig
from django.core.signals import request_finished
from django.db import close_old_connections


class TodoProjectConfig(AppConfig):
    name = "todo_project"

    def ready(self) -> None:
        from todo_project import checks  # noqa: F401  # registers them

        # Each request looks after its thread's connection when it starts. Once more at its end
        # finds nothing new: no connection of ours has an age to close it at.
        request_finished.disconnect(close_old_connections)

"""What is refused when the web server starts."""

from django.db import Error, connection

from todo_project import env
from todo_project.database.errors import WrongEncoding

CONNECT_TIMEOUT = 2
"""Seconds for each address: a server whose database is away must start all the same."""


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

"""Commands to begin with in development, for the banner at start and the page at `/`."""

import sys

from todo_project import settings
from todo_project.env import BASE_DIR

SAMPLE_USER = "00000000-0000-4000-8000-000000000001"
MANAGE = f"DEBUG=true {sys.executable.removeprefix(f'{BASE_DIR}/')} manage.py"


def commands(url: str) -> list[str]:
    """Shell commands that create and list tasks with the present AUTH_MODE.

    `url` is the service's, without a slash at its end.
    """
    user, token, header = SAMPLE_USER, [], ""
    if settings.AUTH_MODE == "jwt":
        header = ' -H "Authorization: Bearer $TOKEN"'
        if settings.JWT_SECRET:
            token = [f"TOKEN=$({MANAGE} issue_token {user})"]
        else:
            user, token = "SUB", ["TOKEN=...  # from your issuer; put its `sub` for SUB below"]
    return [
        *token,
        f"TASKS={url}/api/{user}/tasks",
        "JSON='Content-Type: application/json'",
        f"""curl $TASKS{header} -H "$JSON" -d '{{"title": "Buy milk"}}'""",
        f"curl $TASKS{header}",
    ]


def banner() -> str:
    url = f"http://127.0.0.1:{settings.PORT}"
    lines = "\n    ".join(commands(url))
    return f"""
  The API is ready. Try it in another terminal, in this folder and with the same environment:

    {lines}

  {url}/ leads to the documentation, the browsable API and the admin.
"""

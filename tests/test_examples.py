"""The example clients run against a live service and print what their READMEs show."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from tests.client import ALICE
from tests.database_plugin import LiveServer
from tests.issuer import SECRET, by_secret
from tools import npm
from tools.servers import CLEAN_ENVIRONMENT

pytestmark = pytest.mark.live

STORY = """\
listed 5 tasks on 3 pages
not sent again while unchanged
replaced
changed meanwhile, so look again
completed, and open again
refused: title: This field may not be blank.
refused: description: Ensure this field has no more than 2000 characters.
deleted
"""


def story(example: str, command: list[str], server: LiveServer, **token: str) -> str:
    environment = {"TASKS_URL": server.base_url, "USER_ID": ALICE, **token}
    return npm.run(npm.EXAMPLES / example, command, CLEAN_ENVIRONMENT | environment)


def assert_told(told: str) -> None:
    created, _, rest = told.partition("\n")
    assert created.startswith(f"created /api/{ALICE}/tasks/")
    assert rest == STORY


def test_the_typescript_client_compiles_and_tells_its_story(
    live_server_factory: Callable[..., LiveServer],
) -> None:
    example = npm.EXAMPLES / "typescript"
    npm.require_packages(example)
    npm.run(example, ["npm", "run", "build"])
    server = live_server_factory(AUTH_MODE="jwt", JWT_SECRET=SECRET)
    assert_told(story("typescript", ["node", "dist/story.js"], server, TOKEN=by_secret()))


def test_the_python_client_tells_its_story(
    live_server_factory: Callable[..., LiveServer],
) -> None:
    server = live_server_factory()
    assert_told(story("python", [sys.executable, "story.py"], server))

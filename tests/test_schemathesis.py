"""schemathesis compares the live service with its OpenAPI document, with all of its checks.

`make fuzz` does the same for longer: FUZZ_SECONDS is the time of both runs together. Without it the
number of examples is limited, not the time, so that every phase is reached on a busy machine too.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.client import ALICE, BOB
from tests.database_plugin import LiveServer
from tests.issuer import SECRET, bearer, by_secret
from tools.servers import CLEAN_ENVIRONMENT, PROJECT_ROOT

pytestmark = pytest.mark.live

SECONDS = os.environ.get("FUZZ_SECONDS")
EXAMPLES = 10  # of each operation, where FUZZ_SECONDS does not set the limit

# Most requests are about one owner's tasks; with random owners they would find none.
CONFIG = f"""
[dictionaries.owners]
values = ["{ALICE}"]
[parameters]
"path.user_id" = {{ dictionary = "owners", probability = 0.9 }}
"""
# Alice sends all requests. What she could read Bob asks for as well, and must not get.
CONFIG_JWT = f"""{CONFIG}
[auth.wfc]
path = "users.json"
user = "alice"
peers = ["alice", "bob"]
"""


def users(**tokens: str) -> str:
    """A file of Web Fuzzing Commons with the credentials of each user."""
    headers = {user: bearer(token) for user, token in tokens.items()}
    return json.dumps(
        {
            "auth": [
                {"name": user, "fixedHeaders": [{"name": n, "value": v} for n, v in h.items()]}
                for user, h in headers.items()
            ]
        }
    )


def fuzz(server: LiveServer, folder: Path, config: str) -> str:
    """The output of schemathesis; a failure raises AssertionError with it."""
    (folder / "schemathesis.toml").write_text(config)
    (folder / "users.json").write_text(
        users(alice=by_secret(ALICE, exp=2**32), bob=by_secret(BOB, exp=2**32))
    )
    command = [str(Path(sys.executable).with_name("schemathesis")), "run"]
    command += [f"{server.base_url}/api/schema", "--checks=all"]
    command += ["--exclude-checks=positive_data_acceptance"]
    command += [f"--max-time={int(SECONDS) // 2}" if SECONDS else f"--max-examples={EXAMPLES}"]
    # One worker: Hypothesis 6.170 fails now and then when two threads load a module's constants.
    command += ["--workers=1", "--generation-database=none", "--no-color"]
    done = subprocess.run(
        command,
        cwd=folder,
        env=CLEAN_ENVIRONMENT
        | {"SCHEMATHESIS_HOOKS": str(PROJECT_ROOT / "tests/schemathesis_hooks.py")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=int(SECONDS or 0) + 240,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        pytest.param(CONFIG, {}, id="none"),
        pytest.param(CONFIG_JWT, {"AUTH_MODE": "jwt", "JWT_SECRET": SECRET}, id="jwt"),
    ],
)
def test_the_service_does_what_its_document_says(
    live_server_factory: Callable[..., LiveServer],
    tmp_path: Path,
    config: str,
    settings: dict[str, str],
) -> None:
    printed = fuzz(live_server_factory(**settings), tmp_path, config)
    for phase in ("Examples", "Coverage", "Fuzzing", "Stateful"):
        assert f"✅ {phase}\n" in printed
    [(generated, passed)] = re.findall(r"(\d+) generated, (\d+) passed", printed)
    assert generated == passed
    assert int(generated) > 500

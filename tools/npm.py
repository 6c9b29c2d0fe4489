"""Install the packages of the Node examples from their lockfiles."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tools.servers import CLEAN_ENVIRONMENT, PROJECT_ROOT

EXAMPLES = PROJECT_ROOT / "examples"
MISSING = "npm is not on PATH: Node 20 or later with npm is needed"


def available() -> bool:
    return bool(shutil.which("node") and shutil.which("npm"))


def require_packages(example: Path) -> None:
    """Install an example's packages; skip the test if npm is missing, but not in CI."""
    if not available():
        pytest.fail(MISSING) if os.environ.get("CI") else pytest.skip(MISSING)
    install(example)


def install(example: Path) -> None:
    """Install from the lockfile if it has changed since; otherwise no network is needed."""
    lockfile = hashlib.sha256((example / "package-lock.json").read_bytes()).hexdigest()
    stamp = example / "node_modules/.installed-lockfile"
    if not stamp.is_file() or stamp.read_text() != lockfile:
        run(example, ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], os.environ)
        stamp.write_text(lockfile)


def run(
    example: Path, command: Sequence[str], environment: Mapping[str, str] = CLEAN_ENVIRONMENT
) -> str:
    """The output of a command in an example's folder; AssertionError with it on a failure."""
    done = subprocess.run(
        command,
        cwd=example,
        env=dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,  # less than the timeout in pytest.ini
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout

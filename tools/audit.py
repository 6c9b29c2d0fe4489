"""Known vulnerabilities among the locked packages: `python -m tools.audit [URL of an OSV index]`.

Exits with 1 if there are any. If the index cannot be reached, a line says so and the exit code is
0, so that `make check` works offline. pip-audit uses PyPI by default, but mirrors of PyPI often do
not serve vulnerabilities (404), and pip-audit then skips the package without an error.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request

from tools.servers import PROJECT_ROOT

INDEX = "https://api.osv.dev/v1/query"
TIMEOUT = 5  # seconds
# A usable index has vulnerabilities of this package.
VULNERABLE = {"package": {"name": "django", "ecosystem": "PyPI"}, "version": "3.2"}


def missing(index: str) -> str | None:
    """The reason why the index cannot be used; None if it can."""
    # urllib's timeout does not cover DNS.
    os.environ.setdefault("RES_OPTIONS", "timeout:2 attempts:1")
    try:
        with urllib.request.urlopen(index, json.dumps(VULNERABLE).encode(), TIMEOUT) as response:
            return None if json.load(response).get("vulns") else "it is empty"
    except (OSError, ValueError, AttributeError) as error:
        return str(error)


def main() -> int:
    index = sys.argv[1] if len(sys.argv) > 1 else INDEX
    if reason := missing(index):
        sys.stdout.write(f"Not audited for known vulnerabilities: no index at {index} ({reason})\n")
        return 0
    command = [sys.executable, "-m", "pip_audit", "--strict", "--progress-spinner=off"]
    command += ["--requirement=requirements-dev.txt", "--requirement=requirements-fast.txt"]
    command += ["--disable-pip"]
    command += ["--vulnerability-service=osv", f"--osv-url={index}", f"--timeout={TIMEOUT * 3}"]
    return subprocess.run(command, cwd=PROJECT_ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

"""Check that openapi.yaml is the document that the service serves, and lint it.

    python -m tools.openapi_check            compare and lint
    python -m tools.openapi_check --write    write openapi.yaml, and lint

There are three linters. drf-spectacular warns about types that it cannot resolve.
openapi-spec-validator, of the python-openapi project, checks the document against the
specification. Redocly CLI checks the rest: examples that do not fit their schemas, problems without
a body, parameters without a description (rules in examples/typescript/redocly.yaml). It needs npm;
without npm it is skipped, but not in CI. Of the alternatives, Spectral installs some 200 packages,
and Vacuum downloads a program when it is installed.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from openapi_spec_validator import validate

from tools import npm
from tools.servers import CLEAN_ENVIRONMENT, PROJECT_ROOT

CHECKED_IN = PROJECT_ROOT / "openapi.yaml"

# The document depends only on AUTH_MODE; the others are required settings.
ENVIRONMENT = {
    **CLEAN_ENVIRONMENT,
    "DEBUG": "false",
    "SECRET_KEY": "only for this command",
    "ALLOWED_HOSTS": "localhost",
    "DATABASE_URL": "sqlite:///never-opened.sqlite3",
    "AUTH_MODE": "jwt",
    "JWT_SECRET": "only for this command, and 32 bytes or more",
    "JWT_JWKS_URL": "",
}


def generate() -> str:
    """The document of AUTH_MODE=jwt; exits if drf-spectacular warns."""
    with tempfile.NamedTemporaryFile() as file:
        command = [sys.executable, "manage.py", "spectacular", "--validate", "--fail-on-warn"]
        command += ["--file", file.name]
        if subprocess.run(command, env=ENVIRONMENT, cwd=PROJECT_ROOT, check=False).returncode:
            sys.exit("drf-spectacular warned about the OpenAPI document")
        return Path(file.name).read_text()


def lint() -> None:
    """Raise or exit with the linters' messages about openapi.yaml."""
    validate(yaml.safe_load(CHECKED_IN.read_text()))
    if not npm.available():
        if os.environ.get("CI"):
            sys.exit(npm.MISSING)
        sys.stderr.write(f"Redocly's rules are not checked: {npm.MISSING}\n")
        return
    example = npm.EXAMPLES / "typescript"
    npm.install(example)
    quiet = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}
    npm.run(example, ["npm", "run", "lint"], CLEAN_ENVIRONMENT | quiet)


def main() -> None:
    document = generate()
    if "--write" in sys.argv[1:]:
        CHECKED_IN.write_text(document)
    elif document != CHECKED_IN.read_text():
        sys.exit("openapi.yaml is not what the service serves: accept it with `make schema`")
    lint()


if __name__ == "__main__":
    main()

"""The documents say what the service does."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
VOLATILE = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"
    r"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"
)


def sessions() -> list[tuple[str, str]]:
    """Each command of the README's sessions, with the output shown under it."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output.strip()))
    return found


class Names:
    """Ids and times by order of appearance: which ones are equal counts, not which they are."""

    def __init__(self) -> None:
        self.seen: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        return VOLATILE.sub(
            lambda match: self.seen.setdefault(match[0], f"<{len(self.seen)}>"), text
        )


@pytest.mark.live
def test_its_sessions_print_what_it_shows(live_server_factory):
    server = live_server_factory(vendor="sqlite", DEBUG="true")
    shown, printed = Names(), Names()
    end = "--- end of output ---"
    script = "".join(f"{command}\necho; echo '{end}'\n" for command, _ in sessions())
    script = script.replace("http://127.0.0.1:8000", server.base_url)
    done = subprocess.run(["bash"], input=script, capture_output=True, text=True, check=True)
    outputs = done.stdout.split(end)
    for (command, expected), output in zip(sessions(), outputs, strict=False):
        assert (command, printed(output.strip())) == (command, shown(expected))


def table(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading."""
    section = README.split(f"\n{heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split(" | ") for line in section.splitlines() if line[:1] == "|"]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def test_its_settings_are_those_that_are_read():
    readers = r"env\.(?:text|required|boolean|integer|choice|words)\(\s*\"([A-Z_]+)\""
    read = {
        name
        for path in ("todo_project/settings.py", "gunicorn.conf.py")
        for name in re.findall(readers, (ROOT / path).read_text())
    }
    shown = {name for row in table("## Settings") for name in re.findall("`([A-Z_]+)`", row[0])}
    assert shown | {"BETTER_AUTH_SECRET"} == read
    example = (ROOT / ".env.example").read_text()
    assert set(re.findall("^([A-Z_]+)=", example, re.MULTILINE)) == shown


def test_its_error_codes_are_those_of_the_openapi_document():
    document = (ROOT / "openapi.yaml").read_text()
    shown = {row[1].strip("`") for row in table("## Errors")}
    missing = {code for code in shown if not re.search(rf"\b{code}\b", document)}
    # These are said outside the API: by the admin, and to a Host that is not ours.
    assert missing <= {"csrf_failed", "invalid_host", "bad_request", "too_many_attempts"}

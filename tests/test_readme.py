"""The output shown in the documents is what the service prints; `make sessions` writes it."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.database_plugin import manage
from tools.servers import CLEAN_ENVIRONMENT, free_port

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "docs/api.md"]
VOLATILE = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"
    r"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"
)
SESSION = re.compile(r"(?<=```console\n).*?(?=```)", re.DOTALL)


def commands(document: str) -> Iterator[tuple[str, str]]:
    """Each command of a document's sessions, with the output shown under it."""
    for block in SESSION.findall(document):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            yield command, output.strip()


class Names:
    """Replace ids and times by numbers in order of appearance, so that only equality matters."""

    def __init__(self) -> None:
        self.seen: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        return VOLATILE.sub(
            lambda match: self.seen.setdefault(match[0], f"<{len(self.seen)}>"), text
        )


def run(document: str, base_url: str) -> list[str]:
    """What the commands of a document print, one after another in one shell."""
    end = "--- end of output ---"
    script = "".join(f"{command}\necho; echo '{end}'\n" for command, _ in commands(document))
    script = script.replace("http://127.0.0.1:8000", base_url)
    done = subprocess.run(["bash"], input=script, capture_output=True, text=True, check=True)
    return [output.strip() for output in done.stdout.split(end)[:-1]]


@pytest.mark.live
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_its_sessions_print_what_it_shows(live_server_factory, path):
    server = live_server_factory(vendor="sqlite", DEBUG="true")
    document = path.read_text()
    if os.environ.get("WRITE_SESSIONS"):
        outputs = iter(run(document, server.base_url))

        def written(match: re.Match[str]) -> str:
            lines = []
            for command, _ in commands(f"```console\n{match[0]}```"):
                lines += [f"$ {command}", *filter(None, [next(outputs)])]
            return "\n".join(lines) + "\n"

        document = SESSION.sub(written, document)
        path.write_text(document)
    for _ in range(2):  # a reader may run it again
        shown, printed = Names(), Names()
        for (command, expected), output in zip(
            commands(document), run(document, server.base_url), strict=True
        ):
            assert (command, printed(output)) == (command, shown(expected))


@pytest.mark.live
def test_the_block_that_tries_authentication_works_when_pasted_whole(tmp_path):
    document = (ROOT / "docs/authentication.md").read_text()
    [block] = re.findall(r"```sh\n(.*?)```", document, re.DOTALL)
    url = f"sqlite:///{tmp_path}/db.sqlite3"
    manage(url, "migrate", "--verbosity=0")
    for shown, here in {
        ".venv/bin/python": sys.executable,
        "PORT=8001": f"PORT={free_port()}",
        "make run": f"exec {sys.executable} -m todo_project > {tmp_path}/log 2>&1",
    }.items():
        assert shown in block
        block = block.replace(shown, here)
    done = subprocess.run(
        ["bash"],
        input=block,
        env={**CLEAN_ENVIRONMENT, "DATABASE_URL": url},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    refused, tasks = done.stdout.splitlines()
    assert '"code":"not_authenticated"' in refused
    assert tasks == "[]"

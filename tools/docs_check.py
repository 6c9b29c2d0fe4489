"""The documents name what there is: `python -m tools.docs_check`.

Links between Markdown files, and their anchors, lead somewhere. Every make target, setting, route
and error code that a document names exists, and each one that exists is documented.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from tools.servers import PROJECT_ROOT

FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
SETTING_READERS = re.compile(
    r"env\.(?:text|required|boolean|integer|choice|words)\(\s*\"([A-Z_]+)\""
)
OTHER_SETTINGS = {"BETTER_AUTH_SECRET"}  # shown in JWT_SECRET's row
OUTSIDE_THE_API = {"csrf_failed", "too_many_attempts"}  # the admin's


def read(path: str) -> str:
    return (PROJECT_ROOT / path).read_text()


def documents() -> dict[Path, str]:
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    done = subprocess.run(listed, cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    paths = [PROJECT_ROOT / name for name in done.stdout.splitlines()]
    return {path: path.read_text() for path in paths if path.exists()}


def anchors(document: str) -> set[str]:
    """The anchors that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def bad_links(found: dict[Path, str]) -> Iterator[str]:
    for path, document in found.items():
        for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", document)):
            if re.match("[a-z]+:", link):
                continue
            name, _, anchor = link.partition("#")
            target = (path.parent / name).resolve() if name else path
            here = path.relative_to(PROJECT_ROOT)
            if not target.exists():
                yield f"{here}: {link} leads nowhere"
            elif anchor and anchor not in anchors(target.read_text()):
                yield f"{here}: {link}: there is no such heading"


def table(document: str) -> list[list[str]]:
    """The cells of all tables, without their headings."""
    lines = [line for line in document.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def differences(what: str, documented: set[str], existing: set[str]) -> Iterator[str]:
    yield from (f"{what} {name} does not exist" for name in sorted(documented - existing))
    yield from (f"{what} {name} is not documented" for name in sorted(existing - documented))


def make_targets(found: dict[Path, str]) -> Iterator[str]:
    makefile = read("Makefile")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    command = r"(?:`|^ {4}|^\$ |^ {2})make ([a-z][a-z-]*)"
    named = {n for text in found.values() for n in re.findall(command, text, re.MULTILINE)}
    shown = set(re.findall(r'@echo "make ([a-z-]+)', makefile))
    yield from (f"make {name} does not exist" for name in sorted(named - targets))
    yield from differences("make help's", shown, targets - {"help", "clean"})


def settings(found: dict[Path, str]) -> Iterator[str]:
    sources = ("todo_project/settings.py", "gunicorn.conf.py")
    existing = {name for path in sources for name in SETTING_READERS.findall(read(path))}
    rows = table(read("docs/settings.md"))
    shown = {name for row in rows for name in re.findall("`([A-Z_]+)`", row[0])}
    yield from differences("setting", shown | OTHER_SETTINGS, existing)
    example = set(re.findall("^([A-Z_]+)=", read(".env.example"), re.MULTILINE))
    yield from differences(".env.example's", example, shown)


def routes(found: dict[Path, str]) -> Iterator[str]:
    existing = {
        f"{method.upper()} {path}"
        for path, methods in yaml.safe_load(read("openapi.yaml"))["paths"].items()
        for method in methods
    } | {"GET /api/schema", "GET /api/docs", "GET /"}
    named = r"`((?:GET|POST|PUT|PATCH|DELETE) /[^`?]*)`"
    rows = table(read("docs/api.md"))
    shown = {name for row in rows for name in re.findall(named, row[0])}
    yield from differences("route", shown, existing)
    ours = [text for path, text in found.items() if PROJECT_ROOT / "examples" not in path.parents]
    anywhere = {name for text in ours for name in re.findall(named, text)}
    yield from (f"route {name} does not exist" for name in sorted(anywhere - existing))


def error_codes(found: dict[Path, str]) -> Iterator[str]:
    schemas = yaml.safe_load(read("openapi.yaml"))["components"]["schemas"]
    codes = schemas["Problem"]["properties"]["code"]["enum"]
    rows = table(read("docs/errors.md"))
    shown = {row[1].strip("`") for row in rows if re.fullmatch(r"\d{3}", row[0])}
    yield from differences("error code", shown, {*codes, *OUTSIDE_THE_API})
    named = r"\b[45]\d\d `([a-z_]+)`"
    anywhere = {name for text in found.values() for name in re.findall(named, text)}
    yield from (f"error code {name} does not exist" for name in sorted(anywhere - shown))


def main() -> None:
    found = documents()
    checks = (bad_links, make_targets, settings, routes, error_codes)
    if problems := [problem for check in checks for problem in check(found)]:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()

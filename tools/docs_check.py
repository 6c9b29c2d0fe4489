"""Compare the documents with the code: `python -m tools.docs_check`.

The targets and anchors of links between Markdown files exist, and README.md links every page of
docs/. Every file, command, make target, setting, route and error code that a document names exists.
Every make target, setting, route and error code is documented.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tools.servers import ENVIRONMENT, PROJECT_ROOT

README = PROJECT_ROOT / "README.md"
FENCE = re.compile(r"^ *(```|~~~).*?^ *\1", re.DOTALL | re.MULTILINE)
LINK = re.compile(
    r"""\]\(<?([^)\s>]+)|^\[[^\]]+\]: *(\S+)|(?:href|src)=["']([^"']+)""", re.MULTILINE
)
READS_A_SETTING = re.compile(r"""\benv\.(?!fail)\w+\(\s*["'](\w+)["']""")
OTHER_SETTINGS = {"BETTER_AUTH_SECRET"}  # shown in JWT_SECRET's row
# Not in openapi.yaml: the admin's, and the answer to a method that a path lacks.
FOREIGN_NAMES = re.compile(
    "OTEL_.*|SSL_CERT_FILE|OWNER_PASSWORD"
    "|django_admin_log|neon_superuser|idle_in_transaction_session_timeout"
)
A_UUID = "00000000-0000-4000-8000-000000000001"


def read(path: str) -> str:
    return (PROJECT_ROOT / path).read_text()


@cache
def files() -> list[Path]:
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listed, cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    return [path for name in done.stdout.splitlines() if (path := PROJECT_ROOT / name).is_file()]


def inline_code(document: str) -> list[str]:
    found = re.findall(r"`([^`]+)`", FENCE.sub("", document))
    return [text.replace("\n", " ") for text in found]


def code(document: str) -> str:
    """Everything that a document shows as code, each piece on a new line."""
    blocks = [match[0] for match in FENCE.finditer(document)]
    indented = re.findall(r"^ {4}.*", FENCE.sub("", document), re.MULTILINE)
    return "\n".join([*blocks, *indented, *inline_code(document)])


def table(path: str) -> list[list[str]]:
    """The cells of a document's tables, row by row."""
    lines = [line for line in read(path).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def differences(what: str, documented: Iterable[str], existing: Iterable[str]) -> Iterator[str]:
    documented, existing = set(documented), set(existing)
    yield from (f"{what} {name} does not exist" for name in sorted(documented - existing))
    yield from (f"{what} {name} is not documented" for name in sorted(existing - documented))


# What exists -------------------------------------------------------------------------------------


@cache
def openapi() -> Any:
    return yaml.safe_load(read("openapi.yaml"))


@cache
def words() -> set[str]:
    """The words of all files that are not documents."""
    sources = [path for path in files() if path.suffix not in (".md", ".png")]
    return set(re.findall(r"\w+", "\n".join(path.read_text() for path in sources)))


def settings() -> set[str]:
    sources = [PROJECT_ROOT / "gunicorn.conf.py", *(PROJECT_ROOT / "todo_project").rglob("*.py")]
    return {name for path in sources for name in READS_A_SETTING.findall(path.read_text())}


def paths(patterns: Iterable[Any]) -> Iterator[str]:
    """The paths of the URLconf except the admin's, as OpenAPI writes them."""
    for pattern in patterns:
        route = re.sub(r"<\w+:(\w+)>", r"{\1}", str(pattern.pattern))
        if getattr(pattern, "app_name", None) != "admin":
            below = paths(pattern.url_patterns) if hasattr(pattern, "url_patterns") else [""]
            yield from (f"{route}{rest}" for rest in below)


@cache
def routes() -> set[str]:
    from django.urls import get_resolver

    methods = openapi()["paths"]
    served = {f"/{path}" for path in paths(get_resolver().url_patterns)} | methods.keys()
    return {f"{m.upper()} {path}" for path in served for m in methods.get(path, ["GET"])}


@cache
def error_codes() -> set[str]:
    """Every error code with its status, such as `404 not_found`."""
    from todo_project.api.problems import CODES

    openapi()  # loads all views, and with them all codes
    return {f"{status} {code}" for code, (status, _) in CODES.items()}


@cache
def field_codes() -> set[str]:
    return set(openapi()["components"]["schemas"]["FieldError"]["properties"]["code"]["enum"])


# What a document names ---------------------------------------------------------------------------


def links(path: Path, document: str) -> Iterator[tuple[str, Path, str]]:
    """Every link within the repository, with its file and anchor."""
    for groups in LINK.findall(FENCE.sub("", document)):
        link = "".join(groups)
        if not re.match("[a-z]+:", link):
            name, _, anchor = link.partition("#")
            yield link, (path.parent / name).resolve() if name else path, anchor


def anchors(document: str) -> set[str]:
    """The anchors that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def bad_links(path: Path, document: str) -> Iterator[str]:
    kept = {each for file in files() for each in (file, *file.parents)}
    for link, target, anchor in links(path, document):
        if target not in kept:
            yield f"{link} leads nowhere"
        elif anchor and anchor not in anchors(target.read_text()):
            yield f"{link}: there is no such heading"


def bad_names(path: Path, document: str) -> Iterator[str]:
    """Variables and other names with an underscore that no source has."""
    named = set(re.findall(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b", document))
    named |= {text for text in inline_code(document) if re.fullmatch("[a-z]+(_[a-z]+)+", text)}
    unknown = {name for name in named - words() if not FOREIGN_NAMES.fullmatch(name)}
    yield from (f"there is no {name}" for name in sorted(unknown))


def bad_files_and_commands(path: Path, document: str) -> Iterator[str]:
    from django.core.management import get_commands

    folders = {file.relative_to(PROJECT_ROOT).parts[0] for file in files()}
    for name in re.findall(r"(?<![\w./…-])([\w.]+/[\w./-]*)", code(document)):
        if name.split("/")[0] in folders and not (PROJECT_ROOT / name).exists():
            yield f"there is no {name}"
    for name in re.findall(r"-m ((?:tools|benchmarks|todo_project)[\w.]*)", code(document)):
        module = PROJECT_ROOT / name.replace(".", "/")
        if not (module.is_dir() or module.with_suffix(".py").exists()):
            yield f"there is no module {name}"
    for name in re.findall(r"\bmanage\.py ([a-z_]+)", code(document)):
        if name not in get_commands():
            yield f"there is no manage.py {name}"


def bad_routes(path: Path, document: str) -> Iterator[str]:
    from django.urls import Resolver404, resolve

    if PROJECT_ROOT / "examples" in path.parents:  # routes of an issuer
        return
    for text in inline_code(document):
        if re.match("(GET|POST|PUT|PATCH|DELETE) /", text) and text.split("?")[0] not in routes():
            yield f"route {text} does not exist"
    path_alone = re.compile("/(?!proc$)[a-z]*/?|/(api|admin)/[^…]*")
    alone = [text for text in inline_code(document) if path_alone.fullmatch(text)]
    for url in [*alone, *re.findall(r"127\.0\.0\.1:800\d(/[^\s`]*)", document)]:
        try:
            found = resolve(re.sub(r"\{\w+\}|<uuid:\w+>|\$USER_ID", A_UUID, url))
        except Resolver404:
            found = None
        if found is None or not found.url_name:  # the admin's catch-all matches every path
            yield f"URL {url} does not exist"


def bad_codes(path: Path, document: str) -> Iterator[str]:
    named = {" ".join(pair) for pair in re.findall(r"\b([45]\d\d)\s+`([a-z_]+)`", document)}
    yield from (f"error code {name} does not exist" for name in sorted(named - error_codes()))
    known = field_codes() | {name.split()[1] for name in error_codes()}
    shown = set(re.findall(r'"code": ?"(\w+)"', document))
    yield from (f"code {name} does not exist" for name in sorted(shown - known))


# What exists and is not documented ---------------------------------------------------------------


def pages(documents: dict[Path, str]) -> Iterator[str]:
    linked = {target for _, target, _ in links(README, documents[README])}
    ours = {path for path in documents if PROJECT_ROOT / "docs" in path.parents}
    yield from (f"README.md does not link {path.name}" for path in sorted(ours - linked))


def make_targets(documents: dict[Path, str]) -> Iterator[str]:
    variables = r"(?:[A-Z_]+=\S* )*"
    command = re.compile(rf"^[ $]*{variables}make {variables}([a-z][a-z-]*)", re.MULTILINE)
    named = {name for text in documents.values() for name in command.findall(code(text))}
    targets = set(re.findall(r"^([a-z][a-z-]*):", read("Makefile"), re.MULTILINE))
    yield from differences("make", named | {"help", "clean"}, targets)
    shown = re.findall(r'@echo "make ([a-z-]+)', read("Makefile"))
    yield from differences("make help's", shown, targets - {"help", "clean"})


def tables(documents: dict[Path, str]) -> Iterator[str]:
    shown = {n for row in table("docs/settings.md") for n in re.findall(r"`([A-Z_]+)`", row[0])}
    yield from differences("setting", shown | OTHER_SETTINGS, settings())
    example = re.findall("^([A-Z_]+)=", read(".env.example"), re.MULTILINE)
    yield from differences(".env.example's", example, shown)
    cleared = {*ENVIRONMENT, "DATABASE_URL"} - {"DJANGO_SETTINGS_MODULE"}
    yield from differences("tools/servers.py's", cleared, settings())

    shown = {n for row in table("docs/api.md") for n in re.findall(r"`([A-Z]+ /.*?)`", row[0])}
    yield from differences("route", shown, routes())

    rows = table("docs/errors.md")
    shown = {" ".join(row[:2]).replace("`", "") for row in rows if re.fullmatch(r"\d+", row[0])}
    yield from differences("error code", shown, error_codes())
    shown = {n for row in rows for n in re.findall("`([a-z]+(?:_[a-z]+)*)`", row[0])}
    yield from differences("code of a field", shown, field_codes())


def main() -> None:
    os.environ.update(ENVIRONMENT, DEBUG="true", DATABASE_URL="sqlite:///never-opened.sqlite3")
    import django

    django.setup()
    documents = {path: path.read_text() for path in files() if path.suffix == ".md"}
    problems = [
        f"{path.relative_to(PROJECT_ROOT)}: {problem}"
        for path, document in documents.items()
        for check in (bad_links, bad_names, bad_files_and_commands, bad_routes, bad_codes)
        for problem in check(path, document)
    ]
    problems += [each for check in (pages, make_targets, tables) for each in check(documents)]
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()

"""Strict readers of the environment, for settings.py.

A bad or missing variable ends the process with one line that names it: a service that starts
with half its settings fails later, and elsewhere. An empty value counts as not set.
"""

import os
import re
import sys
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from dotenv import parser

BASE_DIR = Path(__file__).resolve().parent.parent


def fail(name: str, problem: str) -> NoReturn:
    """End the process with one line on standard error and exit status 1."""
    sys.exit(f"Configuration error: {name} {problem}")


def load_dotenv(path: Path = BASE_DIR / ".env") -> None:
    """Add the variables of a `.env` file; what the environment already holds wins."""
    try:
        content = path.read_text("utf-8-sig")
    except FileNotFoundError:
        return
    except OSError as error:
        fail(path.name, f"cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        fail(path.name, "is not UTF-8")
    values: dict[str, str] = {}
    # dotenv's own loader skips a line that it cannot read and goes on.
    for binding in parser.parse_stream(StringIO(content)):
        if binding.error or (binding.key is not None and binding.value is None):
            source = binding.original.string  # begins with the blank lines before it
            line = binding.original.line + source.count("\n") - source.lstrip().count("\n")
            fail(path.name, f"line {line} is not NAME=value")
        if binding.key is not None:
            values[binding.key] = binding.value or ""
    for name, value in values.items():
        os.environ.setdefault(name, value)


def text(name: str) -> str | None:
    """The variable without surrounding white space, or None when empty or not set."""
    return os.environ.get(name, "").strip() or None


def required(name: str, default: str | None) -> str:
    """The same, or the default, which settings.py may have with DEBUG only."""
    return text(name) or default or fail(name, "is required unless DEBUG=true")


def boolean(name: str, default: bool) -> bool:
    value = text(name)
    if value is None:
        return default
    if value.lower() in ("true", "1", "yes", "on"):
        return True
    if value.lower() in ("false", "0", "no", "off"):
        return False
    fail(name, f"must be true or false, not {value!r}")


def integer(name: str, default: int, low: int, high: int) -> int:
    value = text(name)
    if value is None:
        return default
    if not (re.fullmatch("[0-9]{1,9}", value) and low <= int(value) <= high):
        fail(name, f"must be a whole number from {low} to {high}, not {value!r}")
    return int(value)


def is_url(value: str, pattern: str) -> bool:
    """Whether a value has the form of the pattern, and a port from 1 to 65535 or none."""
    with suppress(ValueError):  # of `port`
        return urlsplit(value).port != 0 and re.fullmatch(pattern, value) is not None
    return False


def choice(name: str, default: str | None, choices: tuple[str, ...]) -> str:
    value = required(name, default)
    if value not in choices:
        fail(name, f"must be one of {', '.join(choices)}, not {value!r}")
    return value


def words(name: str) -> list[str]:
    """The parts of a comma-separated list, without empty ones."""
    return [word.strip() for word in (text(name) or "").split(",") if word.strip()]


load_dotenv()

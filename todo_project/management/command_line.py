"""What management commands share: types of arguments, a progress bar, errors on one line."""

from argparse import ArgumentTypeError
from uuid import UUID

from django.core.management.base import OutputWrapper

from todo_project.api.converters import parse_uuid

BAR = 40
"""Characters of the progress bar."""


def positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 100_000_000):
        raise ArgumentTypeError(f"{text!r} is not a number from 1 to 100000000")
    return int(text)


def uuid(text: str) -> UUID:
    if (id := parse_uuid(text)) is None:
        raise ArgumentTypeError(f"{text!r} is not a UUID")
    return id


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def show_progress(stream: OutputWrapper, done: int, total: int, rate: float) -> None:
    """Draw a bar over the one before it. Does nothing where the stream is not a terminal."""
    if stream.isatty():
        bar = "#" * min(BAR, BAR * done // total)
        line = f"\r[{bar:{BAR}}] {done:,} of {total:,}, {rate:,.0f}/s "
        stream.write(line, style_func=str, ending="\n" if done >= total else "")
        stream.flush()

"""Output of the results: tables, and verdicts on minimum and target."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Cell = str | int | float | None


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Print a table; the first column is text, the others are numbers or short words."""
    lines = [list(header), *([_text(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    print(f"\n{title}\n")
    for line in lines:
        first, *others = (
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        print("  ".join([first, *others]).rstrip(), flush=True)


def _text(cell: Cell) -> str:
    match cell:
        case None:
            return ""
        case float():
            return f"{cell:.2f}"
    return str(cell)


def at_most(value: float | None, must: float | None, aim: float | None) -> str:
    """The verdict on a cost."""
    if value is None or must is None:
        return ""
    return "aim" if aim is not None and value <= aim else "ok" if value <= must else "MISSED"


def at_least(value: float | None, must: float | None, aim: float | None) -> str:
    """The verdict on a gain."""
    if value is None or must is None:
        return ""
    return "aim" if aim is not None and value >= aim else "ok" if value >= must else "MISSED"

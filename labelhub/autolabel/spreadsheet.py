"""Rows become CSV: exact, or safe to open in a spreadsheet.

A spreadsheet runs a cell that begins like a formula, whoever wrote it (CWE-1236). In the safe variant such a
cell gets an apostrophe in front, which spreadsheets take for "this is text", and `unescape_cell` takes it
away again.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

# A sign that starts a formula, also behind spaces, quotes or invisible marks, and also in its full-width
# forms. A leading apostrophe counts as a quote: so whatever is escaped still needs escaping, which makes the
# way back exact.
_DANGEROUS = re.compile(
    r"[\s'\"`´‘’‚‛“”„‟«»\u200b-\u200f\u2060\ufeff]*(?:[=+\-@\0＝＋－＠﹦﹢﹣﹫]|(?<=[\t\r\n]))"
)
_ROWS = 1000  # rows to a piece


def needs_escape(cell: str) -> bool:
    """Whether a spreadsheet could take the cell for a formula."""
    return _DANGEROUS.match(cell) is not None


def escape_cell(cell: str) -> str:
    """Put an apostrophe before a cell that a spreadsheet could run; leave every other cell as it is."""
    return "'" + cell if _DANGEROUS.match(cell) else cell


def unescape_cell(cell: str) -> str:
    """Undo `escape_cell`: ``unescape_cell(escape_cell(x)) == x`` for every text."""
    return cell[1:] if cell.startswith("'") and _DANGEROUS.match(cell, 1) else cell


def csv_writer(
    columns: Sequence[str],
    rows: Iterable[Sequence[str | None]],
    *,
    spreadsheet: bool = False,
    on_escape: Callable[[int, str], None] | None = None,
) -> Iterator[bytes]:
    """Yield a CSV file in pieces: RFC 4180, UTF-8, lines ending in CRLF, a header row first.

    Args:
        columns: the header.
        rows: cells parallel to ``columns``; None is written as an empty cell. Text comes back exactly when
            the file is read again, for a cell is quoted where it holds a comma, a quote or a line end.
        spreadsheet: begin with a byte order mark, so that Excel knows UTF-8, and escape dangerous cells and
            names.
        on_escape: is told the row (from 1; 0 is the header) and the column of each cell that was changed.
    Raises: ValueError for a row of another length.
    """
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    if spreadsheet:
        yield codecs.BOM_UTF8
        writer.writerow(_escape_row(0, columns, columns, on_escape))
    else:
        writer.writerow(columns)
    width = len(columns)
    for number, row in enumerate(rows, 1):
        if len(row) != width:
            raise ValueError(f"row {number} has {len(row)} cells for {width} columns")
        writer.writerow(_escape_row(number, columns, row, on_escape) if spreadsheet else row)
        if number % _ROWS == 0:
            yield out.getvalue().encode()
            out.seek(0)
            out.truncate()
    yield out.getvalue().encode()


def _escape_row(
    number: int,
    columns: Sequence[str],
    row: Sequence[str | None],
    on_escape: Callable[[int, str], None] | None,
) -> list[str | None]:
    escaped: list[str | None] = []
    for column, cell in zip(columns, row, strict=True):
        dangerous = isinstance(cell, str) and needs_escape(cell)
        if dangerous and on_escape is not None:
            on_escape(number, column)
        escaped.append(f"'{cell}" if dangerous else cell)
    return escaped

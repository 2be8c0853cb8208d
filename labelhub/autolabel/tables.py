"""Files become rows and rows become files: the one place to go to for reading and writing tables.

    layout = sniff(path)                      what the file seems to be; correct it with dataclasses.replace,
    layout = with_columns(path, layout)       then read the names of its columns again
    preview(path, layout)                     the first rows, as they would be read
    profile(...), guess_mapping(...)          what the columns look like, and which is the text
    for batch in read_batches(path, layout)   all rows, in constant memory; bad rows are named, none is lost
    csv_writer(...), jsonl_line(...)          the way out

Nothing is coerced: a cell is the text that stands in the file, "NA", "0012", "1e5" and "TRUE" too. A format
to come needs a parser with the ``batch`` and ``feed`` of the two there are, or its own branch in
`read_batches`.
"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from heapq import merge
from pathlib import Path

from labelhub.autolabel.columns import ColumnProfile, Mapping, guess_mapping, profile, text_problem
from labelhub.autolabel.decode import read_text
from labelhub.autolabel.delimited import DelimitedParser
from labelhub.autolabel.detect import sniff, with_columns
from labelhub.autolabel.jsonlines import JsonParser, jsonl_line
from labelhub.autolabel.layout import (
    DELIMITERS,
    ENCODINGS,
    MAX_CELL,
    MAX_COLUMNS,
    MAX_ROW,
    NO_ROWS,
    BadRow,
    Batch,
    Layout,
    Preview,
    Progress,
    Row,
    TableError,
)
from labelhub.autolabel.spreadsheet import csv_writer, escape_cell, needs_escape, unescape_cell

__all__ = [
    "DELIMITERS",
    "ENCODINGS",
    "MAX_CELL",
    "MAX_COLUMNS",
    "MAX_ROW",
    "BadRow",
    "Batch",
    "ColumnProfile",
    "Layout",
    "Mapping",
    "Preview",
    "Row",
    "TableError",
    "alike",
    "csv_writer",
    "escape_cell",
    "guess_mapping",
    "jsonl_line",
    "label_counts",
    "needs_escape",
    "preview",
    "profile",
    "read_batches",
    "read_rows",
    "sniff",
    "text_problem",
    "unescape_cell",
    "with_columns",
]


def read_batches(
    path: str | Path, layout: Layout, size: int = 5000, on_progress: Progress | None = None
) -> Iterator[Batch]:
    """Yield all rows of a file in batches, in constant memory.

    Args:
        path: the file.
        layout: how to read it, with its columns.
        size: rows in a batch, good and bad, at least 1; the last batch may be smaller, and the count is not
            exact where many rows are bad.
        on_progress: told the bytes read and the bytes in the file, after each piece of the file.
    Raises: TableError when there are no rows at all, or when the rest of the file cannot be told apart: then
        nothing that was read before should be kept.
    """
    path = Path(path)
    total = path.stat().st_size
    parser = DelimitedParser(layout, len(layout.columns)) if layout.format == "csv" else JsonParser(layout)
    empty = True
    for piece in read_text(path, layout.encoding, layout.bad_bytes):
        parser.feed(piece.text, unreadable=piece.unreadable, last=piece.last)
        batch = parser.batch
        batch.cleaned += piece.cleaned
        batch.bytes_read, batch.bytes_total = piece.bytes_read, total
        if on_progress is not None:
            on_progress(piece.bytes_read, total)
        if len(batch.rows) + len(batch.bad) >= size or piece.last:
            empty = empty and not batch.rows and not batch.bad
            parser.batch = Batch(raws=None if batch.raws is None else [])
            yield from _cut(batch, size)
    if empty:
        raise TableError(NO_ROWS)


def _cut(batch: Batch, size: int) -> Iterator[Batch]:
    """Cut a batch into some of the right size; what is not about single rows goes with the first."""
    rows, lines, raws, bad = batch.rows, batch.lines, batch.raws, batch.bad
    for start in range(0, len(rows), size) or range(1):
        stop = start + size
        batch.rows, batch.lines = rows[start:stop], lines[start:stop]
        batch.raws = None if raws is None else raws[start:stop]
        if stop < len(rows):
            end = rows[stop][0]
            batch.bad = [row for row in bad if row.number < end]
            bad = bad[len(batch.bad) :]
        else:
            batch.bad = bad
        yield batch
        batch = Batch(bytes_read=batch.bytes_read, bytes_total=batch.bytes_total)


def read_rows(
    path: str | Path, layout: Layout, on_progress: Progress | None = None
) -> Iterator[Row | BadRow]:
    """Yield every row of a file in its order, one by one; see `read_batches`, which is faster."""
    for batch in read_batches(path, layout, on_progress=on_progress):
        raws: Iterable[str | None] = batch.raws if batch.raws is not None else [None] * len(batch.rows)
        good: Iterator[Row | BadRow] = (
            Row(number, line, cells, raw)
            for (number, cells), line, raw in zip(batch.rows, batch.lines, raws, strict=True)
        )
        yield from merge(good, batch.bad, key=lambda row: row.number)


def preview(path: str | Path, layout: Layout, rows: int = 20) -> Preview:
    """Return the first rows, and the bad ones among them. Raises: TableError as `read_batches`."""
    good: list[list[str]] = []
    bad: list[BadRow] = []
    for row in read_rows(path, layout):
        if isinstance(row, BadRow):
            bad.append(row)
        else:
            good.append(row.cells)
        if len(good) == rows or len(bad) == rows:
            break
    return Preview(layout.columns, good, bad)


def label_counts(
    path: str | Path, layout: Layout, column: str, limit_rows: int | None = None, limit_values: int = 10_000
) -> dict[str, int]:
    """Count the values of a column exactly as written, the most frequent first; empty cells are not counted.

    Args:
        path: the file.
        layout: how to read it.
        column: one of ``layout.columns``.
        limit_rows: readable rows to look at; None for all.
        limit_values: different values that a label column may have.
    Raises: TableError for a column that is not there, or one with more different values.
    """
    if column not in layout.columns:
        raise TableError(f"The file has no column “{column}”; it has {', '.join(layout.columns[:20])}.")
    at = layout.columns.index(column)
    counts: Counter[str] = Counter()
    left = limit_rows
    for batch in read_batches(path, layout):
        rows = batch.rows if left is None else batch.rows[:left]
        counts.update([cells[at] for _, cells in rows])
        if len(counts) > limit_values + 1:
            raise TableError(
                f"“{column}” has more than {limit_values:,} different values, so it is no label column."
            )
        if left is not None:
            left -= len(rows)
            if left <= 0:
                break
    counts.pop("", None)
    return dict(counts.most_common())


def alike(values: Iterable[str]) -> list[list[str]]:
    """Return the groups of values that differ only in case, spaces or Unicode form, in the order given."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for value in dict.fromkeys(values):
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", value).casefold())
        groups[" ".join(folded.split())].append(value)
    return [group for group in groups.values() if len(group) > 1]

"""A table whose right labels are known becomes known data: which column plays which part, and what is in it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from labelhub.autolabel import tables
from labelhub.autolabel.backtest import prepare
from labelhub.autolabel.layout import BadRow, Layout, TableError
from labelhub.autolabel.playing import Known

Columns = Mapping[str, list[str]]


def read_columns(
    path: Path, layout: Layout | None = None, most_rows: int | None = None
) -> dict[str, list[str]]:
    """Return a file's columns by name, each of shape (rows,).

    Args:
        path: the file.
        layout: how to read it; found by looking at it where not given.
        most_rows: rows that it may have, or None for any number.
    Raises: TableError on a file that cannot be read, a row that cannot, or a row too many; OSError.
    """
    layout = layout or tables.sniff(path)
    rows: list[list[str]] = []
    for row in tables.read_rows(path, layout):
        if isinstance(row, BadRow):
            raise TableError(f"{row} A replay needs every row: correct it and try again.", row.number)
        if len(rows) == most_rows:
            raise TableError(f"The file has more than {most_rows:,} rows: too many to replay here.")
        rows.append(row.cells)
    return dict(zip(layout.columns, map(list, zip(*rows, strict=True)), strict=True))


def named_like(columns: Columns, pattern: str) -> list[str]:
    """Return the columns whose names match a pattern such as “pred_*”. Raises: TableError when none does."""
    names = [name for name in columns if fnmatchcase(name, pattern)]
    if not names:
        raise TableError(f"No column is named like “{pattern}”.")
    return names


def to_known(
    columns: Columns,
    text: Sequence[str],
    gold: str,
    *,
    predicted: str = "",
    confidence: str = "",
    votes: Sequence[str] = (),
    method: str = "ensemble",
) -> Known:
    """Return what a replay is played with.

    Args:
        columns: from ``read_columns``.
        text: names of the columns that make the text, one below the other.
        gold: name of the column with the right labels.
        predicted, confidence: names of the columns with a machine's labels and how sure it was, in [0, 1];
            both or neither.
        votes: names of the columns with labels of several machines, instead.
        method: see ``prepare``.
    Raises: TableError on a column that is missing, two parts that exclude each other, no known label, or a
        confidence that is no number; ValueError as ``prepare``.
    """
    if not text:
        raise TableError("Choose the column that holds the text.")
    if not gold:
        raise TableError("Choose the column that holds the known labels.")
    if bool(predicted) != bool(confidence):
        raise TableError("A predicted label and its confidence belong together.")
    if predicted and votes:
        raise TableError("Give a predicted label with its confidence, or votes, not both.")
    texts = ["\n".join(cells).strip() for cells in zip(*(_pick(columns, n) for n in text), strict=True)]
    labels = _labels(columns, gold)
    if not any(labels):
        raise TableError(f"“{gold}” is empty in every row, and a replay needs known labels.")
    said: dict[str, Any] = {}
    if predicted:
        said = {"predicted": _labels(columns, predicted), "confidence": _stated(columns, confidence)}
    elif votes:
        said = {"votes": {name: _labels(columns, name) for name in votes}}
    return prepare(texts, labels, method=method, **said)


def _pick(columns: Columns, name: str) -> list[str]:
    if name not in columns:
        raise TableError(f"The file has no column “{name}”; it has {', '.join(list(columns)[:20])}.")
    return columns[name]


def _labels(columns: Columns, name: str) -> list[str]:
    return [cell.strip() for cell in _pick(columns, name)]


def _stated(columns: Columns, name: str) -> list[float]:
    stated = []
    for number, cell in enumerate(_pick(columns, name), start=1):
        try:
            value = float(cell) if cell.strip() else 0.0
        except ValueError:
            value = math.nan
        if not 0 <= value <= 1:
            raise TableError(
                f"Row {number:,} has the confidence “{cell[:40]}”, not a number from 0 to 1.", number
            )
        stated.append(value)
    return stated

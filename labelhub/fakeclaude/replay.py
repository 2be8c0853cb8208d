"""A file of recorded labels, found again by the text: what each model says in each ask."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from labelhub.autolabel.known_file import named_like, read_columns
from labelhub.autolabel.labelers.prompt import visible
from labelhub.autolabel.layout import TableError

LONG = 1_000  # characters from which a text may come back cut
_MARK = re.compile(r"\[… [\d,.\s]+ characters left out …\]")
_STEM = 200  # characters of a long text's beginning that it is looked up by


class Replay:
    """Recorded answers.

    Args:
        texts: the texts, of shape (rows,); of equal ones the first row with a label counts.
        voters: the recorded labels by model id, "" for every model that is not named: for each ask a list of
            shape (rows,), empty where the model said nothing. Beyond the last list the last one answers.
        confidence: how sure the first list of "" was, in [0, 1], of shape (rows,), or None.
    """

    def __init__(
        self,
        texts: Sequence[str] = (),
        voters: Mapping[str, Sequence[Sequence[str]]] | None = None,
        confidence: Sequence[float] | None = None,
    ) -> None:
        self._voters = {model: [list(column) for column in lists] for model, lists in (voters or {}).items()}
        self._confidence = list(confidence) if confidence is not None else None
        self._rows: dict[str, int] = {}
        self._long: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
        self._all = [column for lists in self._voters.values() for column in lists]
        for row, text in enumerate(texts):
            key = _key(text)
            if key in self._rows and any(column[self._rows[key]] for column in self._all):
                continue
            self._rows[key] = row
            if len(text) > LONG:
                self._long[key[:_STEM]].append((key, row))

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, text: str) -> int | None:
        """Return the row of a text as it was sent, or None if it is not in the file.

        Spaces, Unicode form and control characters do not count. A text cut in the middle is found by its
        beginning and its end.
        """
        row = self._rows.get(_key(text))
        if row is not None or (mark := _MARK.search(text)) is None:
            return row
        start, end = _key(text[: mark.start()]), _key(text[mark.end() :])
        for whole, row in self._long.get(start[:_STEM], ()):
            if whole.startswith(start) and whole.endswith(end):
                return row
        return None

    def say(self, row: int, model: str, ask: int = 1) -> tuple[str, float] | None:
        """Return the label and the confidence of a row, or None if the model said nothing in that ask.

        The confidence is the file's where its column speaks of this label; elsewhere the share of all recorded
        labels of the row that are this one, rounded to two places.
        """
        lists = self._voters.get(model) or self._voters.get("")
        if not lists:
            return None
        label = lists[min(ask, len(lists)) - 1][row]
        if not label:
            return None
        if self._confidence is not None and "" in self._voters and label == self._voters[""][0][row]:
            return label, self._confidence[row]
        said = [column[row] for column in self._all if column[row]]
        return label, round(said.count(label) / len(said), 2)


def read_replay(
    path: Path,
    text: Sequence[str] = ("text",),
    predicted: Sequence[str] = ("predicted_label",),
    confidence: str | None = None,
    voters: Mapping[str, Sequence[str]] | None = None,
) -> Replay:
    """Read recorded answers from a CSV, JSONL, Parquet or XLSX file.

    Args:
        path: the file.
        text: names of the columns that make the text, one below the other.
        predicted: names of the columns with the labels of the first, second, ... ask; patterns such as "pred_*"
            stand for all columns that are named so, in their order.
        confidence: name of the column with the confidence of the first of them; None for "confidence" if the
            file has one.
        voters: the same as ``predicted`` for other models, by model id.
    Raises: TableError on a file that cannot be read, a column that is missing, or a confidence outside [0, 1];
        OSError.
    """
    columns = read_columns(path)
    for name in [*text, *([confidence] if confidence else [])]:
        if name not in columns:
            raise TableError(f"The file has no column “{name}”; it has {', '.join(list(columns)[:20])}.")
    texts = ["\n".join(cells).strip() for cells in zip(*(columns[name] for name in text), strict=True)]
    lists = {
        model: [
            [cell.strip() for cell in columns[name]] for given in names for name in named_like(columns, given)
        ]
        for model, names in {"": predicted, **(voters or {})}.items()
    }
    name = confidence or "confidence"
    sure = [_share(cell, row) for row, cell in enumerate(columns[name], start=1)] if name in columns else None
    return Replay(texts, lists, sure)


def _share(cell: str, row: int) -> float:
    try:
        value = float(cell) if cell.strip() else 0.0
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise TableError(f"Row {row:,} has the confidence “{cell[:40]}”, not a number from 0 to 1.", row)
    return value


def _key(text: str) -> str:
    """Return what two spellings of the same text share."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return " ".join(visible(text).split())

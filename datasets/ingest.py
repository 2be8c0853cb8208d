"""A parsed table becomes a dataset with its items: all of it, or nothing.

Rows stream through in batches, so memory does not grow with the file. What people typed or the
file calls a label becomes a Label; exact duplicates of a text point to its first row; labels
and predictions that came with the file are kept beside the items.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson
from django.db import connection, transaction
from django.utils import timezone

from datasets.bulk import insert_rows
from datasets.models import Dataset, Item, Label, LabelerVersion, Vote
from datasets.schema import (
    LONGEST_LABEL,
    MOST_LABELS,
    IngestError,
    Typed,
    check_labels,
    check_mapping,
    label_name,
    natural,
)
from labelhub.autolabel.layout import Batch, Layout

ROWS_IN_A_WRITE = 5_000  # nobody works on this dataset yet, others may work on theirs
LISTED = 1_000  # bad and empty rows that are kept by number
ROWS_IN_A_PORTION = 50_000  # of the search for duplicates
PAUSE_SECONDS = 0.002

_NUMBER = re.compile(r"[+]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass
class Report:
    """What happened to each row: read = distinct + copies + empty + skipped."""

    rows_read: int = 0
    empty: int = 0
    skipped: int = 0
    blank: int = 0  # lines without anything; they are no rows
    cleaned: int = 0  # characters that no database stores
    distinct: int = 0
    copies: int = 0
    given: int = 0
    given_conflicts: int = 0  # texts whose rows name different labels: none of them counts
    predicted: int = 0
    predicted_unknown: int = 0
    empty_rows: list[int] = field(default_factory=list)
    bad_rows: list[list[Any]] = field(default_factory=list)  # [row number, line, reason]
    conflict_rows: list[int] = field(default_factory=list)
    unknown_labels: dict[str, int] = field(default_factory=dict)

    def skip(self, number: int, line: int, reason: str) -> None:
        """Count a row that cannot be used, and list the first of them."""
        self.skipped += 1
        if len(self.bad_rows) < LISTED:
            self.bad_rows.append([number, line, reason])


def text_hash(text: str) -> int:
    """A signed 64-bit fingerprint of a text, for finding duplicates."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), signed=True)


def ingest(
    dataset: Dataset,
    path: Path,
    layout: Layout,
    mapping: Mapping[str, Any],
    labels: Typed = (),
    on_progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Read a file into an empty dataset and open it.

    PostgreSQL does it in one transaction. SQLite, where a transaction keeps everybody else from
    writing, does it in many short ones; ``clear`` removes what an interrupted reading left.

    Args:
        mapping: {"text": [columns], "label": column, "predicted": …, "confidence": …, "id": …}.
        labels: typed ones as {"name", "definition", "rules"}. Without any they come from the file; where one
            is marked "found", those that the file has beside them are added.
        on_progress: called with the bytes read inside each write, so that its error stops the reading.
    Returns: the report, as it is stored with the dataset.
    Raises: IngestError or TableError with a sentence for the file's owner.
    """
    beat = on_progress or (lambda bytes_read: None)
    whole = check_mapping(mapping, layout.columns)
    with _one_write():
        found = _make_labels(dataset, path, layout, whole, labels, beat)
        report = Report()
        version = None
        if whole["predicted"]:
            version = LabelerVersion.objects.create(dataset=dataset, method="imported")
        _Writer(dataset, layout, whole, found, version, report).write_all(path, beat)
        if report.rows_read == report.empty + report.skipped:
            raise IngestError(_nothing_left(report))
        report.copies = _link_copies(dataset, beat, path)
        _settle_given(dataset, version, report)
        _count(dataset, version, report)
        with transaction.atomic():
            beat(path.stat().st_size)
            dataset.columns, dataset.mapping, dataset.report = list(layout.columns), whole, vars(report)
            dataset.ready_at = timezone.now()
            dataset.save(update_fields=["columns", "mapping", "report", "ready_at"])
    return dataset.report


def clear(dataset: Dataset) -> None:
    """Remove everything that an interrupted reading left. Only for a dataset that was never opened."""
    if dataset.ready_at is not None:
        raise ValueError("this dataset is open")
    # Foreign keys are off on SQLite: each deleted item would be looked for in every prediction there is.
    with connection.constraint_checks_disabled(), connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM datasets_vote WHERE version_id IN "
            "(SELECT id FROM datasets_labelerversion WHERE dataset_id = %s)",
            [dataset.pk],
        )
        while True:
            cursor.execute(
                "DELETE FROM datasets_item WHERE id IN (SELECT id FROM datasets_item WHERE dataset_id = %s "
                f"ORDER BY position DESC LIMIT {ROWS_IN_A_WRITE})",
                [dataset.pk],
            )
            if cursor.rowcount <= 0:
                break
            time.sleep(PAUSE_SECONDS)
        for table in ("datasets_labelerversion", "datasets_label"):
            cursor.execute(f"DELETE FROM {table} WHERE dataset_id = %s", [dataset.pk])


def _one_write() -> AbstractContextManager[Any]:
    return transaction.atomic() if connection.vendor == "postgresql" else nullcontext()


def _nothing_left(report: Report) -> str:
    if report.rows_read == 0:
        return "The file has no rows."
    if report.bad_rows:
        number, line, reason = report.bad_rows[0]
        return f"None of the {report.rows_read:,} rows can be used. Row {number} (line {line}): {reason}."
    return f"All {report.rows_read:,} rows have an empty text. Choose another text column."


def _make_labels(
    dataset: Dataset,
    path: Path,
    layout: Layout,
    whole: dict[str, Any],
    typed: Typed,
    beat: Callable[[int], None],
) -> dict[str, int]:
    """Store the label set, typed or found in the file; returns ids by name."""
    labels = check_labels(typed)
    column = whole["label"] or whole["predicted"]
    if column and (not labels or any(one.get("found") for one in typed)):
        names = find_labels(path, layout, column, beat).keys() - {one["name"] for one in labels}
        labels += [{"name": name} for name in sorted(names, key=natural)]
    if not labels:
        raise IngestError("There are no labels: type them, or choose the column that holds them.")
    with transaction.atomic():
        made = Label.objects.bulk_create(
            Label(dataset=dataset, position=position, **one) for position, one in enumerate(labels)
        )
    return {label.name: label.pk for label in made}


def find_labels(
    path: Path, layout: Layout, column: str, beat: Callable[[int], None] | None = None
) -> Counter[str]:
    """Count the different labels in a column.

    Raises: IngestError when there are more than 1,000: that is no column of labels.
    """
    place = layout.columns.index(column)
    names: Counter[str] = Counter()
    for batch in _batches(path, layout):
        names.update(label_name(cells[place]) for _, cells in batch.rows if cells[place])
        if len(names) > MOST_LABELS:
            raise IngestError(
                f"Column “{column}” has more than {MOST_LABELS:,} different values: is it the label?"
            )
        if beat:
            beat(0)
    del names[""]
    for name in [name for name in names if len(name) > LONGEST_LABEL]:
        del names[name]
    return names


def _batches(path: Path, layout: Layout) -> Iterator[Batch]:
    from labelhub.autolabel import tables  # the parsers load pandas and pyarrow: only when a file is read

    return tables.read_batches(path, layout, ROWS_IN_A_WRITE)


class _Writer:
    """Turns batches into rows of Item and Vote."""

    def __init__(
        self,
        dataset: Dataset,
        layout: Layout,
        whole: dict[str, Any],
        labels: dict[str, int],
        version: LabelerVersion | None,
        report: Report,
    ) -> None:
        place = {name: n for n, name in enumerate(layout.columns)}
        self.dataset, self.layout, self.labels, self.version, self.report = (
            dataset,
            layout,
            labels,
            version,
            report,
        )
        self.text = [place[name] for name in whole["text"]]
        self.label = place[whole["label"]] if whole["label"] else None
        self.predicted = place[whole["predicted"]] if whole["predicted"] else None
        self.confidence = place[whole["confidence"]] if whole["confidence"] else 0
        self.unknown: Counter[str] = Counter()

    def write_all(self, path: Path, beat: Callable[[int], None]) -> None:
        """Write every row of the file, a batch in a transaction."""
        for batch in _batches(path, self.layout):
            items, votes = self._convert(batch)
            with transaction.atomic():
                beat(batch.bytes_read)
                insert_rows(
                    Item, ("dataset_id", "position", "text", "row", "text_hash", "given_label_id"), items
                )
                if self.version is not None and any(votes):
                    self._insert_votes(items, votes)
            time.sleep(PAUSE_SECONDS)
        self.report.unknown_labels = dict(self.unknown.most_common(20))

    def _convert(self, batch: Batch) -> tuple[list[tuple[Any, ...]], list[tuple[int | None, float] | None]]:
        report, labels = self.report, self.labels
        report.rows_read += len(batch.rows) + len(batch.bad)
        report.blank += batch.blank
        report.cleaned += batch.cleaned
        for bad in batch.bad:
            report.skip(bad.number, bad.line, bad.reason)
        items: list[tuple[Any, ...]] = []
        votes: list[tuple[int | None, float] | None] = []
        for n, (number, cells) in enumerate(batch.rows):
            text = "\n".join([cells[place] for place in self.text])
            if not text.strip():
                report.empty += 1
                if len(report.empty_rows) < LISTED:
                    report.empty_rows.append(number)
                continue
            given = None
            if self.label is not None and (name := label_name(cells[self.label])):
                given = labels.get(name)
                if given is None:
                    report.skip(number, batch.lines[n], f"the label “{name[:80]}” is not in the label set")
                    continue
            vote = None
            if self.predicted is not None and (name := label_name(cells[self.predicted])):
                typed = cells[self.confidence].strip()
                score = float(typed) if _NUMBER.fullmatch(typed) else -1.0
                if not 0 <= score <= 1:
                    report.skip(
                        number, batch.lines[n], f"the confidence “{typed[:40]}” is not a number from 0 to 1"
                    )
                    continue
                vote = (labels.get(name), score)
                if vote[0] is None:
                    report.predicted_unknown += 1
                    self.unknown[name[:80]] += 1
            row = (
                batch.raws[n]
                if batch.raws
                else orjson.dumps(dict(zip(self.layout.columns, cells, strict=True))).decode()
            )
            items.append((self.dataset.pk, number, text, row, text_hash(text), given))
            votes.append(vote)
        return items, votes

    def _insert_votes(
        self, items: list[tuple[Any, ...]], votes: list[tuple[int | None, float] | None]
    ) -> None:
        assert self.version is not None
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT id FROM datasets_item WHERE dataset_id = %s AND position BETWEEN %s AND %s ORDER BY position",
                [self.dataset.pk, items[0][1], items[-1][1]],
            )
            ids = [row[0] for row in cursor.fetchall()]
        insert_rows(
            Vote,
            ("version_id", "item_id", "label_id", "score", "evidence"),
            [
                (self.version.pk, item, *vote, "")
                for item, vote in zip(ids, votes, strict=True)
                if vote is not None
            ],
        )


def _link_copies(dataset: Dataset, beat: Callable[[int], None], path: Path) -> int:
    """Point every exact duplicate to the first row with its text, a range of fingerprints at a time; count them."""
    copies = 0
    rows = Item.objects.filter(dataset=dataset).count()
    portions = 1 + rows // ROWS_IN_A_PORTION
    bounds = [-(2**63) + n * 2**64 // portions for n in range(portions)] + [2**63 - 1]
    for n in range(portions):
        with transaction.atomic(), connection.cursor() as cursor:
            beat(path.stat().st_size)
            cursor.execute(
                """UPDATE datasets_item SET same_as_id = g.first_id FROM (
                    SELECT id, min(id) OVER (PARTITION BY text_hash, text) AS first_id FROM datasets_item
                    WHERE dataset_id = %s AND text_hash IN (
                        SELECT text_hash FROM datasets_item WHERE dataset_id = %s AND text_hash BETWEEN %s AND %s
                        GROUP BY text_hash HAVING count(*) > 1)
                ) AS g WHERE datasets_item.id = g.id AND g.first_id <> g.id""",
                [dataset.pk, dataset.pk, bounds[n], bounds[n + 1] - (n + 1 < portions)],
            )
            copies += cursor.rowcount
        time.sleep(PAUSE_SECONDS)
    return copies


# One label per text: the label of any of its rows if they agree, none if they do not.
_GIVEN_GROUPS = """
    SELECT coalesce(same_as_id, id) AS first_id, min(given_label_id) AS low, max(given_label_id) AS high
    FROM datasets_item WHERE dataset_id = %s AND given_label_id IS NOT NULL
    AND (same_as_id IS NOT NULL
         OR id IN (SELECT same_as_id FROM datasets_item WHERE dataset_id = %s AND same_as_id IS NOT NULL))
    GROUP BY coalesce(same_as_id, id)"""


def _settle_given(dataset: Dataset, version: LabelerVersion | None, report: Report) -> None:
    """Move given labels of copies to their first row; drop them where they differ. Copies get no votes."""
    twice = [dataset.pk, dataset.pk]
    with transaction.atomic(), connection.cursor() as cursor:
        differs = (
            f"FROM datasets_item f JOIN ({_GIVEN_GROUPS}) AS g ON g.first_id = f.id WHERE g.low <> g.high"
        )
        cursor.execute(f"SELECT count(*) {differs}", twice)
        report.given_conflicts = cursor.fetchone()[0]
        cursor.execute(f"SELECT f.position {differs} ORDER BY f.position LIMIT {LISTED}", twice)
        report.conflict_rows = [row[0] for row in cursor.fetchall()]
        cursor.execute(
            "UPDATE datasets_item SET given_label_id = CASE WHEN g.low = g.high THEN g.low END "
            f"FROM ({_GIVEN_GROUPS}) AS g WHERE datasets_item.id = g.first_id",
            twice,
        )
        cursor.execute(
            "UPDATE datasets_item SET given_label_id = NULL "
            "WHERE dataset_id = %s AND same_as_id IS NOT NULL AND given_label_id IS NOT NULL",
            [dataset.pk],
        )
        if version is not None:
            cursor.execute(
                "DELETE FROM datasets_vote WHERE version_id = %s AND item_id IN "
                "(SELECT id FROM datasets_item WHERE dataset_id = %s AND same_as_id IS NOT NULL)",
                [version.pk, dataset.pk],
            )


def _count(dataset: Dataset, version: LabelerVersion | None, report: Report) -> None:
    items = Item.objects.filter(dataset=dataset).count()
    report.distinct = items - report.copies
    report.given = Item.objects.filter(dataset=dataset, given_label__isnull=False).count()
    report.predicted = Vote.objects.filter(version=version).count() if version else 0
    if report.rows_read != items + report.empty + report.skipped:
        raise RuntimeError(f"rows were lost: {vars(report)}")

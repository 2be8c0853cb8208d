"""In which state every item is, counted from the facts with a few statements for any number of datasets.

The states are disjoint and sum to the items: copies, excluded, given, decided, accepted, flagged, pending; an item
that could be in two is in the first of them. Counts come from indexes and from the tally of the run in force, so a
million items take milliseconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db import connection

from datasets.models import Dataset

BIN = 10**9  # ranks in one thousandth of confidence, the width of a bin of Tally

REVOKED = "SELECT revokes_id FROM reviews_decision WHERE revokes_id IS NOT NULL"
# The answer in force of an item: the oldest that nobody took back.
CURRENT = f"""d.outcome <> 'undo' AND d.id NOT IN ({REVOKED})
    AND NOT EXISTS (SELECT 1 FROM reviews_decision o WHERE o.item_id = d.item_id AND o.id < d.id
        AND o.outcome <> 'undo' AND o.id NOT IN ({REVOKED}))"""
ALIVE = "NOT IN (SELECT id FROM datasets_label WHERE retired_at IS NOT NULL)"
ASKED = "SELECT 1 FROM reviews_remark m WHERE m.item_id = p.item_id AND m.kind = 'ask'"


@dataclass(frozen=True, slots=True)
class States:
    """Items of one dataset by state; the first seven sum to ``items``.

    ``given``: labeled in the file. ``decided``: answered by a person, "can't tell" and "leave out" included.
    ``accepted``: the machine's label stands. ``flagged``: a person must still see it, because of its rank, because a
    manager was asked about it, or because it is drawn in the open sample. ``pending``: the run in force has not
    labeled it. ``excluded``: nobody need label it. ``copies``: same text as an earlier row.
    ``answered``: decided with a label. ``drawn``: of the flagged, unanswered in the open sample.
    """

    given: int
    decided: int
    accepted: int
    flagged: int
    pending: int
    excluded: int
    copies: int
    answered: int = 0
    drawn: int = 0

    @property
    def items(self) -> int:
        """All rows of the dataset."""
        return (
            self.given
            + self.decided
            + self.accepted
            + self.flagged
            + self.pending
            + self.excluded
            + self.copies
        )

    @property
    def distinct(self) -> int:
        """N: the items that work is measured by, without copies, given labels and excluded ones."""
        return self.decided + self.accepted + self.flagged + self.pending


def states(dataset: Dataset) -> States:
    """Count the states of one dataset."""
    return states_of([dataset])[dataset.pk]


def states_of(datasets: Iterable[Dataset]) -> dict[int, States]:
    """Count the states of many datasets by id; the number of statements does not depend on how many."""
    datasets = list(datasets)
    ids = [dataset.pk for dataset in datasets]
    if not ids:
        return {}
    items, special = _rows_of(datasets), _special(ids)
    decided, answered = _decided(ids)
    accepted, flagged = _sides(ids)
    drawn = _by_dataset(_DRAWN, ids)
    found = {}
    for pk in ids:
        given, excluded = special[pk]["given"], special[pk]["excluded"]
        rows, copies = items[pk]
        waiting = flagged[pk] + drawn[pk]
        found[pk] = States(
            given=given,
            decided=decided[pk],
            accepted=accepted[pk],
            flagged=waiting,
            pending=rows - given - excluded - copies - decided[pk] - accepted[pk] - waiting,
            excluded=excluded,
            copies=copies,
            answered=answered[pk],
            drawn=drawn[pk],
        )
    return found


def count_labeled(dataset: Dataset, count: States) -> int:
    """Count the rows that have a label: given, answered, accepted, and the copies of those.

    Every copy is looked at, so this is slower than the states.
    """
    return count.given + count.answered + count.accepted + (_labeled_copies(dataset) if count.copies else 0)


def fetch_all(sql: str, values: list[Any]) -> list[tuple[Any, ...]]:
    """Run one statement and return its rows."""
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return list(cursor.fetchall())


def _by_dataset(sql: str, ids: list[int], column: str = "dataset_id") -> defaultdict[int, int]:
    marks = f"{column} IN ({','.join(['%s'] * len(ids))})"
    return defaultdict(int, {int(pk): int(n) for pk, n in fetch_all(sql.format(ids=marks), ids)})


def _rows_of(datasets: list[Dataset]) -> dict[int, tuple[int, int]]:
    """Rows and copies of each dataset, as counted when its file was in: neither ever changes after that."""
    found = {}
    for dataset in datasets:
        if dataset.ready_at is not None and {"distinct", "copies"} <= dataset.report.keys():
            found[dataset.pk] = (
                dataset.report["distinct"] + dataset.report["copies"],
                dataset.report["copies"],
            )
    rest = [dataset.pk for dataset in datasets if dataset.pk not in found]
    if rest:
        sql = "SELECT dataset_id, count(*), count(same_as_id) FROM datasets_item WHERE dataset_id IN ({}) GROUP BY 1"
        counted = fetch_all(sql.format(",".join(["%s"] * len(rest))), rest)
        found |= dict.fromkeys(rest, (0, 0)) | {int(pk): (int(n), int(copies)) for pk, n, copies in counted}
    return found


def _special(ids: list[int]) -> defaultdict[int, defaultdict[str, int]]:
    """Rows that nobody works on; each kind has its partial index. Reading a file leaves no copy a label of its own."""
    marks = f"dataset_id IN ({','.join(['%s'] * len(ids))})"
    sql = f"""
        SELECT 'excluded', dataset_id, count(*) FROM datasets_item
            WHERE excluded IS NOT NULL AND {marks} GROUP BY dataset_id
        UNION ALL SELECT 'given', dataset_id, count(*) FROM datasets_item
            WHERE given_label_id IS NOT NULL AND {marks} GROUP BY dataset_id"""
    found: defaultdict[int, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    for kind, pk, n in fetch_all(sql, ids * 2):
        found[int(pk)][kind] = int(n)
    return found


def _decided(ids: list[int]) -> tuple[defaultdict[int, int], defaultdict[int, int]]:
    """Items with an answer in force, and those of them with a label.

    Only an answer without a machine label beside it can be about a given, excluded or copied row, for no run labels
    those; so only these are looked up.
    """
    marks = f"d.dataset_id IN ({','.join(['%s'] * len(ids))})"
    sql = f"""
        SELECT d.dataset_id, d.outcome, count(*) FROM reviews_decision d WHERE {marks} AND {CURRENT}
        AND (d.machine_rank IS NOT NULL OR EXISTS (SELECT 1 FROM datasets_item i WHERE i.id = d.item_id
            AND i.same_as_id IS NULL AND i.given_label_id IS NULL AND i.excluded IS NULL))
        GROUP BY d.dataset_id, d.outcome"""
    decided: defaultdict[int, int] = defaultdict(int)
    answered: defaultdict[int, int] = defaultdict(int)
    for pk, outcome, n in fetch_all(sql, ids):
        decided[int(pk)] += int(n)
        answered[int(pk)] += int(n) if outcome == "label" else 0
    return decided, answered


_LATEST = """SELECT max(id) FROM reviews_threshold WHERE dataset_id IN ({marks}) GROUP BY dataset_id"""
_DRAWN = """
    SELECT s.dataset_id, count(*) FROM reviews_sample s JOIN reviews_sampleitem si ON si.sample_id = s.id
    WHERE s.closed_at IS NULL AND s.superseded_at IS NULL AND s.{ids}
    AND NOT EXISTS (SELECT 1 FROM reviews_decision d WHERE d.item_id = si.item_id AND d.outcome <> 'undo'
        AND NOT EXISTS (SELECT 1 FROM reviews_decision r WHERE r.revokes_id = d.id))
    GROUP BY s.dataset_id"""


def _sides(ids: list[int]) -> tuple[defaultdict[int, int], defaultdict[int, int]]:
    """Accepted and flagged open predictions of the runs in force.

    A finished run has its tally: what it labeled, less what is closed since. A running one is counted. ``part`` says
    what a line adds: whole bins and the begun bin of the threshold, minus closed and asked ones.
    """
    marks = ",".join(["%s"] * len(ids))
    latest = f"t.id IN ({_LATEST.format(marks=marks)})"
    done = "EXISTS (SELECT 1 FROM datasets_tally y WHERE y.run_id = t.run_id)"
    high = f"(p.rank >= t.rank AND p.label_id IS NOT NULL AND p.label_id {ALIVE})"
    sql = f"""
        SELECT t.dataset_id, 1, (y.bin * CAST({BIN} AS bigint) >= t.rank AND y.label_id IS NOT NULL AND y.label_id {ALIVE}), sum(y.n)
            FROM reviews_threshold t JOIN datasets_tally y ON y.run_id = t.run_id WHERE {latest} GROUP BY 1, 3
        UNION ALL SELECT t.dataset_id, 0, {high}, count(*)
            FROM reviews_threshold t JOIN datasets_prediction p ON p.run_id = t.run_id
            WHERE {latest} AND {done} AND p.open IN (%s, %s) AND p.rank >= t.rank
            AND p.rank < (t.rank + {BIN - 1}) / {BIN} * {BIN} GROUP BY 1, 3
        UNION ALL SELECT t.dataset_id, -1, {high}, count(*)
            FROM reviews_threshold t JOIN datasets_prediction p ON p.run_id = t.run_id
            WHERE {latest} AND {done} AND p.open = %s GROUP BY 1, 3
        UNION ALL SELECT t.dataset_id, 1, {high}, count(*)
            FROM reviews_threshold t JOIN datasets_prediction p ON p.run_id = t.run_id
            WHERE {latest} AND NOT {done} AND p.open = %s GROUP BY 1, 3
        UNION ALL SELECT a.dataset_id, -2, {high}, count(*) FROM (
                SELECT DISTINCT t.dataset_id, t.run_id, t.rank, m.item_id FROM reviews_threshold t
                JOIN reviews_remark m ON m.dataset_id = t.dataset_id AND m.kind = 'ask' WHERE {latest}
            ) a JOIN datasets_prediction p ON p.run_id = a.run_id AND p.item_id = a.item_id AND p.open = %s
            JOIN reviews_threshold t ON t.dataset_id = a.dataset_id AND {latest} GROUP BY 1, 3"""
    values = [*ids, *ids, False, True, *ids, False, *ids, True, *ids, True, *ids]
    accepted: defaultdict[int, int] = defaultdict(int)
    total: defaultdict[int, int] = defaultdict(int)
    for pk, part, is_high, n in fetch_all(sql, values):
        if part in (1, -1):
            total[int(pk)] += part * int(n)
        if is_high:
            accepted[int(pk)] += int(n) if part >= 0 else -int(n)
    return accepted, defaultdict(int, {pk: n - accepted[pk] for pk, n in total.items()})


def _labeled_copies(dataset: Dataset) -> int:
    """Copies whose first has a label: given, answered, or accepted."""
    latest = _LATEST.format(marks="%s")
    sql = f"""
        SELECT count(*) FROM datasets_item c JOIN datasets_item f ON f.id = c.same_as_id
        LEFT JOIN reviews_threshold t ON t.id IN ({latest})
        WHERE c.same_as_id IS NOT NULL AND c.dataset_id = %s AND f.excluded IS NULL
        AND (f.given_label_id IS NOT NULL
            OR EXISTS (SELECT 1 FROM datasets_prediction p WHERE p.run_id = t.run_id AND p.item_id = f.id
                AND p.open = %s AND p.rank >= t.rank AND p.label_id IS NOT NULL AND p.label_id {ALIVE}
                AND NOT EXISTS ({ASKED}))
            OR EXISTS (SELECT 1 FROM reviews_decision d
                WHERE d.item_id = f.id AND d.outcome = 'label' AND {CURRENT}))"""
    return int(fetch_all(sql, [dataset.pk, dataset.pk, True])[0][0])

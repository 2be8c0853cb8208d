"""What is known about the labels of the run in force, counted by place in its order.

A handful of statements, whatever the number of items. Answers of an open sample are not among them (E7): as long as it
is open, its items count as not answered.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from datasets.models import Dataset, Label, Prediction, Run, Tally
from labelhub.autolabel import buckets
from labelhub.autolabel.rank import ACCEPT_NOTHING
from reviews.models import Decision, Outcome, Remark, Sample, SampleItem, Threshold
from reviews.queue import as_stored
from reviews.samples import EVIDENCE
from reviews.states import ALIVE, BIN, CURRENT, fetch_all


class Counts:
    """Items by place in the order, of all labels or of one; label 0 means that labels are not told apart."""

    def __init__(self) -> None:
        self._sums: defaultdict[int | None, defaultdict[int, int]] = defaultdict(lambda: defaultdict(int))
        self._tails: dict[int | None, tuple[list[int], list[int]]] = {}

    def add(self, floor: int, label: int, n: int) -> None:
        """Count ``n`` more items of a label at a place."""
        self._sums[None][floor] += n
        if label:
            self._sums[label][floor] += n

    def between(self, low: int, high: int, label: int | None = None) -> int:
        """Items with ``low <= rank < high``; both must be whole thousandths or cuts that were asked for."""
        if label not in self._sums:
            return 0
        if label not in self._tails:
            floors = sorted(self._sums[label])
            tail = [0]
            for floor in reversed(floors):
                tail.append(tail[-1] + self._sums[label][floor])
            self._tails[label] = floors, tail[::-1]
        floors, tail = self._tails[label]
        return tail[bisect_left(floors, low)] - tail[bisect_left(floors, max(high, low))]

    def mean(self, low: int, high: int) -> float | None:
        """Mean rank between two ranks, taking each item to be in the middle of its thousandth; None without items."""
        inside = [(floor, n) for floor, n in self._sums[None].items() if low <= floor < high]
        whole = sum(n for _, n in inside)
        return sum((floor + BIN / 2) * n for floor, n in inside) / whole if whole else None


@dataclass
class Drawn:
    """A closed random sample of the run in force, and what is known about its pool."""

    sample: Sample
    checked: Counts = field(default_factory=Counts)
    wrong: Counts = field(default_factory=Counts)
    outside: Counts = field(default_factory=Counts)  # answered before the draw
    outside_wrong: Counts = field(default_factory=Counts)
    later: Counts = field(default_factory=Counts)  # in the pool, not drawn, answered since
    later_wrong: Counts = field(default_factory=Counts)
    uncovered: Counts = field(default_factory=Counts)  # neither in the pool nor answered
    excused: Counts = field(default_factory=Counts)  # neither in the pool nor accepted: a manager was asked

    def row(self, low: int, high: int, label: int | None) -> buckets.RowSample:
        """The counts of this sample between two ranks."""
        names = ("checked", "wrong", "outside", "outside_wrong", "later", "later_wrong", "uncovered")
        counts = {name: getattr(self, name).between(low, high, label) for name in names}
        return buckets.RowSample(threshold=self.sample.threshold, **counts)


@dataclass
class Evidence:
    """Everything that the tables, the curve and the plots of one run are made of.

    ``items``: labeled by the run with a label that is still in use. ``closed``: of these, not free any more: answered,
    or drawn in an open sample. ``asked``: free, but a manager was asked about them. ``answered`` and ``wrong``: items
    with an answer in force, and those where it is not the machine's label. ``confused``: (machine's label, person's
    label or None) to the number of items.
    """

    run: Run
    items: Counts = field(default_factory=Counts)
    closed: Counts = field(default_factory=Counts)
    asked: Counts = field(default_factory=Counts)
    answered: Counts = field(default_factory=Counts)
    wrong: Counts = field(default_factory=Counts)
    confused: dict[tuple[int, int | None], int] = field(default_factory=dict)
    drawn: list[Drawn] = field(default_factory=list)

    def accepted(self, low: int, high: int = ACCEPT_NOTHING, label: int | None = None) -> int:
        """Items that stand unseen when everything from ``low`` on is accepted."""
        taken = self.closed.between(low, high, label) + self.asked.between(low, high, label)
        return self.items.between(low, high, label) - taken

    def accuracy(
        self, low: int, high: int = ACCEPT_NOTHING, label: int | None = None, alpha: float = 0.05
    ) -> tuple[buckets.Estimate | None, Drawn | None]:
        """How often the machine was right between two ranks, and the sample that says so; None for unknown.

        One sample serves: the one that covers the stretch with most answers in it. Samples are never pooled.
        """
        items = self.items.between(low, high, label)
        answered = self.answered.between(low, high, label)
        wrong = self.wrong.between(low, high, label)
        best = self.speaker(low, high, label)
        if best is None:
            census = items - self.asked.between(low, high, label)
            return _threshold_row(low, census, answered, wrong, (), alpha), None
        row, drawn = best
        items -= drawn.excused.between(low, high, label)
        estimate = _threshold_row(low, items, answered, wrong, (row,), alpha)
        return estimate, None if answered == items else drawn

    def speaker(
        self, low: int, high: int = ACCEPT_NOTHING, label: int | None = None
    ) -> tuple[buckets.RowSample, Drawn] | None:
        """The sample that speaks for a stretch: of those that cover it, the one with most answers in it."""
        rows = ((drawn.row(low, high, label), drawn) for drawn in self.drawn)
        covering = (pair for pair in rows if pair[0].threshold <= low and not pair[0].uncovered)
        return max(
            (pair for pair in covering if pair[0].checked), key=lambda pair: pair[0].checked, default=None
        )


@lru_cache(maxsize=4096)
def _threshold_row(
    row: int, items: int, decided: int, wrong: int, samples: tuple[buckets.RowSample, ...], alpha: float
) -> buckets.Estimate | None:
    return buckets.threshold_row(row, items, decided, wrong, samples, alpha)


def gather(
    dataset: Dataset, threshold: Threshold, cuts: Sequence[int] = (), by_label: bool = False
) -> Evidence:
    """Collect what is known about the run in force.

    Args:
        dataset: whose run it is.
        threshold: the one in force; it names the run.
        cuts: ranks that are no whole thousandths of confidence and will be asked for.
        by_label: whether stretches of single labels, and confusions, will be asked for.
    """
    run = threshold.run
    own = sorted({cut for cut in (*cuts, threshold.rank) if cut % BIN and cut < ACCEPT_NOTHING})
    scope = _Scope(dataset, run, own, by_label)
    found = Evidence(run)
    _count_items(found, scope)
    samples = list(
        Sample.objects.filter(run=run, purpose__in=EVIDENCE)
        .exclude(closed_at=None)
        .order_by("drawn_at", "pk")
    )
    eras = _count_answers(found, scope, samples)
    asked = _asked(scope)
    for floor, label, is_open in asked.values():
        if is_open:
            found.asked.add(floor, label, 1)
    for place, sample in enumerate(samples):
        drawn = Drawn(sample)
        for era, floor, label, is_wrong, n in eras:
            before = era <= place
            (drawn.outside if before else drawn.later).add(floor, label, n)
            if is_wrong:
                (drawn.outside_wrong if before else drawn.later_wrong).add(floor, label, n)
        found.drawn.append(drawn)
    if samples:
        hidden = set(Sample.objects.open().filter(dataset=dataset).values_list("pk", flat=True))
        for drawn in found.drawn:
            _count_drawn(drawn, scope, hidden)
        _correct_pools(found, scope, asked, hidden)
    return found


def floor_of(rank: int, cuts: Sequence[int]) -> int:
    """The highest whole thousandth or cut that is not above a rank: where it is counted."""
    return max([rank // BIN * BIN, *(cut for cut in cuts if cut <= rank)])


def _floor_sql(cuts: Sequence[int]) -> str:
    whole = f"rank / {BIN} * {BIN}"
    cases = "".join(
        f" WHEN rank >= {cut} AND rank < {(cut // BIN + 1) * BIN} THEN {cut}"
        for cut in sorted(cuts, reverse=True)
    )
    return f"CASE{cases} ELSE {whole} END" if cuts else whole


class _Scope:
    """What is counted: a run's items whose label is in use, at which places, and whether by label."""

    def __init__(self, dataset: Dataset, run: Run, cuts: list[int], by_label: bool) -> None:
        self.dataset, self.run, self.cuts, self.by_label = dataset, run, cuts, by_label
        self.alive = set(Label.objects.filter(dataset=dataset, retired_at=None).values_list("pk", flat=True))
        self.floor = _floor_sql(cuts)
        self.label = "label_id" if by_label else "0"

    def key(self, label: int) -> int:
        """The label that an item is counted under."""
        return label if self.by_label else 0


def _count_items(found: Evidence, scope: _Scope) -> None:
    """What the run labeled and what of it is closed; from the tally, with the bins of odd cuts counted afresh."""
    run = scope.run.pk
    tally = fetch_all(
        f"SELECT bin, {scope.label}, sum(n) FROM datasets_tally WHERE run_id = %s AND label_id IS NOT NULL AND label_id {ALIVE} GROUP BY 1, 2",
        [run],
    )
    cut_bins = {cut // BIN for cut in scope.cuts}
    for bin_, label, n in tally:
        if bin_ not in cut_bins:
            found.items.add(bin_ * BIN, label, int(n))
    # Without a tally the run is still at work: all of it is counted.
    at_work = not tally and not Tally.objects.filter(run=run).exists()
    ranges = " OR ".join(f"(rank >= {b * BIN} AND rank < {(b + 1) * BIN})" for b in sorted(cut_bins))
    counted = f"""SELECT {scope.floor}, {scope.label}, count(*) FROM datasets_prediction
        WHERE run_id = %s AND open {{opens}} AND label_id IS NOT NULL AND label_id {ALIVE}{{where}} GROUP BY 1, 2"""
    if ranges or at_work:
        where = "" if at_work else f" AND ({ranges})"
        for place, label, n in fetch_all(
            counted.format(opens="IN (%s, %s)", where=where), [run, False, True]
        ):
            found.items.add(place, label, n)
    for place, label, n in fetch_all(counted.format(opens="= %s", where=""), [run, False]):
        found.closed.add(place, label, n)


def _count_answers(
    found: Evidence, scope: _Scope, samples: list[Sample]
) -> list[tuple[int, int, int, bool, int]]:
    """Count the answers in force, by how many of the samples had been drawn when they were given.

    A decision carries the machine's label and rank of the run in force at its time; for another run's they are
    looked up. Returns (era, floor, label, wrong, items); era 0 is before all draws, 1 before all but the first.
    """
    era = "0"
    if samples:
        era = (
            "CASE"
            + "".join(f" WHEN at < %s THEN {n}" for n in range(len(samples)))
            + f" ELSE {len(samples)} END"
        )
    hidden = (
        "d.sample_id IN (SELECT id FROM reviews_sample WHERE closed_at IS NULL AND superseded_at IS NULL)"
    )
    mine = f"d.dataset_id = %s AND (d.sample_id IS NULL OR NOT {hidden}) AND {CURRENT}"
    pair = "label_id, answer" if scope.by_label else "0, 0"
    sql = f"""
        SELECT {era}, {scope.floor}, CASE WHEN answer = label_id THEN 0 ELSE 1 END, {pair}, count(*) FROM (
            SELECT d.machine_rank AS rank, d.machine_label_id AS label_id, d.label_id AS answer, d.decided_at AS at
            FROM reviews_decision d WHERE {mine} AND d.run_id = %s AND d.machine_label_id IS NOT NULL AND d.machine_label_id {ALIVE}
            UNION ALL
            SELECT p.rank, p.label_id, d.label_id, d.decided_at FROM reviews_decision d
            JOIN datasets_prediction p ON p.run_id = %s AND p.item_id = d.item_id
            WHERE {mine} AND (d.run_id <> %s OR d.run_id IS NULL) AND p.label_id IS NOT NULL AND p.label_id {ALIVE}
        ) AS answers GROUP BY 1, 2, 3, 4, 5"""
    dataset, run = scope.dataset.pk, scope.run.pk
    times = [as_stored(sample.drawn_at) for sample in samples]
    eras = []
    for when, floor, is_wrong, label, answer, n in fetch_all(sql, [*times, dataset, run, run, dataset, run]):
        found.answered.add(floor, label, n)
        if is_wrong:
            found.wrong.add(floor, label, n)
        if scope.by_label:
            found.confused[label, answer] = found.confused.get((label, answer), 0) + n
        eras.append((when, floor, label, bool(is_wrong), n))
    return eras


def _asked(scope: _Scope) -> dict[int, tuple[int, int, bool]]:
    """Items that a manager was asked about: place, label, and whether nobody has answered."""
    asked = Remark.objects.filter(dataset=scope.dataset, kind=Remark.Kind.ASK).values("item")
    rows = Prediction.objects.filter(run=scope.run, item__in=asked, label__in=scope.alive)
    return {
        item: (floor_of(rank, scope.cuts), scope.key(label), is_open)
        for item, rank, label, is_open in rows.values_list("item", "rank", "label", "open")
    }


class _Said(NamedTuple):
    """What is needed of a decision."""

    pk: int
    item: int
    outcome: str
    label: int | None
    revokes: int | None
    sample: int | None
    at: dt.datetime


def _histories(items: Any) -> dict[int, list[_Said]]:
    """The decisions about some items, oldest first."""
    found: defaultdict[int, list[_Said]] = defaultdict(list)
    rows = Decision.objects.filter(item__in=items).order_by("pk")
    for row in rows.values_list("pk", "item", "outcome", "label", "revokes", "sample", "decided_at"):
        found[row[1]].append(_Said._make(row))
    return found


def _count_drawn(drawn: Drawn, scope: _Scope, hidden: set[int]) -> None:
    """Count a sample's first answers, and take its items out of what was answered later in its pool.

    The evidence is the first answer that stood when the sample closed; one that was taken back later still was it.
    """
    sample = drawn.sample
    items = SampleItem.objects.filter(sample=sample)
    histories = _histories(items.values("item"))
    for item, rank, said in items.values_list("item", "machine_rank", "machine_label"):
        if said not in scope.alive:
            continue
        floor, label, history = floor_of(rank, scope.cuts), scope.key(said), histories.get(item, [])
        drawn.checked.add(floor, label, 1)
        if _first_answer(history, sample) != said:
            drawn.wrong.add(floor, label, 1)
        now = _current(history)
        if now is not None and now.sample not in hidden:
            drawn.later.add(floor, label, -1)
            if now.label != said:
                drawn.later_wrong.add(floor, label, -1)


def _first_answer(history: list[_Said], sample: Sample) -> int | None:
    """The label that was answered first in a sample and stood when it closed; None for any other outcome."""
    gone = {d.revokes for d in history if sample.closed_at is None or d.at <= sample.closed_at}
    said = (
        d.label for d in history if d.sample == sample.pk and d.outcome != Outcome.UNDO and d.pk not in gone
    )
    return next(said, None)


def _current(history: list[_Said]) -> _Said | None:
    """The answer in force: the oldest that nobody took back."""
    gone = {d.revokes for d in history}
    return next((d for d in history if d.outcome != Outcome.UNDO and d.pk not in gone), None)


def _correct_pools(
    found: Evidence, scope: _Scope, asked: dict[int, tuple[int, int, bool]], hidden: set[int]
) -> None:
    """Move the few items that were outside a pool although no answer from before the draw is in force.

    Those are items whose answer of that time was changed or taken back later, and items that a manager had been asked
    about.
    """
    first, last = found.drawn[0].sample.drawn_at, found.drawn[-1].sample.drawn_at
    changed = list(
        Decision.objects.filter(dataset=scope.dataset, revokes__dataset=scope.dataset, decided_at__gte=first)
        .exclude(revokes__outcome=Outcome.UNDO)
        .filter(revokes__decided_at__lt=last)
        .values_list("item", "revokes__decided_at", "decided_at")
    )
    questions = list(
        Remark.objects.filter(dataset=scope.dataset, kind=Remark.Kind.ASK).values_list("item", "at")
        if asked
        else ()
    )
    suspects = {item for item, *_ in changed} | {item for item, _ in questions}
    if not suspects:
        return
    places = {
        item: (floor_of(rank, scope.cuts), label)
        for item, rank, label in Prediction.objects.filter(
            run=scope.run, item__in=suspects, label__in=scope.alive
        ).values_list("item", "rank", "label")
    }
    histories = _histories(suspects)
    for drawn in found.drawn:
        sample = drawn.sample
        out = {item for item, at, until in changed if at < sample.drawn_at <= until}
        out |= {item for item, at in questions if at < sample.drawn_at}
        for item in out & set(places):
            now = _current(histories.get(item, []))
            if now is not None and now.sample in hidden:
                now = None
            _move_out(drawn, scope, *places[item], now, item in asked and asked[item][2])


def _move_out(drawn: Drawn, scope: _Scope, floor: int, said: int, now: _Said | None, is_asked: bool) -> None:
    label = scope.key(said)
    if now is None:
        (drawn.excused if is_asked else drawn.uncovered).add(floor, label, 1)
    elif now.at >= drawn.sample.drawn_at:
        drawn.later.add(floor, label, -1)
        drawn.outside.add(floor, label, 1)
        if now.label != said:
            drawn.later_wrong.add(floor, label, -1)
            drawn.outside_wrong.add(floor, label, 1)

"""What the dashboard says: the threshold table, accuracy, work and money of the run in force. Reads only.

Every figure is an `Estimate` with its n and interval, or None for "unknown". Nothing here writes, and nothing about
an open sample is told.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from datasets.models import Dataset, Label
from labelhub.autolabel.bounds import bound_curve, more_answers
from labelhub.autolabel.buckets import Estimate
from labelhub.autolabel.certify import tolerated
from labelhub.autolabel.rank import ACCEPT_NOTHING, confidence_of, to_rank
from reviews.agreement import MethodLine, PersonLine, methods, people
from reviews.evidence import Drawn, Evidence, gather
from reviews.forecast import Forecast, forecast
from reviews.ledger import Work, work
from reviews.models import Sample, Threshold
from reviews.samples import next_attempt
from reviews.states import States, count_labeled, states, states_of

__all__ = [
    "ROWS",
    "Report",
    "Row",
    "States",
    "count_labeled",
    "gather",
    "report",
    "row",
    "states",
    "states_of",
    "table",
]

ROWS = tuple(to_rank(value) for value in (0.95, 0.90, 0.85, 0.80, 0.70))
EDGES = tuple(to_rank(value) for value in (0.0, 0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98))
CURVE_POINTS = tuple(
    to_rank(value) for value in (0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99)
)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the threshold table.

    ``accepted`` of ``items`` stand unseen; ``manual`` is the rest of them. ``accuracy`` is of the machine's labels at
    or above ``rank``; ``wrong_left`` the least and most wrong ones that this leaves among the accepted. ``at_least``:
    the share that its sample proves to be right, one-sided, for this row by itself. ``chosen_here`` says that this
    threshold was set after looking at the sample behind it, ``by_target`` that this sample proved it: then what is
    promised is on the certificate, and neither interval nor bound of this row is.
    """

    rank: int
    accepted: int
    items: int
    accuracy: Estimate | None
    sample: Sample | None
    in_force: bool
    chosen_here: bool
    wrong_left: tuple[int, int] | None = None
    hours: float | None = None
    at_least: float | None = None
    by_target: bool = False

    @property
    def manual(self) -> int:
        """Items that people label."""
        return self.items - self.accepted

    @property
    def rate(self) -> float | None:
        """Accepted of all, None without items."""
        return self.accepted / self.items if self.items else None

    @property
    def accepts_nothing(self) -> bool:
        """Whether no rank reaches this threshold."""
        return self.rank >= ACCEPT_NOTHING


@dataclass(frozen=True, slots=True)
class Bucket:
    """Labels between two ranks: what the machine said of itself, what a sample showed, what people happened to see."""

    low: int
    high: int
    items: int
    said: float | None  # mean confidence
    accuracy: Estimate | None  # census and sample together, at alpha / number of buckets
    sampled: int
    sampled_right: int
    seen: int  # answered, but not in the sample: a census, which says nothing of its neighbours
    seen_right: int


@dataclass(frozen=True, slots=True)
class LabelLine:
    """One label as the machine uses it. ``confusion``: what people said most often instead, and how often."""

    label: Label
    predicted: int
    accepted: int
    accuracy: Estimate | None  # of the accepted stretch
    answered: int
    wrong: int
    confusion: tuple[str, int] | None


@dataclass(frozen=True, slots=True)
class FreshCheck:
    """How large a fresh spot check of what stands at a threshold would have to be to prove the target.

    ``size`` is None where errors came more often, ``wrong`` of ``checked``, than the target allows.
    """

    checked: int
    wrong: int
    size: int | None
    attempt: int
    alpha: float


@dataclass(frozen=True, slots=True)
class Report:
    """Everything on the savings page."""

    threshold: Threshold
    states: States
    rows: list[Row]
    now: Row
    typed: Row
    curve: list[tuple[int, int]]  # rank, accepted
    points: list[Row]
    buckets: list[Bucket]
    labels: list[LabelLine]
    methods: list[MethodLine]
    people: list[PersonLine]
    work: Work
    fresh: FreshCheck | None  # at the typed threshold
    forecast: Forecast | None
    clean_needed: int  # checks without an error that would show the target


def table(
    dataset: Dataset,
    threshold: Threshold,
    ranks: Iterable[int],
    known: Evidence,
    items: int,
    pace: float | None = None,
) -> list[Row]:
    """Return one row for each rank; ``items`` is N, ``pace`` the seconds of a decision if they are known."""
    wanted = list(ranks)
    proven = _at_least(known, wanted, dataset.alpha)
    return [
        _row(threshold, rank, known, items, pace, share) for rank, share in zip(wanted, proven, strict=True)
    ]


def row(dataset: Dataset, threshold: Threshold, rank: int) -> Row:
    """Return the row of one threshold value, counted now."""
    known = gather(dataset, threshold, [rank])
    return table(dataset, threshold, [rank], known, states(dataset).distinct)[0]


def report(
    dataset: Dataset, threshold: Threshold, typed: int | None = None, hourly_rate: float | None = None
) -> Report:
    """Collect all figures of the run in force.

    Args:
        dataset: whose run it is.
        threshold: the one in force.
        typed: a threshold that somebody wants to see beside it.
        hourly_rate: USD; the dataset's own if None.
    """
    typed = threshold.rank if typed is None else typed
    known = gather(dataset, threshold, [typed], by_label=True)
    count = states(dataset)
    done = work(dataset, threshold, count, known, hourly_rate)
    pace = done.savings.seconds_per_decision
    wanted = sorted({*ROWS, threshold.rank, typed}, reverse=True)
    rows = table(dataset, threshold, wanted, known, count.distinct, pace)
    by_rank = {line.rank: line for line in rows}
    labels = list(Label.objects.filter(dataset=dataset))
    return Report(
        threshold=threshold,
        states=count,
        rows=rows,
        now=by_rank[threshold.rank],
        typed=by_rank[typed],
        curve=curve(known),
        points=table(dataset, threshold, sorted({*CURVE_POINTS, *wanted}), known, count.distinct),
        buckets=_buckets(dataset, known),
        labels=_labels(labels, threshold, known),
        methods=methods(dataset, threshold, known),
        people=people(dataset),
        work=done,
        fresh=fresh_check(dataset, by_rank[typed], known),
        forecast=forecast(dataset, threshold, known, count),
        clean_needed=checks_needed(dataset.target_error, dataset.alpha),
    )


def curve(known: Evidence, steps: int = 100) -> list[tuple[int, int]]:
    """Return (rank, accepted) for every hundredth of confidence, ascending; finer with more ``steps``."""
    return [(rank, known.accepted(rank)) for rank in (to_rank(n / steps) for n in range(steps + 1))]


def checks_needed(target_error: float, alpha: float) -> int:
    """Return how many random checks without an error show that the target is kept, in a large pool."""
    return math.ceil(math.log(alpha) / math.log1p(-target_error)) if 0 < target_error < 1 else 0


def fresh_check(dataset: Dataset, line: Row, known: Evidence) -> FreshCheck | None:
    """Return what a fresh check at a row would take if errors came as often as in its sample; None for unknown."""
    speaker = None if line.accepts_nothing or line.sample is None else known.speaker(line.rank)
    if speaker is None or not line.accepted or line.by_target:
        return None
    attempt, alpha = next_attempt(dataset)
    checked, wrong = speaker[0].checked, speaker[0].wrong
    budget = tolerated(line.accepted, dataset.target_error)
    return FreshCheck(
        checked, wrong, more_answers(line.accepted, budget, checked, wrong, alpha), attempt, alpha
    )


def _at_least(known: Evidence, ranks: Sequence[int], alpha: float) -> list[float | None]:
    """The share of right labels at or above each rank that its sample proves, each by itself; None for unknown."""
    speakers = [known.speaker(rank) if rank < ACCEPT_NOTHING else None for rank in ranks]
    rows = [speaker[0] for speaker in speakers if speaker]
    items = [
        known.items.between(rank, ACCEPT_NOTHING) - speaker[1].excused.between(rank, ACCEPT_NOTHING)
        for rank, speaker in zip(ranks, speakers, strict=True)
        if speaker
    ]
    pools = [n - row.outside for n, row in zip(items, rows, strict=True)]
    bounds = bound_curve(pools, [row.checked for row in rows], [row.wrong for row in rows], alpha)
    shares = []
    for n, pool, row, unseen in zip(items, pools, rows, bounds, strict=True):
        # Facts cut off what chance would allow: that many were found wrong since, and that many right.
        right = row.checked - row.wrong + row.later - row.later_wrong
        wrong = min(max(row.wrong + unseen, row.wrong + row.later_wrong), pool - right)
        shares.append(1 - (row.outside_wrong + wrong) / n)
    found = iter(shares)
    return [next(found) if speaker else None for speaker in speakers]


def _row(
    threshold: Threshold, rank: int, known: Evidence, items: int, pace: float | None, at_least: float | None
) -> Row:
    accuracy, drawn = known.accuracy(rank) if rank < ACCEPT_NOTHING else (None, None)
    accepted = known.accepted(rank)
    return Row(
        rank=rank,
        accepted=accepted,
        items=items,
        accuracy=accuracy,
        sample=drawn.sample if drawn else None,
        in_force=rank == threshold.rank,
        chosen_here=rank == threshold.rank and _looked_first(threshold, drawn),
        wrong_left=_wrong_left(accuracy, known.wrong.between(rank, ACCEPT_NOTHING), accepted),
        hours=None if pace is None else (items - accepted) * pace / 3600,
        at_least=None if accuracy is None or accuracy.census else at_least,
        by_target=drawn is not None and rank == threshold.rank and drawn.sample.pk == threshold.sample_id,
    )


def _wrong_left(accuracy: Estimate | None, found: int, accepted: int) -> tuple[int, int] | None:
    """What the interval leaves of wrong labels when those that people found are taken out."""
    if accuracy is None:
        return None
    low = math.floor((1 - accuracy.high) * accuracy.items + 1e-6) - found
    high = math.ceil((1 - accuracy.low) * accuracy.items - 1e-6) - found
    return min(max(low, 0), accepted), min(max(high, 0), accepted)


def _looked_first(threshold: Threshold, drawn: Drawn | None) -> bool:
    """Whether the threshold was set when the result of its sample was already known."""
    if drawn is None or drawn.sample.pk == threshold.sample_id or drawn.sample.closed_at is None:
        return False
    return threshold.rank != drawn.sample.threshold and threshold.at > drawn.sample.closed_at


def _buckets(dataset: Dataset, known: Evidence) -> list[Bucket]:
    found = []
    stretches = [
        (low, high)
        for low, high in zip(EDGES, (*EDGES[1:], ACCEPT_NOTHING), strict=True)
        if known.items.between(low, high)
    ]
    for low, high in stretches:
        accuracy, drawn = known.accuracy(low, high, alpha=dataset.alpha / len(stretches))
        mean = known.items.mean(low, high)
        sampled = drawn.checked.between(low, high) if drawn else 0
        sampled_wrong = drawn.wrong.between(low, high) if drawn else 0
        seen, seen_wrong = known.answered.between(low, high), known.wrong.between(low, high)
        if drawn:  # what is left when the sampled ones are taken out: answered before the draw, or later
            seen = drawn.outside.between(low, high) + drawn.later.between(low, high)
            seen_wrong = drawn.outside_wrong.between(low, high) + drawn.later_wrong.between(low, high)
        found.append(
            Bucket(
                low=low,
                high=high,
                items=known.items.between(low, high),
                said=None if mean is None else min(mean / to_rank(1.0), 1.0),
                accuracy=accuracy,
                sampled=sampled,
                sampled_right=sampled - sampled_wrong,
                seen=seen,
                seen_right=seen - seen_wrong,
            )
        )
    return found[::-1]


def _labels(labels: Sequence[Label], threshold: Threshold, known: Evidence) -> list[LabelLine]:
    names = {label.pk: label.name for label in labels}
    instead: defaultdict[int, Counter[int | None]] = defaultdict(Counter)
    for (machine, person), n in known.confused.items():
        if machine != person:
            instead[machine][person] += n
    lines = []
    for label in labels:
        if label.retired_at is not None:
            continue
        most = instead[label.pk].most_common(1)
        lines.append(
            LabelLine(
                label=label,
                predicted=known.items.between(0, ACCEPT_NOTHING, label.pk),
                accepted=known.accepted(threshold.rank, label=label.pk),
                accuracy=known.accuracy(threshold.rank, label=label.pk)[0],
                answered=known.answered.between(0, ACCEPT_NOTHING, label.pk),
                wrong=known.wrong.between(0, ACCEPT_NOTHING, label.pk),
                confusion=(names.get(most[0][0] or 0, "no label"), most[0][1]) if most else None,
            )
        )
    return sorted(lines, key=lambda line: -line.predicted)


def typed_value(rank: int) -> str:
    """A rank as it is typed, for example 0.85."""
    return (
        f"{min(confidence_of(rank), 1.0):.6f}".rstrip("0").rstrip(".") if rank < ACCEPT_NOTHING else "nothing"
    )

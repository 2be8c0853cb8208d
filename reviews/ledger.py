"""Who labeled what, the answers that took, and what it saves against labeling everything by hand. Reads only."""

from __future__ import annotations

from dataclasses import dataclass

from datasets.models import Dataset
from labelhub.autolabel.savings import IDLE_SECONDS, Savings, rounded_parts, savings, seconds_per_decision
from reviews.evidence import Evidence
from reviews.models import Decision, Outcome, Purpose, Sample, Threshold
from reviews.samples import plan
from reviews.states import CURRENT, REVOKED, States, fetch_all

LATEST_TIMES = 10_000  # answers that a median is taken from
DONE = (Purpose.REVIEW, Purpose.TRAINING, Purpose.CALIBRATION, Purpose.SPOT_CHECK)
MODEL_USD = 0.0  # no labeler of this version costs money


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the ledger.

    ``who``: the purpose of answers that were given, or "accepted", "to_review", "open_sample", "planned_check",
    "pending", "model". ``items`` that end this way; all lines together are all items. ``answers`` that people gave,
    second readings included, or have still to give. ``hours`` at the median pace and ``cost_usd``: rounded so that
    the lines add up; None for not known yet. ``checks``: it belongs to a spot check.
    """

    who: str
    items: int
    answers: int
    hours: float | None
    cost_usd: float | None
    checks: bool


@dataclass(frozen=True, slots=True)
class Work:
    """What people have done and have still to do, and what that saves.

    ``answers`` without spot checks and ``spot_check`` make all answers (E17). ``lines`` add up to ``total``, whose
    difference to ``by_hand`` is ``saved``.
    """

    savings: Savings
    lines: list[Line]
    total: Line
    by_hand: Line
    saved: Line
    answers: int
    spot_check: int
    spot_check_planned: bool
    timed: int
    pending: int
    model_usd: float


def work(
    dataset: Dataset, threshold: Threshold, count: States, known: Evidence, hourly_rate: float | None = None
) -> Work:
    """Return the ledger of a dataset.

    Args:
        dataset: whose work it is.
        threshold: the one in force.
        count: its states.
        known: what its samples are.
        hourly_rate: USD; the dataset's own if None.
    """
    rate = float(dataset.hourly_rate_usd) if hourly_rate is None else hourly_rate
    times, model_usd = _blind_seconds(dataset), MODEL_USD
    parts = _parts(dataset, threshold, count, known)
    answers = sum(n for _, _, n, checks in parts if not checks)
    spot_check = sum(n for _, _, n, checks in parts if checks)
    saving = savings(count.distinct, answers, spot_check, times, rate, model_usd)
    lines = _priced(parts, seconds_per_decision(times), rate, model_usd)
    total = _sum("total", lines)
    by_hand = Line(
        "by_hand",
        count.distinct,
        count.distinct,
        _rounded(saving.hours_by_hand),
        _rounded(saving.cost_by_hand_usd),
        False,
    )
    return Work(
        savings=saving,
        lines=lines,
        total=total,
        by_hand=by_hand,
        saved=_minus(by_hand, total),
        answers=answers,
        spot_check=spot_check,
        spot_check_planned=any(who == "planned_check" for who, *_ in parts),
        timed=sum(time <= IDLE_SECONDS for time in times),
        pending=count.pending,
        model_usd=model_usd,
    )


def _parts(
    dataset: Dataset, threshold: Threshold, count: States, known: Evidence
) -> list[tuple[str, int, int, bool]]:
    """Who, items, answers, and whether it is a spot check: everything that was done or is still open."""
    given = _answers(dataset)
    drawing = Sample.objects.open().filter(dataset=dataset).values_list("purpose", flat=True).first()
    covered = drawing == Purpose.SPOT_CHECK or any(
        one.sample.purpose == Purpose.SPOT_CHECK and one.sample.threshold <= threshold.rank
        for one in known.drawn
    )
    planned = 0 if covered or not count.accepted else plan(dataset, count.accepted).size
    parts = [
        *((p.value, *given.get(p.value, (0, 0)), p == Purpose.SPOT_CHECK) for p in DONE),
        ("accepted", count.accepted, 0, False),
        ("to_review", count.flagged - count.drawn, count.flagged - count.drawn, False),
        ("open_sample", count.drawn, count.drawn, drawing == Purpose.SPOT_CHECK),
        ("planned_check", 0, planned, True),
        ("pending", count.pending, 0, False),
    ]
    return [part for part in parts if part[1] or part[2]]


def _answers(dataset: Dataset) -> dict[str, tuple[int, int]]:
    """By purpose: items whose answer in force was given for it, and all answers that nobody took back (E9)."""
    sql = f"""
        SELECT d.purpose, sum(CASE WHEN {CURRENT} THEN 1 ELSE 0 END), count(*) FROM reviews_decision d
        WHERE d.dataset_id = %s AND d.outcome <> 'undo' AND d.id NOT IN ({REVOKED})
        AND (d.machine_rank IS NOT NULL OR EXISTS (SELECT 1 FROM datasets_item i WHERE i.id = d.item_id
            AND i.same_as_id IS NULL AND i.given_label_id IS NULL AND i.excluded IS NULL))
        GROUP BY d.purpose"""
    return {purpose: (int(items), int(answers)) for purpose, items, answers in fetch_all(sql, [dataset.pk])}


def _priced(
    parts: list[tuple[str, int, int, bool]], pace: float | None, rate: float, model_usd: float
) -> list[Line]:
    hours: list[float] | list[None] = [None] * len(parts)
    costs: list[float] | list[None] = hours
    if pace is not None:
        exact = [answers * pace / 3600 for _, _, answers, _ in parts]
        hours = rounded_parts(exact)
        costs = rounded_parts([h * rate for h in exact])
    people = [
        Line(who, items, answers, hour, cost, checks)
        for (who, items, answers, checks), hour, cost in zip(parts, hours, costs, strict=True)
    ]
    return [*people, Line("model", 0, 0, None if pace is None else 0.0, round(model_usd, 2), False)]


def _sum(who: str, lines: list[Line]) -> Line:
    hours = [line.hours for line in lines]
    costs = [line.cost_usd for line in lines]
    return Line(
        who,
        sum(line.items for line in lines),
        sum(line.answers for line in lines),
        None if None in hours else round(sum(h for h in hours if h is not None), 2),
        None if None in costs else round(sum(c for c in costs if c is not None), 2),
        False,
    )


def _minus(whole: Line, part: Line) -> Line:
    hours = None if whole.hours is None or part.hours is None else round(whole.hours - part.hours, 2)
    cost = (
        None if whole.cost_usd is None or part.cost_usd is None else round(whole.cost_usd - part.cost_usd, 2)
    )
    return Line("saved", 0, whole.answers - part.answers, hours, cost, False)


def _rounded(amount: float | None) -> float | None:
    return None if amount is None else round(amount, 2)


def _blind_seconds(dataset: Dataset) -> list[float]:
    """Times of the latest answers that no suggestion hurried."""
    answers = Decision.objects.filter(dataset=dataset, seconds__isnull=False).exclude(outcome=Outcome.UNDO)
    unaided = answers.filter(showed_machine=False) | answers.filter(machine_label=None)
    return [
        float(one)
        for one in unaided.order_by("-pk").values_list("seconds", flat=True)[:LATEST_TIMES]
        if one is not None
    ]

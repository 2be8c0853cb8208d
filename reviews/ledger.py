"""Who labeled what, the answers that took, what models cost, and what it saves against labeling everything by hand.

Reads only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from datasets import money
from datasets.models import Call, Dataset, Run
from labelhub.autolabel.savings import IDLE_SECONDS, Savings, rounded_parts, savings, seconds_per_decision
from reviews.evidence import Evidence
from reviews.models import Decision, Outcome, Purpose, Sample, Threshold
from reviews.samples import plan
from reviews.states import CURRENT, REVOKED, States, fetch_all

LATEST_TIMES = 10_000  # answers that a median is taken from
DONE = (Purpose.REVIEW, Purpose.TRAINING, Purpose.CALIBRATION, Purpose.SPOT_CHECK)


@dataclass(frozen=True, slots=True)
class LabelCost:
    """What a model's answers with one label cost; ``label`` is its name, "" for answers without a label.

    A call costs the same for each of its answers. ``answers`` are further questions included.
    """

    label: str
    answers: int
    usd: Decimal

    @property
    def usd_per_answer(self) -> Decimal:
        """Of one answer with this label."""
        return self.usd / self.answers


@dataclass(frozen=True, slots=True)
class ModelCost:
    """What language models cost, trials included.

    ``usd`` all in all; ``items`` that were answered about; ``by_label`` in falling order of cost: what is missing
    there to ``usd`` are calls that brought no answer.
    """

    usd: Decimal
    items: int
    by_label: list[LabelCost]

    @property
    def usd_per_item(self) -> Decimal | None:
        """All costs over all items with an answer; None before the first one."""
        return self.usd / self.items if self.items else None

    @property
    def labels(self) -> int:
        """Answers that are a label."""
        return sum(line.answers for line in self.by_label if line.label)

    @property
    def usd_per_label(self) -> Decimal | None:
        """All costs over all answers that are a label; None before the first one."""
        return self.usd / self.labels if self.labels else None

    @property
    def usd_without_answer(self) -> Decimal:
        """What calls cost that brought no answer, lost ones included."""
        return self.usd - sum((line.usd for line in self.by_label), Decimal(0))


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
    model: ModelCost | None  # None where none was asked


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
    times, spent = _blind_seconds(dataset), money.spent_on(dataset)
    model_usd = float(spent)
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
        model=model_cost(spent, list(dataset.runs.all())) if spent else None,
    )


def model_cost(spent: Decimal, runs: Sequence[Run]) -> ModelCost:
    """Share what runs of one dataset have spent among the answers that it brought; three statements.

    Args:
        spent: USD, of all their calls.
        runs: whose calls they are.
    """
    ids = [run.pk for run in runs] or [0]
    versions = list(Call.objects.filter(run__in=ids).order_by().values_list("version", flat=True).distinct())
    if not versions:
        return ModelCost(spent, 0, [])
    of_run, of_version = (",".join(["%s"] * len(found)) for found in (ids, versions))
    votes = f"""datasets_vote v JOIN datasets_call c ON c.id = v.call_id
        WHERE v.version_id IN ({of_version}) AND c.run_id IN ({of_run})"""
    sql = f"""
        SELECT l.name, count(*), sum(a.cost) FROM (
            SELECT v.label_id, 1.0 * c.cost_nano / count(*) OVER (PARTITION BY c.id) AS cost FROM {votes}
        ) a LEFT JOIN datasets_label l ON l.id = a.label_id GROUP BY l.name"""
    rows = sorted(fetch_all(sql, [*versions, *ids]), key=lambda row: (-(row[2] or 0), row[0] or ""))
    nanos = [round(cost or 0) for *_, cost in rows]
    rest = money.to_nano(spent) - sum(nanos)
    if rows and abs(rest) <= len(rows):  # of rounding alone
        nanos[0] += rest
    lines = [
        LabelCost(name or "", int(n), money.to_usd(nano))
        for (name, n, _), nano in zip(rows, nanos, strict=True)
    ]
    items = fetch_all(f"SELECT count(DISTINCT v.item_id) FROM {votes}", [*versions, *ids])
    return ModelCost(spent, int(items[0][0]), lines)


def _parts(
    dataset: Dataset, threshold: Threshold, count: States, known: Evidence
) -> list[tuple[str, int, int, bool]]:
    """Who, items, answers, and whether it is a spot check: everything that was done or is still open."""
    given = _answers(dataset)
    drawing = None
    if count.drawn:
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

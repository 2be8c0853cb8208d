"""How many labels to ask for next, and when to stop asking.

People's answers cost the same whether they teach, prove or correct. So the policy asks one question again and
again: if learning stopped now, how many answers would the whole dataset take? ``plan`` answers it with the
sample that proves the promise most cheaply, ``ready`` says when to freeze, and ``advice`` puts both in a
sentence. Everything here looks at predicted chances of being wrong, never at the answers of a certificate's
sample. So a bad prediction makes a plan dear; it cannot make a certificate false.

Words: ``p`` chance of being wrong of each pool item, shape (pool,), surest first; ``items`` labels that the
promise is about (N); ``labelled`` those that people have answered; ``budget`` wrong labels tolerated (B).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from labelhub.autolabel.certify import UNIT, least_accepted, sample_size

Floats = npt.NDArray[np.float64]

ERRORS = (2, 3, 4, 5, 6, 8, 10, 12, 15, 18, 22, 27, 33, 40, 50, 60, 75, 90, 110)  # c to choose from
# Predictions are wrong by a factor of 1.5 (one standard deviation), and a small sample is ruinous where they
# were rosy: so a plan is judged by its mean cost over four worlds.
WORLDS = ((0.5, 0.2), (1.0, 0.4), (1.8, 0.25), (3.0, 0.15))  # factor on p, weight
PART_BUDGETS = (1.0, 0.85, 0.7, 0.55, 0.4, 0.25, 0.15)
FINE_BUDGETS = tuple(k / 20 for k in range(20, 0, -1))  # where the floor decides alone
MARGIN = 1.05  # by which the predicted number of accepted labels must pass the floor's

WORTH = 0.95  # a plan that asks for more of the items than this saves too little to call it a saving
FLAT = 3  # rounds without a cheaper plan
FLAT_WORTH = 0.8
FLAT_SLACK = 1.5
FLOOR_SLACK = 0.8
BATCH = 0.02
GROWTH = 0.2
LEAST_BATCH = 10
ENOUGH = 150

Step = Literal["go on", "certify now", "nothing to gain"]


@dataclass(frozen=True, slots=True)
class Plan:
    """A certificate that may be tried, and what it is predicted to cost.

    Attributes:
        sample: items to draw from the pool (n).
        errors: sampled errors that the accepted stretch may contain (c).
        budget: wrong labels to promise (b), at most the budget there is.
        prefix: places of the order, surest first, that the cut is predicted to leave above it.
        manual: people's answers for the whole dataset, those given already included; a mean over worlds.
        accepted: labels predicted to be accepted unseen.
    """

    sample: int
    errors: int
    budget: int
    prefix: int
    manual: float
    accepted: float


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do next, and why.

    Attributes:
        step: "go on" (label a batch, learn), "certify now" (freeze and draw the sample) or "nothing to gain"
            (people label the rest).
        batch: items to label next; 0 unless the step is "go on".
        plan: the certificate that could be tried now; None where no sample can prove anything.
        manual: predicted answers for the whole dataset if it were tried now; all items without a plan.
        saved_by_batch: by how much the next batch is predicted to lower that, if nothing were learned from it.
        expected_errors: wrong labels predicted in the pool.
        reason: one sentence.
    """

    step: Step
    batch: int
    plan: Plan | None
    manual: float
    saved_by_batch: float
    expected_errors: float
    reason: str


def seed_size(items: int, classes: int) -> int:
    """Return how many random items to label first: 2 %, at least 60, more with many classes.

    Args:
        items: labels in the dataset, at least 0.
        classes: labels in the label set.
    Source: chosen and measured in benchmarks/certified_loop.py; no promise rests on it.
    """
    return min(items, max(math.ceil(0.02 * items), 60, min(3 * classes, items // 20)))


def batch_size(items: int, labelled: int) -> int:
    """Return how many items to label, worst first, before learning again.

    A fifth of the answers there are, for what is learned early pays most; at most 2 % of the items, for
    learning takes time; at least LEAST_BATCH.

    Args:
        items: labels in the dataset.
        labelled: items that people have answered.
    """
    return min(items - labelled, max(LEAST_BATCH, min(round(GROWTH * labelled), round(BATCH * items))))


def enough(items: int) -> float:
    """Return how many answers it takes to judge a machine."""
    return min(ENOUGH, items / 10)


def plan(
    p_sorted: npt.ArrayLike,
    labelled: int,
    items: int,
    budget: int,
    alpha: float,
    floor_error: float | None = None,
) -> Plan | None:
    """Choose the sample that is predicted to make the whole dataset cheapest.

    For each allowed number of errors the least sample that proves the budget is taken, so that rounding
    wastes no alpha. The cut is predicted where the sample is expected to have met half an error more than
    allowed. If too few labels would be accepted to keep the floor, a part of the budget is promised instead.

    Args:
        p_sorted: chance of being wrong of each pool item, shape (pool,), surest first.
        labelled: items that people have answered; with the pool they make all ``items``.
        items: labels that the promise is about.
        budget: wrong labels tolerated; below 0 nothing can be planned.
        alpha: chance of a false certificate, in (0, 1).
        floor_error: largest share of wrong labels among the accepted ones, in (0, 1), or None for no floor.
    Returns: the plan, or None when the pool is too small for any sample to prove anything, or too few labels
        would be accepted to keep the floor.
    Raises: ValueError when pool and labelled do not make the items, or a number is out of range.
    Source: chosen and measured in benchmarks/certified_loop.py; no promise rests on it.
    """
    p = np.asarray(p_sorted, np.float64)
    if p.ndim != 1 or len(p) + labelled != items:
        raise ValueError(f"a pool of {len(p)} and {labelled} labelled do not make {items} items")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be between 0 and 1, not {alpha}")
    if budget < 0 or not len(p):
        return None
    found = [np.cumsum(np.minimum(p * factor, 1.0)) for factor, _ in WORLDS]
    if floor_error is None:
        return _cheapest(found, labelled, budget, alpha)
    # When the budget asks for as many accepted labels as there are items, coarse parts of it waste too much.
    alone = floor_error * items <= 1.5 * budget
    for part in FINE_BUDGETS if alone else PART_BUDGETS:
        promised = math.floor(part * budget + UNIT)
        chosen = _cheapest(found, labelled, promised, alpha)
        if chosen is not None and chosen.accepted >= MARGIN * least_accepted(promised, floor_error):
            return chosen
    return None


def _cheapest(found: Sequence[Floats], labelled: int, budget: int, alpha: float) -> Plan | None:
    """Return the cheapest plan at one budget; ``found`` counts the errors met down the order, by world."""
    pool = len(found[0])
    best: Plan | None = None
    for errors in ERRORS:
        sample = _sample_size(errors, pool, budget, alpha)
        if sample is None or (best is not None and labelled + sample >= best.manual):
            break  # from here on the sample alone costs more
        share = sample / pool
        cuts = [int(np.searchsorted(met, (errors + 0.5) / share, side="right")) for met in found]
        manual = sum(
            weight * (labelled + pool - cut + share * cut)
            for (_, weight), cut in zip(WORLDS, cuts, strict=True)
        )
        if best is None or manual < best.manual:
            accepted = (1 - share) * (cuts[0] + cuts[1]) / 2
            best = Plan(sample, errors, budget, cuts[1], manual, accepted)
    return best


# Rounds of one loop differ in the pool, so what repeats is the same question within a round and across
# replays of the same data.
_sample_size = lru_cache(65_536)(sample_size)


def limit(pool: int, budget: int, floor_error: float | None = None) -> float:
    """Return how many wrong labels a pool may be expected to hold when it is time to freeze."""
    return budget if floor_error is None else min(budget, FLOOR_SLACK * floor_error * pool)


def worth(chosen: Plan | None, items: int) -> bool:
    """Return whether a plan saves enough work to be tried."""
    return chosen is not None and chosen.manual <= WORTH * items


def ready(
    p: npt.ArrayLike,
    labelled: int,
    items: int,
    budget: int,
    floor_error: float | None,
    chosen: Plan | None,
    costs: Sequence[float] = (),
) -> bool:
    """Return whether to freeze now.

    Freezing far too late costs most, for each label is paid; too early means an order that has not learned.
    In between the cost is flat, so the rule needs no precision.

    Args:
        p: chance of being wrong of each pool item, shape (pool,), any order.
        labelled, items, budget, floor_error: as in ``plan``.
        chosen: what ``plan`` answered for them.
        costs: ``manual`` of the plans of this attempt, oldest first, this round's included; infinity where
            there was none.
    Source: chosen and measured in benchmarks/certified_loop.py; no promise rests on it.
    """
    if labelled < enough(items) or chosen is None or not worth(chosen, items):
        return False
    chances = np.asarray(p, np.float64)
    expected, most = float(chances.sum()), limit(len(chances), budget, floor_error)
    if expected <= most:
        return True
    flat = len(costs) > FLAT and min(costs[-FLAT:]) >= min(costs[:-FLAT])
    return flat and chosen.manual <= FLAT_WORTH * items and expected <= FLAT_SLACK * most


def hopeless(labelled: int, items: int, budget: int, alpha: float) -> bool:
    """Return whether even a faultless machine would leave no saving: the smallest sample asks too much."""
    pool = items - labelled
    least = _sample_size(ERRORS[0], pool, budget, alpha) if pool > 0 and budget >= 0 else None
    return least is None or labelled + least > WORTH * items


def judge(
    p_sorted: npt.ArrayLike,
    labelled: int,
    items: int,
    budget: int,
    alpha: float,
    floor_error: float | None = None,
    costs: Sequence[float] = (),
) -> tuple[Step, Plan | None]:
    """Return whether to label a batch more, to certify now, or that there is nothing to gain; and the plan.

    Args:
        p_sorted, labelled, items, budget, alpha, floor_error: as in ``plan``.
        costs: ``manual`` of the plans of the rounds of this attempt before this one, oldest first.
    Raises: ValueError as ``plan``.
    """
    p = np.asarray(p_sorted, np.float64)
    chosen = plan(p, labelled, items, budget, alpha, floor_error)
    if hopeless(labelled, items, budget, alpha):
        return "nothing to gain", chosen
    history = [*costs, chosen.manual if chosen else math.inf]
    return "certify now" if ready(
        p, labelled, items, budget, floor_error, chosen, history
    ) else "go on", chosen


def advice(
    p_sorted: npt.ArrayLike,
    labelled: int,
    items: int,
    budget: int,
    alpha: float,
    floor_error: float | None = None,
    costs: Sequence[float] = (),
) -> Advice:
    """Return what ``judge`` says, with its reason and figures.

    Args:
        p_sorted, labelled, items, budget, alpha, floor_error, costs: as in ``judge``.
    Raises: ValueError as ``plan``.
    """
    p = np.asarray(p_sorted, np.float64)
    step, chosen = judge(p, labelled, items, budget, alpha, floor_error, costs)
    manual = chosen.manual if chosen else float(items)
    expected = float(p.sum())

    def say(reason: str, batch: int = 0, saved: float = 0.0) -> Advice:
        return Advice(step, batch, chosen, manual, saved, expected, reason)

    if step == "nothing to gain":
        return say(
            f"With {labelled:,} of {items:,} labelled, even a faultless machine would need too large a sample "
            "to prove itself: label the rest by hand.",
        )
    if step == "certify now" and chosen is not None:
        return say(
            f"About {expected:,.0f} of the {len(p):,} open labels are expected to be wrong: a random sample of "
            f"{chosen.sample:,} should prove the rest, about {manual:,.0f} answers in all "
            f"({manual / items:.0%} of the items).",
        )
    batch = batch_size(items, labelled)
    after = plan(p[: len(p) - batch], labelled + batch, items, budget, alpha, floor_error)
    saved = manual - (after.manual if after else float(items))
    most = limit(len(p), budget, floor_error)
    if chosen is None:
        why = "no sample could prove the promise yet"
    elif expected > most:
        why = f"about {expected:,.0f} open labels are expected to be wrong, and {most:,.0f} is the mark"
    else:
        why = f"the machine has seen {labelled:,} answers, too few to judge it"
    effect = "lower" if saved >= 0 else "raise"
    return say(
        f"Label {batch:,} more, the least sure first, for {why}; stopping now would take about {manual:,.0f} "
        f"answers in all, and the batch should {effect} that by {abs(saved):,.0f} even if nothing is learned "
        "from it.",
        batch,
        saved,
    )

"""What a promise about the whole dataset would cost in people's answers: predicted from the run in force, not proven.

Nothing is asked of the database that the savings page has not counted already, but for the goal and the number of
attempts. The plan itself is the planner's, the same that the guided path goes by.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from datasets.labeling import ROUND
from datasets.models import Dataset
from labelhub.autolabel import planner
from labelhub.autolabel.certify import budget
from reviews.agreement import TITLES
from reviews.evidence import Evidence
from reviews.models import Goal, Threshold
from reviews.samples import next_attempt
from reviews.states import BIN, States

QUALITIES = (0.90, 0.95, 0.97, 0.98, 0.99)
FLOOR_ERROR = 0.10  # of the accepted labels, where no goal says otherwise
CALIBRATED_FROM = 50  # answers and given labels; below that scores stay as they are
CALIBRATED = ("weak_model", "ensemble")
BINS = 1000


@dataclass(frozen=True, slots=True)
class Promise:
    """One promised quality and its price.

    ``quality``: share of all labels that would be right, ``floor`` of the accepted ones, None for no floor.
    ``answers``: people's answers in all, those given included; None where no sample could prove the promise.
    ``sample``: random ones among them; ``accepted``: labels that nobody would see. ``wanted``: it is the dataset's own.
    """

    quality: float
    floor: float | None
    answers: int | None
    sample: int
    accepted: int
    wanted: bool


@dataclass(frozen=True, slots=True)
class Forecast:
    """The price of each promise, ascending. ``labelled`` of ``items`` are people's already, or will be in any case.

    ``stated_by``: the method whose own scores the chances are, in words, where nothing was calibrated; else empty.
    ``alpha``: chance of a false certificate at the next ``attempt``.
    """

    promises: list[Promise]
    items: int
    labelled: int
    attempt: int
    alpha: float
    stated_by: str
    guesses: bool


def forecast(dataset: Dataset, threshold: Threshold, known: Evidence, count: States) -> Forecast | None:
    """Return what each promise is predicted to cost; None while the run is not finished, or when nothing is open.

    Args:
        dataset: whose labels would be promised.
        threshold: the one in force; its run's confidences are the chances of being right.
        known: what is open at every thousandth of confidence.
        count: the states of the dataset.
    """
    pool = tuple(known.accepted(n * BIN, (n + 1) * BIN) for n in range(BINS + 1))
    if count.pending or not any(pool):
        return None
    goal = Goal.objects.active().filter(dataset=dataset).first()
    target_error = goal.target_error if goal else dataset.target_error
    floor_error = goal.floor_error if goal else max(FLOOR_ERROR, target_error)
    attempt, alpha = next_attempt(dataset)
    own = round(1 - target_error, 6)
    promises: list[Promise] = []
    plan: planner.Plan | None = None
    for quality in sorted({*QUALITIES, own}, reverse=True):
        floor = _floor_error(1 - quality, target_error, floor_error)
        looser = _plan(pool, count.distinct, round(1 - quality, 6), alpha, floor)
        if plan is None or (looser is not None and looser.manual < plan.manual):
            plan = looser  # else what proves the stricter promise proves this one too
        promises.append(
            Promise(
                quality=quality,
                floor=None if floor is None else 1 - floor,
                answers=None if plan is None else min(round(plan.manual), count.distinct),
                sample=plan.sample if plan else 0,
                accepted=round(plan.accepted) if plan else 0,
                wanted=quality == own,
            )
        )
    version = threshold.run.version
    scarce = len(version.examples) + count.given < CALIBRATED_FROM
    as_stated = version.method != ROUND and (version.method not in CALIBRATED or scarce)
    return Forecast(
        promises=promises[::-1],
        items=count.distinct,
        labelled=count.distinct - sum(pool),
        attempt=attempt,
        alpha=alpha,
        stated_by=TITLES.get(version.method, version.method) if as_stated else "",
        guesses=version.guess,
    )


def _floor_error(error: float, target_error: float, floor_error: float | None) -> float | None:
    """The floor of a promise: the dataset's own, and stricter in proportion where more is promised."""
    return None if floor_error is None else floor_error * min(1.0, error / target_error)


@lru_cache(maxsize=64)
def _plan(
    pool: tuple[int, ...], items: int, target_error: float, alpha: float, floor_error: float | None
) -> planner.Plan | None:
    """Plan a promise; ``pool`` counts the open items by thousandth of confidence, least sure first.

    Each item is taken to be in the middle of its thousandth.
    """
    wrong = 1 - np.minimum((np.arange(BINS + 1) + 0.5) / BINS, 1.0)
    p = np.repeat(wrong[::-1], pool[::-1])
    labelled = items - len(p)
    return planner.plan(p, labelled, items, budget(items, target_error), alpha, floor_error)

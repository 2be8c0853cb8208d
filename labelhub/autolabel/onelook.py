"""One look at one random sample, with labels and confidences that are there already: nothing is learned."""

from __future__ import annotations

import math

import numpy as np

from labelhub.autolabel import planner
from labelhub.autolabel.certify import UNIT, allowed_errors, certify
from labelhub.autolabel.playing import Floats, Ints, Known, Outcome, People, Promise

WORLDS = ((0.1, 0.2), *planner.WORLDS)  # as for a plan, and one where the machine is far better than it says


def promise_for(known: Known, promise: Promise, sample: int) -> tuple[int, int]:
    """Return the budget and the allowed errors of one look, both fixed before the draw.

    With a floor a part of the budget is promised: the one that is expected to accept most, by the stated
    confidences, in the worlds of a plan and in one where the machine is far better than it says.
    """
    items = len(known.gold)
    given, stated = _stated(known)
    p = np.sort(1 - stated[given >= 0])
    whole = promise.budget(items, items)
    floor, pool = promise.floor, len(p)

    def errors(budget: int) -> int:
        return allowed_errors(pool, min(sample, pool), budget, promise.alpha, promise.reviewer_error)

    if whole < 0:
        return 0, -1
    if floor is None:
        return whole, errors(whole)
    found = [np.cumsum(np.minimum(p * factor, 1.0)) for factor, _ in WORLDS]
    best, most = (0, -1), -1.0
    for part in planner.FINE_BUDGETS if floor * items <= 1.5 * whole else planner.PART_BUDGETS:
        budget = math.floor(part * whole + UNIT)
        c = errors(budget)
        if c < 0:
            break  # a smaller budget would need a larger sample
        share = min(sample, pool) / pool
        cuts = [int(np.searchsorted(met, (c + 0.5) / share, side="right")) for met in found]
        worth = sum(
            weight * (1 - share) * cut
            for (_, weight), cut in zip(WORLDS, cuts, strict=True)
            if (1 - share) * cut >= budget / floor
        )
        if worth > most or worth == 0.0 == most:
            best, most = (budget, c), worth
    return best


def simple(
    known: Known, promise: Promise, sample: int, seed: int, fixed: tuple[int, int] | None = None
) -> Outcome:
    """Take one look at one random sample, with the given labels and confidences and all of alpha.

    Items without a given label are outside the pool: people label them.

    Args:
        known, promise: what is replayed, and what is to be proven.
        sample: items to draw; where the pool is smaller, all of it.
        seed: of people, ties and draw.
        fixed: what ``promise_for`` said of the first three.
    Raises: ValueError when there are no given labels, or fewer items than the sample.
    """
    items = len(known.gold)
    given, stated = _stated(known)
    if not 0 < sample <= items:
        raise ValueError(f"Cannot draw {sample} of {items} items.")
    random = np.random.default_rng([seed, 2])
    labeled = np.flatnonzero(given >= 0)
    order = labeled[np.lexsort((random.random(len(labeled)), -stated[labeled]))]
    labels = given[order]
    people = People(known, promise.reviewer_error, seed)
    budget, c = promise_for(known, promise, sample) if fixed is None else fixed
    places = np.sort(random.permutation(len(order))[:sample])
    wrong, answers = people.check(order[places], labels[places])
    final = people.answers.copy()
    final[order[places]] = answers
    result = certify(range(len(order)), places.tolist(), places[wrong].tolist(), c, budget, promise.floor)
    unseen = np.array(result.accepted, np.int64)
    final[order[unseen]] = labels[unseen]
    look = planner.Plan(len(places), c, budget, result.walked, float(items - len(unseen)), float(len(unseen)))
    return Outcome(order[unseen], final, 1, 0, look, int(wrong.sum()), result.problem)


def _stated(known: Known) -> tuple[Ints, Floats]:
    if known.given is None or known.confidence is None:
        raise ValueError("One look needs given labels and confidences.")
    return known.given, known.confidence

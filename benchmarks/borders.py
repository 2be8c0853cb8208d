"""Pools made to stand at the border of a promise, where a test errs as often as it ever can.

Simulates several attempts in a row and spot checks, and enumerates the intervals of accuracies; benchmarks/promises.py
runs this and prints it. Beside each way that LabelHub goes stands the naive one, which has to break its word here: a
simulation that cannot see a broken promise shows nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from labelhub.autolabel.buckets import Estimate, accuracy
from labelhub.autolabel.certify import (
    allowed_errors,
    attempt_alpha,
    certified_threshold,
    least_accepted,
    most_errors_allowed,
    sample_size,
    tolerated,
)
from labelhub.autolabel.hypergeometric import at_most
from labelhub.autolabel.sampling import draw, spot_check_size

Ints = npt.NDArray[np.int64]
Marks = npt.NDArray[np.bool_]

ALPHA, TARGET, FLOOR = 0.05, 0.05, 0.10
ATTEMPTS = 5
FINE = tuple(attempt_alpha(ALPHA, k) for k in range(1, ATTEMPTS + 1))
NAIVE = (ALPHA,) * ATTEMPTS
GROUPS = 50  # of items that are alike
HAIR = 1e-9  # floats: a chance this little above alpha is alpha


@dataclass(frozen=True)
class Figure:
    """How often a promise was broken.

    ``exact``: the chance of that, where it is known. ``naive``: a way that LabelHub does not go, whose share has
    to be beyond the limit. ``limit``: largest share that chance explains, alpha and two standard errors.
    """

    promise: str
    case: str
    n: int
    violations: int
    seconds: float
    limit: float
    exact: float | None = None
    naive: bool = False
    fact: str = ""

    @property
    def share(self) -> float:
        return self.violations / self.n

    @property
    def passed(self) -> bool:
        return (self.share > self.limit) == self.naive

    def as_json(self) -> dict[str, Any]:
        rounded = {
            "share": round(self.share, 5),
            "limit": round(self.limit, 5),
            "seconds": round(self.seconds, 2),
        }
        return asdict(self) | rounded | {"passed": self.passed}


def beyond_chance(n: int, alpha: float = ALPHA, errors: float = 2) -> float:
    """Return the share of ``n`` that lies so many standard errors above alpha."""
    return alpha + errors * math.sqrt(alpha * (1 - alpha) / n)


def figure(
    promise: str,
    case: str,
    broken: Callable[[], Marks],
    alpha: float = ALPHA,
    exact: float | None = None,
    naive: bool = False,
    fact: str = "",
) -> Figure:
    """Run a simulation that marks the repetitions in which the promise was broken."""
    started = time.perf_counter()
    marks = broken()
    seconds = time.perf_counter() - started
    limit = beyond_chance(len(marks), alpha)
    return Figure(promise, case, len(marks), int(marks.sum()), seconds, limit, exact, naive, fact)


def measure(reps: int = 10_000) -> Iterator[Figure]:
    """Yield all figures of this file, each from ``reps`` repetitions."""
    yield from attempts(reps)
    yield from spot_checks(reps)
    yield intervals(50)
    yield hunted_intervals(12)


def walk(
    wrong: Marks, drawn: Ints, errors: int, budget: int, floor_error: float | None
) -> tuple[int, int, int]:
    """Certify a pool by the place of each item in its order, in the time that the sample takes.

    Args:
        wrong: shape (pool,), whether the machine's label is wrong, surest first.
        drawn: shape (n,), places that were drawn.
        errors, budget, floor_error: as in ``certify``.
    Returns: labels accepted unseen, wrong ones among them, and the length of the accepted stretch.
    """
    if errors < 0:
        return 0, 0, 0
    ranks = len(wrong) - 1 - drawn[wrong[drawn]]
    walked = len(wrong) - certified_threshold(ranks.tolist(), errors)
    seen = drawn[drawn < walked]
    accepted = walked - len(seen)
    if accepted == 0 or (floor_error is not None and accepted < least_accepted(budget, floor_error)):
        return 0, 0, 0
    return accepted, int(wrong[:walked].sum()) - int(wrong[seen].sum()), walked


# Several attempts in a row


def attempts(reps: int) -> Iterator[Figure]:
    for pool in (400, 2000, 8898):
        for alphas in (FINE, NAIVE):
            once = [chance_by_hand(pool, alpha) for alpha in alphas]
            yield figure(
                "five spot checks in a row" + naively(alphas),
                f"threshold by hand, {pool:,} labels, one wrong label too many",
                partial(by_hand, pool, alphas, reps),
                exact=1 - math.prod(1 - chance for chance in once),
                naive=alphas is NAIVE,
            )
    case = "2,000 items, learning in between, worst order and errors each time"
    for alphas in (FINE, NAIVE):
        yield figure(
            "five certificates in a row" + naively(alphas),
            case,
            partial(by_target, 2000, alphas, reps),
            naive=alphas is NAIVE,
        )
    once_drawn = partial(by_target, 2000, FINE, reps // 10, fresh=False)
    yield figure("five certificates in a row, one sample for all", case, once_drawn, naive=True)


def naively(alphas: Sequence[float]) -> str:
    return ", whole alpha each" if alphas is NAIVE else ""


def by_hand(pool: int, alphas: Sequence[float], reps: int, seed: int = 0) -> Marks:
    """Mark who proved 5 % falsely in any of several spot checks of a pool with one error too many."""
    random = np.random.default_rng([seed, pool])
    false, budget = np.zeros(reps, bool), tolerated(pool, TARGET)
    for alpha in alphas:
        checked = spot_check_size(pool, TARGET, alpha)
        most = most_errors_allowed(pool, budget, checked, alpha)
        false |= random.hypergeometric(budget + 1, pool - budget - 1, checked, reps) <= most
    return false


def chance_by_hand(pool: int, alpha: float) -> float:
    budget, checked = tolerated(pool, TARGET), spot_check_size(pool, TARGET, alpha)
    return at_most(most_errors_allowed(pool, budget, checked, alpha), pool, budget + 1, checked)


least_sample = lru_cache(100_000)(sample_size)
largest_errors = lru_cache(100_000)(allowed_errors)


def by_target(items: int, alphas: Sequence[float], reps: int, seed: int = 0, fresh: bool = True) -> Marks:
    """Mark who was certified falsely in any of several attempts, with a machine that learns to deceive.

    After each attempt the machine knows the answers by heart, labels everything alike to an error found right, and
    puts both last. Of the rest the surest are wrong: just as many as make a broken promise most likely. How large
    the next sample is depends on the errors found too, and what was answered leaves the pool. Unless ``fresh``, the
    first sample is all there is: machine and pool change, and it is counted again.
    """
    random = np.random.default_rng([seed, items])
    budget, false = tolerated(items, TARGET), np.zeros(reps, bool)
    for repetition in range(reps):
        group, doubted = random.integers(0, GROUPS, items), np.zeros(GROUPS, bool)
        open_, known_by_heart, found = np.arange(items), np.zeros(items, bool), 0
        for alpha in alphas:
            if fresh or not known_by_heart.any():
                checked = least_sample(2 + min(found, 4), len(open_), budget, alpha)
                if checked is None:
                    break
                sample = draw(int(random.integers(2**63)), open_, checked)
            errors = largest_errors(len(open_), len(sample), budget, alpha)
            last = doubted[group[open_]] + 2.0 * known_by_heart[open_]
            order = open_[np.argsort(random.random(len(open_)) + last)]
            wrong = np.arange(len(order)) < budget + 1 + errors
            known_by_heart[sample] = True
            drawn = np.flatnonzero(np.isin(order, sample))
            accepted, missed, _ = walk(wrong, drawn, errors, budget, FLOOR)
            if accepted:
                false[repetition] = missed > budget
                break
            hit = order[drawn[wrong[drawn]]]
            doubted[group[hit]], found = True, len(hit)
            open_ = open_[~known_by_heart[open_]] if fresh else open_
    return false


# One spot check


def spot_checks(reps: int) -> Iterator[Figure]:
    for pool, alpha in ((400, 0.05), (2000, 0.05), (8898, 0.05), (2000, 0.04)):
        checked = spot_check_size(pool, TARGET, alpha)
        yield figure(
            "one spot check",
            f"{pool:,} labels, one wrong label too many, {checked} checked, alpha {alpha}",
            partial(spot_check, pool, checked, alpha, reps),
            alpha,
            chance_by_hand(pool, alpha),
        )


def spot_check(pool: int, checked: int, alpha: float, reps: int, seed: int = 0) -> Marks:
    """Mark who proved 5 % falsely in one check of a pool with one error too many, by the product's own draw."""
    budget, ids = tolerated(pool, TARGET), np.arange(pool)
    most = most_errors_allowed(pool, budget, checked, alpha)
    found = [sum(item <= budget for item in draw(seed + rep, ids, checked)) for rep in range(reps)]
    return np.array(found) <= most


# Intervals of accuracies, by enumeration


def intervals(largest: int) -> Figure:
    """Go through every pool, sample size and number of wrong labels: is the truth missed too often anywhere?"""
    started, cases, worst, broken = time.perf_counter(), 0, 0.0, 0
    for pool in range(1, largest + 1):
        for sampled in range(1, pool + 1):
            found = [known(accuracy(0, 0, pool, sampled, k, ALPHA)) for k in range(sampled + 1)]
            low, high = np.array([[e.low, e.high] for e in found]).T
            truth = 1 - np.arange(pool + 1)[:, None] / pool
            missed = (chances(pool, sampled) * ((truth < low - HAIR) | (truth > high + HAIR))).sum(axis=1)
            cases, broken = cases + pool + 1, broken + int((missed > ALPHA + HAIR).sum())
            worst = max(worst, float(missed.max()))
    return _enumerated(f"every pool up to {largest} labels, every sample", cases, broken, worst, started)


def hunted_intervals(largest: int) -> Figure:
    """The same where people, after the draw, hunt for wrong labels or approve right ones, of any number."""
    started, cases, worst, broken = time.perf_counter(), 0, 0.0, 0
    for pool in range(2, largest + 1):
        for sampled in range(1, pool):
            weights = chances(pool, sampled)
            for wrong in range(pool + 1):
                for hunted in range(pool - sampled + 1):
                    for approved in range(pool - sampled + 1 - hunted):
                        missed = 0.0
                        for k in range(max(0, sampled + wrong - pool), min(sampled, wrong) + 1):
                            bad = min(hunted, wrong - k)
                            later = bad + min(approved, pool - wrong - (sampled - k))
                            e = known(accuracy(0, 0, pool, sampled, k, ALPHA, later, bad))
                            if not e.low - HAIR <= 1 - wrong / pool <= e.high + HAIR:
                                missed += float(weights[wrong, k])
                        cases, broken = cases + 1, broken + (missed > ALPHA + HAIR)
                        worst = max(worst, missed)
    return _enumerated(
        f"every pool up to {largest} labels, any answers after the draw", cases, broken, worst, started
    )


def chances(pool: int, sampled: int) -> npt.NDArray[np.float64]:
    """Return the chance of k errors in the sample, shape (pool + 1, sampled + 1): by wrong labels and k."""
    return np.array(
        [
            [math.comb(wrong, k) * math.comb(pool - wrong, sampled - k) for k in range(sampled + 1)]
            for wrong in range(pool + 1)
        ]
    ) / math.comb(pool, sampled)


def known(found: Estimate | None) -> Estimate:
    assert found is not None
    return found


def _enumerated(case: str, cases: int, broken: int, worst: float, started: float) -> Figure:
    seconds = time.perf_counter() - started
    fact = f"worst chance of a miss {worst:.4f}"
    return Figure("interval of an accuracy", case, cases, broken, seconds, 0.0, 0.0, fact=fact)

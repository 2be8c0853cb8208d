"""A spot check that may be read after every answer.

An exact test read again and again while answers come in proves too much: each look is another chance to be
lucky. The evidence here is made for looking. If the claim it speaks against is true, its expected value is at
most 1 at every moment, so the chance that it *ever* reaches ``1 / alpha`` is at most ``alpha``, however often
one looks and whenever one stops.

``pool`` items were named before the draw and are answered in random order, without replacement; ``checked``
of them have an answer, ``errors`` of those were wrong, ``budget`` wrong labels are tolerated in the whole
pool. Both kinds of evidence average over a beta-binomial prior on the number of wrong labels, which shapes
how fast evidence grows and never whether it is valid. Proof: docs/statistics.md, "Reading a spot check while
it runs".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PRIOR_WEIGHT = 0.5  # first parameter of both priors: nearly flat in the logarithm of the error rate
BLOCK = 65_536


@dataclass(frozen=True, slots=True)
class Reading:
    """What the answers so far say about the pool.

    ``verdict``: ``"proven"`` at most ``budget`` of the pool are wrong; ``"failing"`` more are; ``"open"``
    neither yet.
    ``log_certified``, ``log_alarm``: natural logarithms of the two kinds of evidence.
    ``more``: about how many further answers, all of them right, would prove the budget: 0 when it is proven,
    None when no number would (more errors found than tolerated) or when the check is failing.
    """

    verdict: Literal["proven", "failing", "open"]
    log_certified: float
    log_alarm: float
    more: int | None


def read(
    pool: int, checked: int, errors: int, budget: int, alpha: float, target_error: float = 0.05
) -> Reading:
    """Say what a running spot check has shown; arguments as in ``log_evidence_certified``.

    Args:
        alpha: chance of ever saying "proven" falsely, and of ever saying "failing" falsely, each in (0, 1).
    Raises: ValueError on a number outside its range.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be between 0 and 1, not {alpha}")
    enough = -math.log(alpha)
    certified = log_evidence_certified(pool, checked, errors, budget, target_error)
    alarm = log_evidence_alarm(pool, checked, errors, budget, target_error)
    if certified >= enough:
        return Reading("proven", certified, alarm, 0)
    if alarm >= enough:
        return Reading("failing", certified, alarm, None)
    # Each right answer adds evidence, and when the rest fits into the budget the proof is complete.
    low, high = checked, pool - budget + errors
    while high - low > 1:
        middle = (low + high) // 2
        if log_evidence_certified(pool, middle, errors, budget, target_error) >= enough:
            high = middle
        else:
            low = middle
    return Reading("open", certified, alarm, high - checked)


def log_evidence_certified(
    pool: int, checked: int, errors: int, budget: int, target_error: float = 0.05
) -> float:
    """Return ln of the evidence that at most ``budget`` labels of the pool are wrong.

    Args:
        pool: labels in the pool when the sample was drawn.
        checked: answers so far, in [0, pool].
        errors: wrong labels among them, in [0, checked].
        budget: wrong labels tolerated in the whole pool, in [0, pool).
        target_error: error rate that the budget stands for, in (0, 1): the prior expects a third of it.
    Returns: a natural logarithm; -inf with more errors than the budget, inf when more than ``budget`` wrong
        labels have become impossible. "Proven" at ``ln(1 / alpha)``.
    Raises: ValueError on a number outside its range.
    Source: prior-posterior ratio for sampling without replacement (Waudby-Smith and Ramdas, NeurIPS 2020);
        docs/statistics.md, "Reading a spot check while it runs".
    """
    _check(pool, checked, errors, budget, target_error)
    if errors > budget:
        return -math.inf
    unseen, missing = pool - checked, budget + 1 - errors
    if missing > unseen:
        return math.inf
    a, b = _prior(target_error / 3)
    return (
        _log_beta(a + errors, b + checked - errors)
        - _log_beta(a, b)
        + _log_sum(unseen, a + errors, b + checked - errors, 0, budget - errors)
        - _log_sum(pool, a, b, 0, budget)
        - (_log_choose(unseen, missing) - _log_choose(pool, budget + 1))
    )


def log_evidence_alarm(
    pool: int, checked: int, errors: int, budget: int, target_error: float = 0.05
) -> float:
    """Return ln of the evidence that more than ``budget`` labels of the pool are wrong.

    Arguments and errors as in ``log_evidence_certified``; the prior expects three times ``target_error``.
    Returns: a natural logarithm; inf with more errors than the budget, -inf when more than ``budget`` wrong
        labels have become impossible. "Failing" at ``ln(1 / alpha)``.
    """
    _check(pool, checked, errors, budget, target_error)
    if errors > budget:
        return math.inf
    unseen, missing = pool - checked, budget - errors
    if missing >= unseen:
        return -math.inf
    # Above a third of wrong labels "three times" is no rate any more: half-way to all wrong then.
    a, b = _prior(min(3 * target_error, (1 + target_error) / 2))
    return (
        _log_beta(a + errors, b + checked - errors)
        - _log_beta(a, b)
        + _log_sum(unseen, a + errors, b + checked - errors, missing + 1, unseen)
        - _log_sum(pool, a, b, budget + 1, pool)
        - (_log_choose(unseen, missing) - _log_choose(pool, budget))
    )


def _prior(mean: float) -> tuple[float, float]:
    return PRIOR_WEIGHT, PRIOR_WEIGHT * (1 - mean) / mean


def _log_sum(trials: int, a: float, b: float, first: int, last: int) -> float:
    """Return ln of the probability that a beta-binomial(trials, a, b) count lies in [first, last]."""
    import numpy as np

    log_term = _log_choose(trials, first) + _log_beta(a + first, b + trials - first) - _log_beta(a, b)
    best, total = log_term, 1.0  # the sum so far is exp(best) * total
    for start in range(first, last, BLOCK):
        x: NDArray[np.float64] = np.arange(start, min(start + BLOCK, last), dtype=np.float64)
        steps = np.log((trials - x) * (a + x) / ((x + 1) * (b + trials - x - 1)))
        terms = log_term + np.cumsum(steps)
        log_term = float(terms[-1])
        highest = max(best, float(terms.max()))
        added = float(np.exp(terms - highest).sum())
        total = total * math.exp(best - highest) + added
        best = highest
        # With b >= 1 the terms fall for good once they fall, so a block that adds nothing is the last that
        # matters.
        if b >= 1 and steps[-1] < 0 and added < 1e-17 * total:
            break
    return best + math.log(total)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _check(pool: int, checked: int, errors: int, budget: int, target_error: float) -> None:
    if not (0 <= errors <= checked <= pool and 0 <= budget < pool and 0 < target_error < 1):
        raise ValueError(
            f"no evidence from {errors} errors in {checked} of {pool} labels, budget {budget}, "
            f"target error {target_error}"
        )

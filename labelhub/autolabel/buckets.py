"""Accuracy per confidence bucket and per threshold, with exact intervals.

People's answers come in two kinds. A *census* answer is about an item that was reviewed for whatever reason:
it says how that item is labeled and nothing about its neighbours. A *sample* answer is about an item that
chance picked from a pool named beforehand: it speaks for the whole pool. An accuracy is the census counted as
facts plus, for the rest, the exact bounds that one sample gives. No answers means unknown, never 100 %.

Plain Python throughout: a dashboard asks for about thirty of these at once.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from labelhub.autolabel.hypergeometric import least_marked, most_marked


@dataclass(frozen=True, slots=True)
class Estimate:
    """An accuracy with what it rests on.

    ``value``, ``low``, ``high``: share of right labels and its interval, in [0, 1]; equal when every label is
    known.
    ``n``: people's answers behind it. ``items``: labels that it is about.
    ``sampled``: answers among the n that came from the random sample; 0 for a census.
    """

    value: float
    low: float
    high: float
    n: int
    items: int
    sampled: int

    @property
    def census(self) -> bool:
        """Whether a person answered every item, so that nothing is estimated."""
        return self.n == self.items


@dataclass(frozen=True, slots=True)
class RowSample:
    """One closed sample of the run in force, counted at or above one row of the threshold table.

    The sample's pool is what was undecided, with a rank of ``threshold`` or more, when it was drawn. All
    counts are of items at or above the row.

    ``threshold``: lowest rank in the pool; 0 for a calibration sample, which covers every row.
    ``checked``, ``wrong``: sampled items, and those whose first answer was not the machine's label; "can't
    tell" is wrong.
    ``outside``, ``outside_wrong``: items decided before the draw, hence not in the pool.
    ``later``, ``later_wrong``: pool items that were not sampled and were decided after the draw, for whatever
    reason. An item excluded since the draw is one of these, and wrong.
    ``uncovered``: undecided items outside the pool. One such item and the sample does not speak for the row.
    """

    threshold: int
    checked: int
    wrong: int
    outside: int = 0
    outside_wrong: int = 0
    later: int = 0
    later_wrong: int = 0
    uncovered: int = 0


def accuracy(
    known: int,
    known_errors: int,
    remainder: int,
    sampled: int,
    sample_errors: int,
    alpha: float = 0.05,
    later: int = 0,
    later_errors: int = 0,
) -> Estimate | None:
    """Return the accuracy of ``known + remainder`` labels from a census and one random sample.

    The remainder is the sample's pool as it stood at the draw, the sampled items included. Items of it that
    were decided afterwards are not taken out, for they may have been chosen because they looked right or
    wrong; they only narrow the interval, as facts.

    Args:
        known: decided items outside the pool.
        known_errors: those whose machine label was wrong.
        remainder: items in the pool.
        sampled: items drawn from it, in [0, remainder].
        sample_errors: wrong ones among the drawn.
        alpha: chance that the interval misses the truth, half of it on either side, in (0, 1).
        later: items of the pool that were not drawn and have been decided since.
        later_errors: wrong ones among those.
    Returns: an estimate; with every item decided its interval is a point. None (unknown) when there are no
        items, or when a remainder is not fully decided and nothing was drawn from it.
    Raises: ValueError on a count or a chance outside its range.
    Source: exact hypergeometric bounds for the pool; docs/statistics.md, "Accuracy per bucket".
    """
    if not (
        0 <= known_errors <= known
        and 0 <= sample_errors <= sampled
        and 0 <= later_errors <= later
        and sampled + later <= remainder
        and 0 < alpha < 1
    ):
        raise ValueError(
            f"counts do not fit: {known_errors} of {known} known, {sample_errors} of {sampled} sampled, "
            f"{later_errors} of {later} later, remainder {remainder}, alpha {alpha}"
        )
    items = known + remainder
    decided = known + sampled + later
    if items == 0 or (sampled == 0 and later < remainder):
        return None
    # Facts: this many of the pool are wrong, and this many right, whatever chance did.
    fewest = sample_errors + later_errors
    most = remainder - (sampled - sample_errors) - (later - later_errors)
    low, high, guess = fewest, most, float(fewest)
    if fewest < most:
        low = _clip(least_marked(sample_errors, remainder, sampled, alpha / 2), fewest, most)
        high = _clip(most_marked(sample_errors, remainder, sampled, alpha / 2), fewest, most)
        guess = min(max(remainder * sample_errors / sampled, low), high)
    return Estimate(
        value=1 - (known_errors + guess) / items,
        low=1 - (known_errors + high) / items,
        high=1 - (known_errors + low) / items,
        n=decided,
        items=items,
        sampled=sampled,
    )


def threshold_row(
    row: int,
    items: int,
    decided: int,
    decided_wrong: int,
    samples: Sequence[RowSample],
    alpha: float = 0.05,
) -> Estimate | None:
    """Return how accurate the machine's labels at or above a threshold are, or None for unknown.

    When all of them are decided, that is a census. Otherwise exactly one sample serves: of those that cover
    the row, the one with most sampled items at or above it (the first of equals). A sample covers a row at or
    above its own threshold when no undecided item there lies outside its pool. Samples are never pooled.

    Args:
        row: the row's threshold, a rank.
        items: items with that rank or more in the run in force, without given labels and copies.
        decided: those that have a person's answer, for whatever reason.
        decided_wrong: those of the decided whose machine label was wrong.
        samples: closed samples of the run in force, counted at or above this row.
        alpha: chance that the interval misses the truth, in (0, 1).
    Returns: an estimate, or None for "unknown".
    Raises: ValueError when the counts contradict each other.
    Source: docs/statistics.md, "Which sample speaks for a row".
    """
    if not 0 <= decided_wrong <= decided <= items:
        raise ValueError(f"counts do not fit: {decided_wrong} wrong, {decided} decided, {items} items")
    if decided == items:
        return accuracy(decided, decided_wrong, 0, 0, 0, alpha)
    covering = [s for s in samples if s.threshold <= row and s.uncovered == 0 and s.checked > 0]
    if not covering:
        return None
    best = max(covering, key=lambda s: s.checked)
    return accuracy(
        best.outside,
        best.outside_wrong,
        items - best.outside,
        best.checked,
        best.wrong,
        alpha,
        best.later,
        best.later_wrong,
    )


def bucket_of(value: float, edges: Sequence[float]) -> int:
    """Return which half-open bucket a confidence or a rank falls into.

    Bucket i is ``edges[i] <= value < edges[i + 1]``; the last one has no upper end, so that 1.0 is in it. The
    same rule holds for ranks and for confidences, and a value on an edge belongs above it, as with
    thresholds.

    Args:
        value: a number at or above the first edge.
        edges: strictly ascending lower ends, at least one.
    Raises: ValueError when the edges do not ascend or the value lies below the first.
    """
    if not edges or any(low >= high for low, high in pairwise(edges)):
        raise ValueError("bucket edges must ascend")
    if not value >= edges[0]:
        raise ValueError(f"{value} lies below the first bucket, which begins at {edges[0]}")
    return bisect_right(edges, value) - 1


def clopper_pearson(count: int, n: int, alpha: float = 0.05) -> tuple[float, float]:
    """Return the exact interval for a share, from ``count`` among ``n`` independent draws.

    Args:
        count: hits, in [0, n].
        n: draws, at least 1.
        alpha: chance that the interval misses the share, half of it on either side, in (0, 1).
    Raises: ValueError on a number outside its range.
    Source: Clopper and Pearson 1934, by quantiles of the beta distribution.
    """
    from scipy.special import betaincinv

    _check_share(count, n, alpha)
    low = 0.0 if count == 0 else float(betaincinv(count, n - count + 1, alpha / 2))
    high = 1.0 if count == n else float(betaincinv(count + 1, n - count, 1 - alpha / 2))
    return low, high


def wilson(count: int, n: int, alpha: float = 0.05) -> tuple[float, float]:
    """Return Wilson's interval for a share: shorter than the exact one, right on average only; for plots.

    Arguments and errors as in ``clopper_pearson``.
    Source: Wilson 1927, the score interval.
    """
    from statistics import NormalDist

    _check_share(count, n, alpha)
    z = NormalDist().inv_cdf(1 - alpha / 2)
    share = count / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At the ends the formula meets 0 and 1 exactly, which floats miss by a hair.
    return (0.0 if count == 0 else middle - half), (1.0 if count == n else middle + half)


def _clip(value: int, low: int, high: int) -> int:
    return min(max(value, low), high)


def _check_share(count: int, n: int, alpha: float) -> None:
    if not (0 <= count <= n and n >= 1 and 0 < alpha < 1):
        raise ValueError(f"no interval for {count} of {n} at alpha {alpha}")

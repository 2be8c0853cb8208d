"""What one random sample shows about many cuts of an order at once, and how large another one would have to be.

For tables and plots. A bound holds for a cut that was named before the draw; the bounds of different cuts do not
hold together (they are not simultaneous), so none of them proves a cut that was chosen by looking at the sample.
That is what ``certify`` is for.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from labelhub.autolabel.certify import ROUNDING
from labelhub.autolabel.hypergeometric import at_most, most_marked

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ROUNDS = 12  # of the search over all cuts; it needs three or four
FIRST_BLOCK, LARGEST_BLOCK = 64, 2048  # error counts that are tried together
_lgamma = np.frompyfunc(math.lgamma, 1, 1)


def bound_curve(
    items: npt.ArrayLike, checked: npt.ArrayLike, wrong: npt.ArrayLike, alpha: float
) -> list[int]:
    """Return an upper bound on the wrong labels among the unsampled items above each cut.

    The order of the pool was frozen before the draw, so what a sample has above a cut is a random sample of what the
    pool has there. It is ``certify.remaining_upper`` for every cut, only faster.

    Args:
        items: shape (cuts,), items of the pool above each cut.
        checked: shape (cuts,), sampled items among them.
        wrong: shape (cuts,), wrong labels among those.
        alpha: chance that a bound is too low, for each cut by itself, in (0, 1).
    Returns: a count in [0, items - checked] for each cut; not simultaneous.
    Raises: ValueError on counts that do not fit, or a chance outside its range.
    Source: inversion of the hypergeometric tail; docs/statistics.md, "Exact bounds".
    """
    pool, drawn, found = (np.atleast_1d(np.asarray(count, np.int64)) for count in (items, checked, wrong))
    if not (pool.shape == drawn.shape == found.shape and pool.ndim == 1 and 0 < alpha < 1):
        raise ValueError("items, checked and wrong must have one count for each cut, and alpha be in (0, 1)")
    if np.any((found < 0) | (found > drawn) | (drawn > pool)):
        raise ValueError("a cut cannot have more wrong than checked items, or more checked than there are")
    kept = np.where(drawn == 0, pool, found)  # not refuted by the draw: where nothing was drawn, nothing is
    refuted = np.where(drawn == 0, pool + 1, pool - drawn + found + 1)
    probe = _likely_bounds(pool, drawn, found, alpha)
    for _ in range(ROUNDS):
        live = np.flatnonzero(refuted - kept > 1)
        if not len(live):
            break
        at = np.clip(probe[live], kept[live] + 1, refuted[live] - 1)
        here, beyond = _heights(found[live], pool[live], at, drawn[live], alpha)
        stands = here > 0
        kept[live[stands]] = at[stands]
        refuted[live[~stands]] = at[~stands]
        last = stands & (beyond <= 0)
        refuted[live[last]] = at[last] + 1
        # Newton's step: the logarithm of the tail is nearly straight.
        with np.errstate(divide="ignore", invalid="ignore"):
            step = np.floor(here / (here - beyond)) + stands
        probe[live] = at + np.clip(np.nan_to_num(step), -pool[live], pool[live]).astype(np.int64)
    for cut in np.flatnonzero(refuted - kept > 1).tolist():
        kept[cut] = most_marked(int(found[cut]), int(pool[cut]), int(drawn[cut]), alpha)
    return [int(count) for count in kept - found]


def more_answers(pool: int, budget: int, checked: int, errors: int, alpha: float) -> int | None:
    """Return how many answers a fresh sample would need to prove a budget, if errors come as often as they did.

    The sample is expected to show ``errors / checked`` of its size, rounded up, and must be allowed as many by
    ``certify.most_errors_allowed``.

    Args:
        pool: items that the fresh sample is drawn from, at least 1.
        budget: wrong labels tolerated among them, sampled ones included, in [0, pool).
        checked: size of the sample whose errors were counted, at least 1.
        errors: wrong labels in it, in [0, checked].
        alpha: chance of a false proof by the fresh sample, in (0, 1): that of the next attempt.
    Returns: the least such sample size, in [1, pool], or None where errors come more often than the budget
        allows: then only luck could prove it.
    Raises: ValueError on a count or a chance outside its range.
    Source: docs/statistics.md, "Spot check", solved for the sample.
    """
    if not (0 <= budget < pool and 0 <= errors <= checked and checked >= 1 and 0 < alpha < 1):
        raise ValueError(
            f"no sample size for {pool} items, budget {budget}, {errors} of {checked} wrong, alpha {alpha}"
        )
    alpha *= 1 + ROUNDING
    if errors == 0:
        return _least_size(pool, budget, 0, alpha)
    if errors * pool > budget * checked:
        return None
    first, block = 0, FIRST_BLOCK
    while True:
        # The largest sample that is expected to show so many errors: is it allowed them?
        allowed = np.arange(first, min(first + block, budget + 1))
        size = np.minimum(allowed * checked // errors, pool)
        certain = size > pool - budget - 1 + allowed  # more than the budget would show
        tested = np.where(certain, 0, size)
        marked = np.full_like(size, budget + 1)
        proven = certain | (_heights(allowed, np.full_like(size, pool), marked, tested, alpha)[0] <= 0)
        if proven.any():
            return _least_size(pool, budget, first + int(proven.argmax()), alpha)
        first, block = first + block, min(2 * block, LARGEST_BLOCK)


def _least_size(pool: int, budget: int, allowed: int, alpha: float) -> int:
    """Return the least sample that may show so many errors; marked and drawn items are interchangeable in a tail."""
    return most_marked(allowed, pool, budget + 1, alpha) + 1


def _heights(found: Ints, pool: Ints, marked: Ints, drawn: Ints, alpha: float) -> tuple[Floats, Floats]:
    """Return log(P(X <= found) / alpha), and the same with one more marked item.

    Both are above 0 exactly where the tail is above alpha: where rounding could turn that, ``hypergeometric`` has the
    last word.
    """
    inside = np.minimum(found, drawn)
    log_top = (
        _log_choose(marked, inside) + _log_choose(pool - marked, drawn - inside) - _log_choose(pool, drawn)
    )
    # From the found number down, each term from the one before; beyond this many they no longer count.
    most = int(inside.max())
    terms = int(min(most, 12 + 6.5 * math.sqrt(most)))
    x = inside[:, None] - np.arange(terms, dtype=np.float64)
    fall = x + (pool - marked - drawn)[:, None]
    fall *= x
    np.maximum(fall, 0.0, out=fall)
    fall /= (marked + 1)[:, None] - x
    fall /= (drawn + 1)[:, None] - x
    np.cumprod(fall, axis=1, out=fall)
    total = 1 + fall.sum(axis=1)
    here = log_top + np.log(total) - math.log(alpha)
    # One more marked item lowers the tail when it is drawn and the count was at its limit.
    with np.errstate(divide="ignore"):
        beyond = here + np.log1p(-np.minimum((drawn - inside) / np.maximum(pool - marked, 1) / total, 1.0))
    cut_off = (fall[:, -1] > 1e-10 * total) & (here < 0) if terms else np.zeros(len(found), bool)
    doubt = 1e-9 + 1e-14 * _log_factorial(pool)
    for row in np.flatnonzero(cut_off | (np.abs(here) < doubt) | (np.abs(beyond) < doubt)).tolist():
        count, whole, some, n = int(found[row]), int(pool[row]), int(marked[row]), int(drawn[row])
        here[row] = _height(at_most(count, whole, some, n), alpha)
        beyond[row] = _height(at_most(count, whole, min(some + 1, whole), n), alpha)
    return here, beyond


def _height(tail: float, alpha: float) -> float:
    """Return log(tail / alpha), whose sign is that of tail - alpha also where the logarithm rounds to 0."""
    return (math.log(tail / alpha) or tail - alpha) if tail > 0 else -math.inf


def _likely_bounds(pool: Ints, drawn: Ints, found: Ints, alpha: float) -> Ints:
    """Guess the bounds by Wilson's interval for a finite pool."""
    n = np.maximum(drawn, 1)
    z2 = NormalDist().inv_cdf(1 - alpha) ** 2 * (pool - drawn) / np.maximum(pool, 1)
    share = found / n
    width = np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n)))
    guess: Ints = np.rint(pool * (share + z2 / (2 * n) + width) / (1 + z2 / n)).astype(np.int64)
    return guess


def _log_factorial(n: Ints) -> Floats:
    return np.asarray(_lgamma(n + 1.0), np.float64)


def _log_choose(n: Ints, k: Ints) -> Floats:
    return _log_factorial(n) - _log_factorial(k) - _log_factorial(n - k)

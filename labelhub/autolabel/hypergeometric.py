"""How many marked items a random draw without replacement shows: tails and exact bounds.

Everything LabelHub proves rests on this one distribution, so it is computed here once, in plain Python:
importing scipy.stats would cost the web process most of a second.

``X`` is the number of marked items among ``drawn`` items that were drawn at random, without replacement, from
``pool`` items of which ``marked`` are marked. Probabilities are summed from the most likely value outwards by
the ratio of neighbouring terms and divided by their own total, so no factorial is ever formed. Their relative
error is below 1e-11 (tested against whole-number arithmetic), and 0.0 is returned where the true value is
below 1e-300.
"""

from __future__ import annotations

import math

NEGLIGIBLE = 1e-18  # a term this small beside its sum cannot change a float


def tails(count: int, pool: int, marked: int, drawn: int) -> tuple[float, float]:
    """Return ``P(X <= count)`` and ``P(X > count)``, each accurate when it is small.

    Args:
        count: any whole number.
        pool: items in the pool, at least 0.
        marked: marked items among them, in [0, pool].
        drawn: sample size, in [0, pool].
    Raises: ValueError on a count outside its range.
    Source: the ratio of neighbouring hypergeometric terms; docs/statistics.md, "Arithmetic".
    """
    if not (0 <= marked <= pool and 0 <= drawn <= pool):
        raise ValueError(f"cannot draw {drawn} of {pool} items with {marked} marked")
    least, most = max(0, drawn + marked - pool), min(drawn, marked)
    if count < least:
        return 0.0, 1.0
    if count >= most:
        return 1.0, 0.0
    rest = pool - marked - drawn  # may be negative; rest + x + 1 is positive wherever it divides
    mode = min(max((drawn + 1) * (marked + 1) // (pool + 2), least), most)
    below, above = (1.0, 0.0) if mode <= count else (0.0, 1.0)
    term = 1.0
    for x in range(mode, least, -1):
        term *= x * (rest + x) / ((marked - x + 1) * (drawn - x + 1))
        if x - 1 <= count:
            below += term
            if term < NEGLIGIBLE * below:
                break
        else:
            above += term
            if term == 0.0:
                break
    term = 1.0
    for x in range(mode, most):
        term *= (marked - x) * (drawn - x) / ((x + 1) * (rest + x + 1))
        if x + 1 > count:
            above += term
            if term < NEGLIGIBLE * above:
                break
        else:
            below += term
            if term == 0.0:
                break
    total = below + above
    return below / total, above / total


def at_most(count: int, pool: int, marked: int, drawn: int) -> float:
    """Return ``P(X <= count)``; arguments and errors as in ``tails``."""
    return tails(count, pool, marked, drawn)[0]


def most_marked(found: int, pool: int, drawn: int, alpha: float) -> int:
    """Return the largest number of marked items in the pool that the draw does not refute.

    A pool with more marked items than this would show ``found`` or fewer with probability at most ``alpha``;
    so this is an upper bound that holds with confidence ``1 - alpha``.

    Args:
        found: marked items in the sample, in [0, drawn].
        pool: items in the pool.
        drawn: sample size, in [0, pool].
        alpha: chance that the bound is too low, in (0, 1).
    Returns: a count in [found, pool - drawn + found].
    Raises: ValueError on a count or a chance outside its range.
    Source: inversion of the lower tail; docs/statistics.md, "Exact bounds".
    """
    if not (0 <= found <= drawn <= pool and 0 < alpha < 1):
        raise ValueError(f"no bound for {found} found in {drawn} of {pool} items at alpha {alpha}")
    kept, refuted = found, pool - drawn + found + 1  # what was seen is possible; more than that is not
    probe, step = _likely_bound(found, pool, drawn)
    before: tuple[int, float] | None = None
    tries = 0
    while refuted - kept > 1:
        probe = min(max(probe, kept + 1), refuted - 1)
        tail = at_most(found, pool, probe, drawn)
        if tail > alpha:
            kept = probe
        else:
            refuted = probe
        tries += 1
        here = (probe, math.log(tail / alpha)) if tail > 0.0 else None
        if here is None or tries > 12:
            probe, before = (kept + refuted) // 2, None
            continue
        # The logarithm of the tail is nearly straight, so the secant lands beside the bound in a few steps.
        slope = (here[1] - before[1]) / (here[0] - before[0]) if before else 0.0
        if slope < 0.0:
            probe = here[0] - math.ceil(here[1] / slope)
        else:
            probe = here[0] + (step if here[1] > 0.0 else -step)
        before = here
    return kept


def least_marked(found: int, pool: int, drawn: int, alpha: float) -> int:
    """Return the smallest number of marked items in the pool that the draw does not refute.

    The lower counterpart of ``most_marked``: fewer marked items would show ``found`` or more with probability
    at most ``alpha``. Arguments, range and errors are the same.
    """
    return pool - most_marked(drawn - found, pool, drawn, alpha)  # few unmarked items drawn, many marked ones


def _likely_bound(found: int, pool: int, drawn: int) -> tuple[int, int]:
    """Guess where ``most_marked`` ends, by Wilson's interval for a finite pool, and a step to search by."""
    if drawn == 0:
        return pool, 1
    z2 = 4.0 * (pool - drawn) / pool
    share = found / drawn
    width = math.sqrt(z2 * (share * (1 - share) / drawn + z2 / (4 * drawn * drawn)))
    upper = (share + z2 / (2 * drawn) + width) / (1 + z2 / drawn)
    return round(pool * upper), 1 + round(pool * width / 8)

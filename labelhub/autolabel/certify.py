"""The threshold that keeps a promise about labels nobody has seen.

The pool is the unlabeled items, frozen, in a fixed order (surest first). Some of them carry a wrong machine
label; which, only people know. A simple random sample of the pool is answered by people, and from the errors
found in it follows how far down the order labels may be accepted. Nothing is assumed about the model, its
confidences or the pattern of its errors: all probability is in the draw of the sample.

Words used by every function here: ``pool`` items in the frozen pool (certificate: R); ``checked`` sampled
items (n); ``budget`` wrong labels tolerated among the accepted unseen ones (b); ``errors`` errors in the
sample that the cut may leave above it (c); ``alpha`` chance that the promise is broken, over the draw. The
pool always comes first, the chance last; between them name the arguments, for two whole numbers are easily
swapped.

Two tests live here. By target (the cut follows from the sample): ``allowed_errors``, ``level``,
``sample_size`` and ``certify``. By hand (the threshold was set before the draw): ``most_errors_allowed``.
Proofs: docs/statistics.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from labelhub.autolabel.hypergeometric import NEGLIGIBLE, at_most, most_marked

ROUNDING = 1e-11  # relative error of a computed tail: 0.05 must not fail against 0.05
UNIT = 1e-9  # 0.29 * 100 is 28.999999999999996 in floats, and means 29


@dataclass(frozen=True, slots=True)
class Certified:
    """What a sample allows to accept.

    ``accepted``: items accepted unseen, surest first; sampled items are not among them, they carry a person's
    answer.
    ``walked``: length of the accepted stretch of the order, sampled items included.
    ``problem``: why nothing was accepted: ``"sample"`` (too small to prove anything), ``"errors"`` (an error
    too many before the first unseen item), ``"floor"`` (too few to keep the floor); None otherwise.
    """

    accepted: list[int]
    walked: int
    problem: str | None = None


def attempt_alpha(alpha: float, attempt: int) -> float:
    """Return the alpha of the ``attempt``-th try on a dataset: ``0.8 * alpha * 0.2 ** (attempt - 1)``.

    The alphas of all attempts, however many, add up to ``alpha``. Each attempt is looked at once.

    Args:
        alpha: chance that any certificate of the dataset is false, in (0, 1).
        attempt: 1 for the first calibration or evidential spot check, counted over all runs.
    Raises: ValueError on a chance or a number outside its range.
    Source: union bound over attempts; docs/statistics.md, "Attempts".
    """
    _check_alpha(alpha)
    if attempt < 1:
        raise ValueError(f"attempts are counted from 1, not {attempt}")
    return 0.8 * alpha * 0.2 ** (attempt - 1)


def tolerated(items: int, target_error: float) -> int:
    """Return the whole number of wrong labels that ``target_error`` allows among ``items``.

    Args:
        items: labels that the promise is about, at least 0.
        target_error: share of them that may be wrong, in [0, 1).
    Raises: ValueError on a number outside its range.
    """
    if items < 0 or not 0 <= target_error < 1:
        raise ValueError(f"no budget for {items} items at a target error of {target_error}")
    return math.floor(items * target_error + UNIT)


def budget(
    items: int,
    target_error: float,
    reviewer_error: float = 0.0,
    manual: int = 0,
    earlier: int = 0,
) -> int:
    """Return how many accepted labels may be wrong so that the whole dataset keeps its target.

    What people answer is wrong now and then; the expected slips, and 1.645 standard deviations more, come off
    first.

    Args:
        items: labels in the dataset that the promise is about.
        target_error: share of all items that may be wrong, in [0, 1).
        reviewer_error: share of people's answers that are wrong, in [0, 1); 0 when nobody measured it, and
            then the promise is about agreement with the reviewers.
        manual: items that people label.
        earlier: budgets already given to earlier certificates of the same dataset.
    Returns: a count of labels, or -1 when slips or earlier certificates leave no budget: nothing can be
        promised.
    Raises: ValueError on a number outside its range.
    Source: normal bound on a Poisson count of slips; docs/statistics.md, "Reviewer error".
    """
    if manual < 0 or earlier < 0 or not 0 <= reviewer_error < 1:
        raise ValueError(
            f"no budget with reviewer error {reviewer_error}, manual {manual}, earlier {earlier}"
        )
    slips = reviewer_error * manual
    reserved = math.ceil(slips + 1.645 * math.sqrt(slips) - UNIT)
    return max(-1, tolerated(items, target_error) - reserved - earlier)


def level(errors: int, pool: int, checked: int, budget: int, miss: float = 0.0) -> float:
    """Return the largest chance, over all patterns of errors, that more than ``budget`` are accepted wrong.

    The cut is the longest stretch of the order, surest first, with at most ``errors`` sampled errors in it.
    The chance is attained: it is reached when the first ``budget + 1 + errors`` items are wrong.

    Args:
        errors: sampled errors that may lie above the cut (c), in [-1, checked]; -1 accepts nothing.
        pool: items in the frozen pool, at least 0.
        checked: sample size, in [0, pool].
        budget: wrong labels tolerated among the accepted unseen ones; overlooked ones count among them.
        miss: largest chance that a reviewer overlooks a wrong label of the sample, independently, in [0, 1).
    Returns: a probability.
    Raises: ValueError on a number outside its range.
    Source: theorems 1 and 4 in docs/statistics.md, "Certificate by target" and "Overlooked errors".
    """
    _check_counts(pool, checked, budget)
    if not -1 <= errors <= checked or not 0 <= miss < 1:
        raise ValueError(f"no level for {errors} errors among {checked} checked with miss {miss}")
    if errors < 0:
        return 0.0
    if budget < 0:
        return 1.0
    # In a pool too small for budget + 1 + errors wrong items, all of it wrong is the worst case.
    wrong = min(budget + 1 + errors, pool)
    seen = min(errors, pool - budget - 1)
    if seen < 0:
        return 0.0
    if miss == 0.0:
        return at_most(seen, pool, wrong, checked)
    return _average_over_noticed(lambda noticed: at_most(seen, pool, wrong, noticed), checked, 1 - miss)


def allowed_errors(pool: int, checked: int, budget: int, alpha: float, miss: float = 0.0) -> int:
    """Return how many sampled errors the accepted stretch of the order may contain (c).

    Args:
        pool, checked, budget, miss: as in ``level``.
        alpha: chance of a broken promise, in (0, 1).
    Returns: the largest c with ``level(c, ...) <= alpha``; ``checked`` when no more than ``budget`` items
        stay unchecked, so that no test is needed; -1 when the sample is too small to prove anything.
    Raises: ValueError on a number outside its range.
    Source: theorem 1 in docs/statistics.md, "Certificate by target".
    """
    _check_counts(pool, checked, budget)
    _check_alpha(alpha)
    return _largest(-1, checked, lambda errors: _within(level(errors, pool, checked, budget, miss), alpha))


def sample_size(errors: int, pool: int, budget: int, alpha: float, miss: float = 0.0) -> int | None:
    """Return the smallest sample whose accepted stretch may contain ``errors`` sampled errors.

    Args:
        errors: sampled errors to allow (c), at least 0.
        pool, budget, miss: as in ``level``.
        alpha: chance of a broken promise, in (0, 1).
    Returns: a sample size below ``pool - budget``, or None where only checking (nearly) everything would do.
    Raises: ValueError on a number outside its range.
    Source: theorem 1, solved for the sample; docs/statistics.md, "Certificate by target".
    """
    _check_counts(pool, 0, budget)
    _check_alpha(alpha)
    if errors < 0:
        raise ValueError(f"a sample cannot be planned for {errors} errors")
    most = pool - budget - 1  # beyond this the unchecked rest fits into the budget by itself
    if budget < 0 or errors > most:
        return None
    if miss == 0.0:  # marked and drawn items are interchangeable in the tail: the size is found as a bound is
        size = most_marked(errors, pool, budget + 1 + errors, alpha * (1 + ROUNDING)) + 1
        return size if size <= most else None

    def too_small(checked: int) -> bool:
        return not _within(level(errors, pool, checked, budget, miss), alpha)

    largest_failure = _largest(errors - 1, most, lambda checked: checked < errors or too_small(checked))
    return None if largest_failure == most else largest_failure + 1


def certify(
    order: Sequence[int],
    sampled: Collection[int],
    wrong: Collection[int],
    errors: int,
    budget: int = 0,
    floor_error: float | None = None,
) -> Certified:
    """Accept the unsampled items that are surer than the ``errors + 1``-th surest sampled error.

    The floor costs no alpha: with at least ``budget / floor_error`` labels accepted, a kept budget means that
    at most ``floor_error`` of them are wrong; with fewer, nothing is accepted.

    Args:
        order: the items of the pool, surest first, as frozen before the draw.
        sampled: the items drawn; each has a person's answer.
        wrong: those of them where the machine's label was not confirmed; skipped or unsure counts as wrong.
        errors: c, from ``allowed_errors``; -1 accepts nothing.
        budget: b, the same that ``errors`` was computed from; only the floor needs it.
        floor_error: largest share of wrong labels among the accepted ones, in (0, 1), or None for no floor.
    Returns: the accepted items, or none and why.
    Raises: ValueError when a sampled item is not in the order, a wrong one not sampled, or a number out of
        range.
    Source: theorems 1 and 2 in docs/statistics.md, "Certificate by target" and "Floor".
    """
    drawn, missed = set(sampled), set(wrong)
    if not missed <= drawn or len(drawn.intersection(order)) != len(drawn):
        raise ValueError("every wrong item must be sampled, and every sampled item must be in the order")
    if errors < 0:
        return Certified([], 0, "sample")
    last = len(order) - 1
    threshold = certified_threshold(
        [last - place for place, item in enumerate(order) if item in missed], errors
    )
    walked = len(order) - threshold
    accepted = [item for item in order[:walked] if item not in drawn]
    if not accepted:
        return Certified([], 0, "errors") if walked < len(order) else Certified([], walked)
    if floor_error is not None and len(accepted) < least_accepted(budget, floor_error):
        return Certified([], 0, "floor")
    return Certified(accepted, walked)


def certified_threshold(wrong_ranks: Collection[int], errors: int) -> int:
    """Return the lowest rank that may be accepted: just above the ``errors + 1``-th surest sampled error.

    ``certify`` for whom the pool is a table: only the sampled errors are needed. Equal ranks are safe, for
    all items that share the rank of that error stay out. The floor is the caller's: ``least_accepted``.

    Args:
        wrong_ranks: ranks of the sampled items found wrong, larger is surer; any order.
        errors: c, from ``allowed_errors``, at least 0.
    Returns: a rank; 0 when there is no such error, and then the whole pool may be accepted.
    Raises: ValueError on a negative ``errors``: a sample that proves nothing has no threshold.
    Source: theorem 1 in docs/statistics.md, "Certificate by target".
    """
    if errors < 0:
        raise ValueError("a sample that is too small proves nothing: it has no threshold")
    return sorted(wrong_ranks, reverse=True)[errors] + 1 if len(wrong_ranks) > errors else 0


def least_accepted(budget: int, floor_error: float) -> int:
    """Return how many labels must be accepted so that ``budget`` wrong ones keep the floor (at least 1).

    Args:
        budget: b, at least 0.
        floor_error: largest share of wrong labels among the accepted ones, in (0, 1).
    Raises: ValueError on a number outside its range.
    Source: theorem 2 in docs/statistics.md, "Floor".
    """
    if budget < 0 or not 0 < floor_error < 1:
        raise ValueError(f"no floor for a budget of {budget} at {floor_error}")
    return max(1, math.ceil(budget / floor_error - UNIT))


def remaining_upper(pool: int, checked: int, errors: int, alpha: float) -> int:
    """Return an upper bound on the wrong labels among the unchecked items of one fixed pool.

    Args:
        pool: items that the sample was drawn from.
        checked: sample size, in [0, pool].
        errors: wrong labels found in the sample, in [0, checked].
        alpha: chance that the bound is too low, in (0, 1).
    Returns: a count in [0, pool - checked]. For one pool named before the draw: not for a cut chosen after
        it.
    Raises: ValueError on a number outside its range.
    Source: docs/statistics.md, "Exact bounds".
    """
    return most_marked(errors, pool, checked, alpha) - errors


def most_errors_allowed(pool: int, budget: int, checked: int, alpha: float) -> int:
    """Return how many errors a random check may find and still prove a budget (T1, threshold set by hand).

    If more than ``budget`` of the ``pool`` labels were wrong, a simple random sample of ``checked`` of them,
    drawn without replacement, would show at most this many errors with probability at most ``alpha``. So a
    sample that shows no more proves the budget, for the labels as they stood at the draw, whatever made them.
    Note the order: budget before checked, as the question is asked; ``allowed_errors`` has them the other way
    round.

    Args:
        pool: accepted labels that the sample was drawn from, at least 1.
        budget: wrong labels that are tolerated among them, sampled ones included, in [0, pool).
        checked: sample size, in [0, pool].
        alpha: chance of a false proof, in (0, 1).
    Returns: a count of errors, or -1 when the sample is too small to prove anything.
    Raises: ValueError on a count or a chance outside its range.
    Source: lower tail of the hypergeometric distribution; docs/statistics.md, "Spot check".
    """
    if not 0 <= budget < pool or not 0 <= checked <= pool:
        raise ValueError(f"no test for {checked} of {pool} labels with a budget of {budget}")
    _check_alpha(alpha)
    return _largest(-1, checked, lambda errors: _within(at_most(errors, pool, budget + 1, checked), alpha))


def _largest(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """Return the last number in [low, high] before ``holds`` turns false for good; at ``low`` it holds."""
    while low < high:
        middle = (low + high + 1) // 2
        if holds(middle):
            low = middle
        else:
            high = middle - 1
    return low


def _average_over_noticed(chance: Callable[[int], float], checked: int, noticing: float) -> float:
    """Return the mean of ``chance(noticed)`` for ``noticed`` from Binomial(checked, noticing)."""
    odds = noticing / (1 - noticing)
    mode = min(checked, math.floor((checked + 1) * noticing))
    total, weight = chance(mode), 1.0
    term = 1.0
    for noticed in range(mode, 0, -1):
        term *= noticed / ((checked - noticed + 1) * odds)
        if term < NEGLIGIBLE:
            break
        total, weight = total + term * chance(noticed - 1), weight + term
    term = 1.0
    for noticed in range(mode, checked):
        term *= (checked - noticed) * odds / (noticed + 1)
        if term < NEGLIGIBLE:
            break
        total, weight = total + term * chance(noticed + 1), weight + term
    return total / weight


def _within(tail: float, alpha: float) -> bool:
    return tail <= alpha * (1 + ROUNDING)


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be between 0 and 1, not {alpha}")


def _check_counts(pool: int, checked: int, budget: int) -> None:
    if not 0 <= checked <= pool or budget < -1:
        raise ValueError(f"no test for {checked} of {pool} items with a budget of {budget}")

"""Spot checks that are read after every answer, at the border of their promise: who is told something false.

Each check is answered to the end of its pool and read at every step, which no one has the patience for. The exact
test, made for one look, has to break its word here. ``benchmarks/promises.py`` runs this and prints it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from benchmarks.borders import ALPHA, TARGET, Figure, Ints, Marks, figure
from labelhub.autolabel.certify import most_errors_allowed, tolerated
from labelhub.autolabel.hypergeometric import tails
from labelhub.autolabel.monitor import log_evidence_alarm, log_evidence_certified

AT_ONCE = 1000  # checks in memory
Limits = npt.NDArray[np.int16]  # shape (pool + 1,): a number of errors after 0, 1, ... pool answers


def measure(reps: int = 10_000) -> Iterator[Figure]:
    """Yield all figures of this file, each from ``reps`` checks."""
    for pool in (300, 2000, 8898):
        yield proven("evidence read after every answer", pool, most_that_prove(pool), reps)
        yield failing("evidence read after every answer", pool, least_that_alarm(pool), reps)
        if pool <= 2000:
            yield proven("exact test read after every answer", pool, most_by_test(pool), reps, True)
            yield failing("exact test read after every answer", pool, least_by_test(pool), reps, True)
    yield proven("evidence, and the exact test of all 600 answers", 8898, either(8898, 600), reps, True)


def proven(way: str, pool: int, most: Limits, reps: int, naive: bool = False) -> Figure:
    """Simulate checks that count as proven once they show so few errors; one label too many is wrong."""
    wrong = tolerated(pool, TARGET) + 1
    return figure(
        way,
        f"“proven”, {pool:,} labels, one wrong label too many",
        lambda: ever(pool, wrong, reps, lambda errors: errors <= most[1:]),
        exact=chance_of_ever(pool, wrong, lambda n, errors: errors <= most[n]),
        naive=naive,
    )


def failing(way: str, pool: int, least: Limits, reps: int, naive: bool = False) -> Figure:
    """Simulate checks that count as failing once they show so many errors; just as many as allowed are wrong."""
    wrong = tolerated(pool, TARGET)
    return figure(
        way,
        f"“failing”, {pool:,} labels, as many wrong as allowed",
        lambda: ever(pool, wrong, reps, lambda errors: errors >= least[1:]),
        exact=chance_of_ever(pool, wrong, lambda n, errors: errors >= least[n]),
        naive=naive,
    )


def ever(pool: int, wrong: int, reps: int, says: Callable[[Limits], Marks], seed: int = 0) -> Marks:
    """Mark the checks that ever say so; ``says`` gets the errors after each answer, shape (checks, pool)."""
    random = np.random.default_rng([seed, pool, wrong])
    found = []
    for start in range(0, reps, AT_ONCE):
        marks = np.zeros((min(AT_ONCE, reps - start), pool), np.int8)
        marks[:, :wrong] = 1
        random.permuted(marks, axis=1, out=marks)
        found.append(says(marks.cumsum(axis=1, dtype=np.int16)).any(axis=1))
    return np.concatenate(found)


def chance_of_ever(pool: int, wrong: int, says: Callable[[int, Ints], Marks]) -> float:
    """Return the exact chance of ``ever``, by going through every state that a pool can be in."""
    errors = np.arange(wrong + 1)
    alive, crossed = (errors == 0).astype(float), 0.0
    for answered in range(pool):
        hit = np.clip((wrong - errors) / (pool - answered), 0, 1)
        alive, moved = alive * (1 - hit), alive * hit
        alive[1:] += moved[:-1]
        said = says(answered + 1, errors)
        crossed += float(alive[said].sum())
        alive[said] = 0
    return crossed


def most_that_prove(pool: int, alpha: float = ALPHA) -> Limits:
    """Return with how many errors at most a check reads as proven; -1 for none."""
    enough, budget = -math.log(alpha), tolerated(pool, TARGET)
    return _most(pool, lambda n, k: log_evidence_certified(pool, n, k, budget, TARGET) >= enough)


def least_that_alarm(pool: int, alpha: float = ALPHA) -> Limits:
    """Return with how many errors at least a check reads as failing."""
    enough, budget = -math.log(alpha), tolerated(pool, TARGET)
    return 1 + _most(pool, lambda n, k: log_evidence_alarm(pool, n, k, budget, TARGET) < enough)


def most_by_test(pool: int, alpha: float = ALPHA) -> Limits:
    """As ``most_that_prove``, by the test that was made for one look."""
    budget = tolerated(pool, TARGET)
    return np.array([most_errors_allowed(pool, budget, n, alpha) for n in range(pool + 1)], np.int16)


def least_by_test(pool: int, alpha: float = ALPHA) -> Limits:
    """As ``least_that_alarm``, by the test that was made for one look."""
    budget = tolerated(pool, TARGET)
    return 1 + _most(pool, lambda n, k: k == 0 or tails(k - 1, pool, budget, n)[1] > alpha)


def either(pool: int, checked: int, alpha: float = ALPHA) -> Limits:
    """As ``most_that_prove`` for a sample, and at its end by the test for one look, if that is kinder."""
    most = most_that_prove(pool, alpha)
    most[checked] = max(most[checked], most_errors_allowed(pool, tolerated(pool, TARGET), checked, alpha))
    most[checked + 1 :] = -1
    return most


def _most(pool: int, holds: Callable[[int, int], bool]) -> Limits:
    """Return the largest k with ``holds(n, k)`` for each n, where it holds for no larger k; -1 for none."""
    most, k = np.empty(pool + 1, np.int16), -1
    for n in range(pool + 1):
        k = min(k, n)
        while k >= 0 and not holds(n, k):
            k -= 1
        while k < n and holds(n, k + 1):
            k += 1
        most[n] = k
    return most

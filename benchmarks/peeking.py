"""Spot checks that are read after every answer, at the border of their promise: who is told "proven" or "failing" falsely.

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


def measure(reps: int = 2000) -> Iterator[Figure]:
    """Yield all figures of this file, each from ``reps`` checks."""
    for pool in (300, 2000, 8898):
        budget = tolerated(pool, TARGET)
        proven, alarmed = (
            f"“proven”, {pool:,} labels, {budget + 1} wrong",
            f"“failing”, {pool:,} labels, {budget} wrong",
        )
        evidence = "read after every answer"
        yield figure(
            evidence, proven, lambda p=pool, b=budget: falsely_proven(p, most_that_prove(p, b), reps)
        )
        yield figure(
            evidence, alarmed, lambda p=pool, b=budget: falsely_failing(p, least_that_alarm(p, b), reps)
        )
        if pool <= 2000:
            exact = "exact test, read after every answer"
            yield figure(
                exact,
                proven,
                lambda p=pool, b=budget: falsely_proven(p, most_by_test(p, b), reps),
                naive=True,
            )
            yield figure(
                exact,
                alarmed,
                lambda p=pool, b=budget: falsely_failing(p, least_by_test(p, b), reps),
                naive=True,
            )


def falsely_proven(pool: int, most: Ints, reps: int, seed: int = 0) -> Marks:
    """Mark whose errors ever were few enough, in a pool with one error too many that is answered to its end."""
    marks: Marks = (paths(pool, tolerated(pool, TARGET) + 1, reps, seed) <= most[1:]).any(axis=1)
    return marks


def falsely_failing(pool: int, least: Ints, reps: int, seed: int = 0) -> Marks:
    """Mark whose errors ever were too many, in a pool with as many errors as it may have."""
    marks: Marks = (paths(pool, tolerated(pool, TARGET), reps, seed) >= least[1:]).any(axis=1)
    return marks


def paths(pool: int, wrong: int, reps: int, seed: int) -> npt.NDArray[np.int16]:
    """Return errors found after each answer, shape (reps, pool)."""
    marks = np.zeros((reps, pool), np.int8)
    marks[:, :wrong] = 1
    np.random.default_rng([seed, pool, wrong]).permuted(marks, axis=1, out=marks)
    return marks.cumsum(axis=1, dtype=np.int16)


def most_that_prove(pool: int, budget: int, alpha: float = ALPHA) -> Ints:
    """Return with how many errors at most a check is read as proven, after 0, 1, ... pool answers; -1 for none."""
    enough = -math.log(alpha)
    return _most(pool, lambda n, k: log_evidence_certified(pool, n, k, budget, TARGET) >= enough)


def least_that_alarm(pool: int, budget: int, alpha: float = ALPHA) -> Ints:
    """Return with how many errors at least a check is read as failing, after 0, 1, ... pool answers."""
    enough = -math.log(alpha)
    return 1 + _most(pool, lambda n, k: log_evidence_alarm(pool, n, k, budget, TARGET) < enough)


def most_by_test(pool: int, budget: int, alpha: float = ALPHA) -> Ints:
    """As ``most_that_prove``, for the test that was made for one look."""
    return np.array([most_errors_allowed(pool, budget, n, alpha) for n in range(pool + 1)])


def least_by_test(pool: int, budget: int, alpha: float = ALPHA) -> Ints:
    """As ``least_that_alarm``, for the test that was made for one look."""
    return 1 + _most(pool, lambda n, k: k == 0 or tails(k - 1, pool, budget, n)[1] > alpha)


def _most(pool: int, holds: Callable[[int, int], bool]) -> Ints:
    """Return the largest k with ``holds(n, k)`` for each n; it holds up to some k, which grows with n."""
    most, k = np.empty(pool + 1, np.int64), -1
    for n in range(pool + 1):
        k = min(k, n)
        while k >= 0 and not holds(n, k):
            k -= 1
        while k < n and holds(n, k + 1):
            k += 1
        most[n] = k
    return most

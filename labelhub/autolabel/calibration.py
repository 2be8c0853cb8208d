"""From a score to the probability of being right, for display and planning.

Only strictly increasing maps are fitted, so calibration never changes which of two items is surer. No
promise rests on these figures: the certificate looks at the order alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]

LEAST_SLOPE = 0.05  # a score that says nothing still gets a strictly increasing map
STEEPEST = 35.0  # beyond this logit a probability is 1 in floating point
SLOPE_SPREAD = 0.25  # standard deviations of the prior in `calibrate`
OFFSET_SPREAD = 0.5
LEAST_REPRESENTATIVE = 10


class Platt(NamedTuple):
    """The map ``1 / (1 + exp(-(slope * score + offset)))`` of a score on the logit scale; slope > 0."""

    slope: float
    offset: float

    def __call__(self, scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return the probability of being right for each score, shape as given."""
        z = self.slope * np.asarray(scores, np.float64) + self.offset
        return 1 / (1 + np.exp(-np.clip(z, -STEEPEST, STEEPEST)))


def fit_platt(scores: npt.ArrayLike, right: npt.ArrayLike) -> Platt:
    """Fit the probability that a label is right to its score.

    Args:
        scores: shape (n,), logit scale, out of fold; infinite values are cut at +-35.
        right: shape (n,), whether the label with that score was right.
    Returns: the map with the least log-loss against targets drawn slightly inwards, so that even
        an all-right sample does not promise 1.
    Raises: ValueError without any score.
    Source: Platt (1999), "Probabilistic outputs for support vector machines", with the smoothed targets
        of its section 2.2; Newton's method as in Lin, Lin and Weng (2007).
    """
    x = np.clip(np.asarray(scores, np.float64), -STEEPEST, STEEPEST)
    hit = np.asarray(right, bool)
    if not len(x) or len(x) != len(hit):
        raise ValueError(f"cannot fit {len(x)} scores to {len(hit)} answers")
    wins, losses = int(hit.sum()), int((~hit).sum())
    target = np.where(hit, (wins + 1) / (wins + 2), 1 / (losses + 2))
    slope, offset = _newton(x, target)
    if slope < LEAST_SLOPE:
        _, offset = _newton(LEAST_SLOPE * x, target, slope=1.0)
        slope = LEAST_SLOPE
    return Platt(slope, offset)


def _newton(x: Floats, target: Floats, slope: float | None = None) -> tuple[float, float]:
    """Minimise the log-loss over slope and offset, or over the offset alone at a given slope."""
    free = slope is None
    theta = np.array([1.0 if slope is None else slope, 0.0])
    design = np.column_stack([x, np.ones(len(x))])

    def loss(at: Floats) -> float:
        z = design @ at
        return float(np.sum(np.logaddexp(0, z) - target * z))

    now = loss(theta)
    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(design @ theta, -STEEPEST, STEEPEST)))
        gradient = design.T @ (p - target)
        curve = (design * (p * (1 - p))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(curve, gradient) if free else np.array([0.0, gradient[1] / curve[1, 1]])
        size = 1.0
        while (after := loss(theta - size * step)) > now and size > 1e-8:
            size /= 2
        theta, gain, now = theta - size * step, now - after, after
        if gain < 1e-9:
            break
    return float(theta[0]), float(theta[1])


class Bin(NamedTuple):
    """One point of a reliability curve: labels with a confidence in [low, high), 1 in the last.

    ``confidence`` and ``accuracy`` are means over the ``n`` labels; both are NaN when n is 0.
    """

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


def reliability_curve(confidences: npt.ArrayLike, right: npt.ArrayLike, bins: int = 10) -> list[Bin]:
    """Return how often labels were right, by stated confidence; for plots, never for a decision."""
    p, hit = np.asarray(confidences, np.float64), np.asarray(right, bool)
    number = np.clip((p * bins).astype(int), 0, bins - 1)
    curve = []
    for i in range(bins):
        here = number == i
        n = int(here.sum())
        means = (float(p[here].mean()), float(hit[here].mean())) if n else (float("nan"), float("nan"))
        curve.append(Bin(i / bins, (i + 1) / bins, n, *means))
    return curve


def calibrate(
    x_oof: npt.ArrayLike, right: npt.ArrayLike, representative: npt.ArrayLike, x_pool: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """Return the chance of being wrong of each pool item, for planning and display.

    People label the least sure items first, so most answers say nothing about the pool: only *representative*
    ones do, items drawn at random that no round would have taken from the pool. They are few, and fewer still
    are wrong; so the map is pulled towards believing the score as it stands (slope 1, offset 0).

    Args:
        x_oof: shape (n,), logit scale, scores of answered items by models that had not seen their answers.
        right: shape (n,), whether the label with that score was right.
        representative: shape (n,), whether the item stands for the pool. With fewer than LEAST_REPRESENTATIVE
            of them everything is used, which makes the pool look worse than it is.
        x_pool: shape (pool,), scores of the pool.
    Returns: shape (pool,), in (0, 1), falling strictly where the score rises, up to rounding.
    Raises: ValueError when the first three differ in length.
    Source: Platt (1999) with a normal prior on both parameters; measured in benchmarks/certified_loop.py.
    """
    x = np.clip(np.asarray(x_oof, np.float64), -STEEPEST, STEEPEST)
    hit, stands = np.asarray(right, bool), np.asarray(representative, bool)
    if not len(x) == len(hit) == len(stands):
        raise ValueError(f"cannot match {len(x)} scores, {len(hit)} answers and {len(stands)} marks")
    if stands.sum() >= LEAST_REPRESENTATIVE:
        x, hit = x[stands], hit[stands]
    design = np.column_stack([x, np.ones(len(x))])
    weight = 1 / np.square([SLOPE_SPREAD, OFFSET_SPREAD])
    believed = np.array([1.0, 0.0])

    def loss(at: Floats) -> float:
        z = design @ at
        return float(np.sum(np.logaddexp(0, z) - hit * z) + weight @ np.square(at - believed) / 2)

    theta, now = believed, loss(believed)
    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(design @ theta, -STEEPEST, STEEPEST)))
        gradient = design.T @ (p - hit) + weight * (theta - believed)
        curve = (design * (p * (1 - p))[:, None]).T @ design + np.diag(weight)
        step, size = np.linalg.solve(curve, gradient), 1.0
        while (after := loss(theta - size * step)) > now and size > 1e-8:
            size /= 2
        theta, gain, now = theta - size * step, now - after, after
        if gain < 1e-9:
            break
    return 1 - Platt(max(float(theta[0]), LEAST_SLOPE), float(theta[1]))(x_pool)

"""Confidence and tie-break in one integer, so that one comparison decides what is accepted.

``rank = round(confidence * 10^6) * 10^6 + tie`` with a tie drawn uniformly from [0, 10^6).
A threshold is a rank too: 0.85 is 850000 * 10^6 and accepts every stated 0.85.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

MILLION = 1_000_000
ACCEPT_NOTHING = 2 * MILLION * MILLION  # above every rank


def to_rank(confidence: float, tie: int = 0) -> int:
    """Return the rank of a confidence in [0, 1]; with no tie it is the threshold of that value.

    Raises: ValueError when the confidence or the tie is outside its range.
    """
    if not 0 <= confidence <= 1 or not 0 <= tie < MILLION:
        raise ValueError(f"no rank for confidence {confidence}, tie {tie}")
    return round(confidence * MILLION) * MILLION + tie


def confidence_of(rank: int) -> float:
    """Return the confidence in a rank, in millionths."""
    return rank // MILLION / MILLION


def draw_ties(seed: int, n: int) -> NDArray[np.int64]:
    """Draw ``n`` tie-breaks in [0, 10^6) from a seed."""
    return np.random.Generator(np.random.PCG64(seed)).integers(0, MILLION, n)


def to_ranks(confidences: ArrayLike, ties: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the ranks of many confidences, shape ``(n,)``; the vectorised `to_rank`."""
    millionths = np.rint(np.asarray(confidences, float) * MILLION).astype(np.int64)
    return millionths * MILLION + ties

"""What a replay is played with: data whose answers are known, a promise, people, and what it came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from labelhub.autolabel import planner
from labelhub.autolabel.certify import budget as reviewed_budget
from labelhub.autolabel.certify import tolerated
from labelhub.autolabel.scorer import VoteTable

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Marks = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Known:
    """Data whose answers are known.

    Attributes:
        texts: shape (items,).
        gold: shape (items,), the right classes, in [0, count).
        count: number of classes.
        votes: given votes, or None.
        given: shape (items,), class of the one machine label that came with the data, -1 for none; or None.
        confidence: shape (items,), its stated confidence in [0, 1].
        learns: score by learning from the answers; otherwise the given label and confidence stand.
    """

    texts: list[str]
    gold: Ints
    count: int
    votes: VoteTable | None = None
    given: Ints | None = None
    confidence: Floats | None = None
    learns: bool = True


@dataclass(frozen=True)
class Promise:
    """What a certificate is to say.

    Attributes:
        target_error: share of wrong labels that is promised, in (0, 1).
        alpha: chance that the promise is false, in (0, 1); all attempts share it.
        floor_error: largest share of wrong ones among the accepted, or None.
        of_accepted: the target is about the accepted labels, not the whole dataset; then it is the floor.
        reviewer_error: how often people answer wrongly, in [0, 1).
    """

    target_error: float = 0.05
    alpha: float = 0.05
    floor_error: float | None = 0.10
    of_accepted: bool = False
    reviewer_error: float = 0.0

    @property
    def floor(self) -> float | None:
        """The share of wrong labels that may be among the accepted ones."""
        return self.target_error if self.of_accepted else self.floor_error

    def budget(self, items: int, manual: int) -> int:
        """Return the wrong labels tolerated among the accepted ones (B), below 0 for none."""
        if self.of_accepted:
            return tolerated(items, self.target_error)
        return reviewed_budget(items, self.target_error, self.reviewer_error, manual)


@dataclass(frozen=True)
class Outcome:
    """What one replay came to; shares are of all items."""

    accepted: Ints
    labels: Ints  # what every item is called in the end
    attempts: int
    answered_at_freeze: int
    plan: planner.Plan | None
    errors_found: int
    problem: str | None


class People:
    """Played reviewers: three independent readings of every item, each wrong with the same chance."""

    def __init__(self, known: Known, error: float, seed: int) -> None:
        random = np.random.default_rng([seed, 1])
        readings = np.repeat(known.gold[None], 3, axis=0)
        if known.count > 1:
            slip = random.random(readings.shape) < error
            other = random.integers(1, known.count, readings.shape)
            readings = np.where(slip, (readings + other) % known.count, readings)
        self.readings: Ints = readings
        self.answers: Ints = readings[0]

    def check(self, items: Ints, labels: Ints) -> tuple[Marks, Ints]:
        """Return which machine labels were not confirmed, and the final answers.

        A disagreement is read twice more, and the majority holds; without one it stays an error.
        """
        first, second, third = self.readings[:, items]
        final = np.where(second == third, second, first)
        final = np.where(first == labels, first, final)
        return final != labels, final


def shares(known: Known, promise: Promise, outcome: Outcome) -> dict[str, Any]:
    """Return one replay's figures: shares of all items, true errors, and whether the promise was broken."""
    items, accepted = len(known.gold), outcome.accepted
    wrong = outcome.labels != known.gold
    missed = int(wrong[accepted].sum())
    accepted_error = missed / len(accepted) if len(accepted) else None
    dataset_error = float(wrong.mean())
    broken = False
    if len(accepted):
        above_floor = promise.floor is not None and missed > promise.floor * len(accepted) + 1e-9
        above_target = not promise.of_accepted and wrong.sum() > promise.target_error * items + 1e-9
        broken = bool(above_floor or above_target)
    chosen = outcome.plan
    return {
        "coverage": len(accepted) / items,
        "manual_share": 1 - len(accepted) / items,
        "certified": bool(len(accepted)),
        "true_error_dataset": dataset_error,
        "true_error_accepted": accepted_error,
        "violation": broken,
        "attempts": outcome.attempts,
        "answered_at_freeze": outcome.answered_at_freeze,
        "sample": chosen.sample if chosen else 0,
        "allowed_errors": chosen.errors if chosen else -1,
        "budget": chosen.budget if chosen else -1,
        "errors_found": outcome.errors_found,
        "problem": outcome.problem,
    }

"""One round of the certified loop: learn from the answers, say how sure of every item, say what to do next.

The application and the backtest both call these functions, so that what was replayed is what happens. A round is
a pure function of the answers so far and a seed; the policy on top of it is ``planner``, the proof ``certify``.

Ranks are those of ``rank``: larger is surer, and the confidence in them is the calibrated chance of being right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from labelhub.autolabel import planner
from labelhub.autolabel.calibration import calibrate
from labelhub.autolabel.rank import MILLION, draw_ties, to_ranks
from labelhub.autolabel.scorer import Scores, TextFeatures, VoteTable, fit_scorer

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Marks = npt.NDArray[np.bool_]

ATTEMPTS = 2  # certificates to try; after that people label the rest
FIFTY = 50  # answers whose worth is told to people


@dataclass(frozen=True)
class Answers:
    """What people said so far.

    Attributes:
        rows: shape (answers,), numbers of the answered texts, ascending.
        classes: shape (answers,), what they are, in [0, count).
        stands: shape (answers,), whether the item was drawn at random and no round would have taken it from the
            pool so far: such items stand for the pool.
    """

    rows: Ints
    classes: Ints
    stands: Marks


@dataclass(frozen=True)
class Learned:
    """What one round says.

    Attributes:
        classes: shape (texts,), the label of every text.
        ranks: shape (texts,), how sure; of use for unanswered texts only.
        sure: shape (answers,), confidence in millionths of the answered ones, by models that had not seen them.
    """

    classes: Ints
    ranks: Ints
    sure: Ints


def learn(
    features: TextFeatures, answers: Answers, count: int, votes: VoteTable | None, seed: int
) -> Learned:
    """Learn from all answers and label every text.

    Args:
        features: of all texts of the dataset.
        answers: at least 2.
        count: number of classes.
        votes: given votes on all texts, or None.
        seed: 128 bits; deals the folds and breaks ties of rank.
    Raises: ValueError as ``fit_scorer``.
    """
    scores = fit_scorer(features, answers.rows, answers.classes, count, votes, seed % 2**32)
    return rate(scores, answers.stands, seed)


def rate(scores: Scores, stands: Marks, seed: int) -> Learned:
    """Turn scores into ranks, by the answers that stand for the pool."""
    asked = np.concatenate([scores.x, scores.oof_x])
    right = 1 - calibrate(scores.oof_x, scores.right, stands, asked)
    confidence, inside = right[: len(scores.x)], right[len(scores.x) :]
    ranks = to_ranks(confidence, draw_ties(seed, len(confidence)))
    return Learned(scores.classes, ranks, np.round(inside * MILLION).astype(np.int64))


def still_stand(sure: npt.ArrayLike, cut: int) -> Marks:
    """Return which random answers still stand for the pool after a batch was taken from it.

    Args:
        sure: shape (n,), their confidences in millionths, out of fold.
        cut: rank of the least sure item that the batch left.
    """
    marks: Marks = np.asarray(sure, np.int64) >= cut // MILLION
    return marks


def chances(ranks: npt.ArrayLike) -> Floats:
    """Return the chance of being wrong of each item of a pool, surest first, from its ranks in any order."""
    descending = np.sort(np.asarray(ranks, np.int64))[::-1]
    return 1 - descending // MILLION / MILLION


@dataclass(frozen=True)
class Position:
    """How far the loop is: all that the planner looks at.

    Attributes:
        p: chance of being wrong of each item of the pool, surest first.
        items: labels that the promise is about (N); those outside the pool are people's.
        budget: wrong labels tolerated among the accepted ones (B).
        alpha: chance of a false certificate that this attempt is given.
        floor_error: largest share of wrong ones among the accepted, or None.
        costs: ``manual`` of the plans of the earlier rounds of this attempt, oldest first.
    """

    p: Floats
    items: int
    budget: int
    alpha: float
    floor_error: float | None = None
    costs: Sequence[float] = ()

    @property
    def labelled(self) -> int:
        """Items that people label already."""
        return self.items - len(self.p)

    def _terms(self) -> dict[str, Any]:
        return {
            "items": self.items, "budget": self.budget, "alpha": self.alpha, "floor_error": self.floor_error,
        }  # fmt: skip

    def judge(self) -> tuple[planner.Step, planner.Plan | None]:
        """Return what to do next, and the certificate that could be tried now."""
        return planner.judge(self.p, self.labelled, costs=self.costs, **self._terms())

    def advice(self) -> planner.Advice:
        """Return the same with reasons and figures for people."""
        return planner.advice(self.p, self.labelled, costs=self.costs, **self._terms())

    def saved_by(self, answers: int) -> float:
        """Return by how much so many more answers, the least sure first, would lower the work still planned.

        Nothing is learned from them in this forecast, so the truth is usually better.
        """
        more = min(answers, len(self.p))
        now = planner.plan(self.p, self.labelled, **self._terms())
        then = planner.plan(self.p[: len(self.p) - more], self.labelled + more, **self._terms())
        return (now.manual if now else float(self.items)) - (then.manual if then else float(self.items))

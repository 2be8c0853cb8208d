"""Learning whom to believe: a regression on what the labelers said.

For each label the regression reads the weak model's log-probability, whether each other labeler voted for it,
and the log odds of how sure that vote was, with their square. Log odds put both on one scale, so the penalty pulls
towards believing a stated confidence and not towards ignoring it: with 50 to 300 examples that beats a score
standardised against the labeler's other votes (``benchmarks/llm_confidence.py``). With up to MANY_CLASSES labels it weighs
every label's columns for every label (an L2-penalised softmax regression), so it can learn that one labeler's
"agrees" often means "neutral". With more labels there are too few examples for that, and all labels share one
weight per column (a conditional logit).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..types import ABSTENTION, Vote
from .heads import Floats, Head, Ints, fit_head, log_loss, log_softmax
from .rules import NAME as RULES
from .state import Arrays
from .weak import MANY_CLASSES

STRENGTH = 0.5  # inverse weight of the L2 penalty

_FLOOR = 1e-3  # added to a probability before its logarithm is taken
_LEAST_ODDS = 0.01  # a stated confidence is read between this and 1 less this: nobody is sure beyond
_FARTHEST = 3.0  # standard deviations, in earlier states: one odd score must not decide

Votes = Mapping[str, Sequence[Vote]]
Columns = list[npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Stacker:
    """A fitted combination of the weak model and other votes.

    Attributes:
        labels: the classes.
        sources: voters beside the weak model, in the order of their columns.
        scales: the sources whose scores are read, for they differed on the examples; all others are read by
            label only. The value is None, or in states learned before scores were read as log odds the (mean,
            standard deviation) that they are standardised by.
        head: the regression; with shared weights, shape (columns per label, 1) and no bias.
    """

    labels: list[str]
    sources: list[str]
    scales: dict[str, tuple[float, float] | None]
    head: Head

    @classmethod
    def learn(cls, labels: list[str], log_p: Floats, votes: Votes, classes: Ints) -> Stacker:
        """Fit on out-of-fold log-probabilities of the weak model and the votes on the same examples.

        Args:
            labels: the classes.
            log_p: shape (examples, classes).
            votes: source to one vote per example.
            classes: shape (examples,), the right ones.
        """
        scales: dict[str, tuple[float, float] | None] = {
            source: None
            for source, given in votes.items()
            if source != RULES and len({vote.score for vote in given if vote.label is not None}) > 1
        }
        blank = cls(labels, list(votes), scales, Head(np.empty((0, 0), np.float32), np.empty(0, np.float32)))
        columns, count = blank._columns(log_p, votes), len(labels)
        if count > MANY_CLASSES:
            head = Head(_fit_shared(columns, classes)[:, None], np.zeros(1, np.float32))
        else:
            # One empty example per label: the regression knows every label, also those without examples.
            empty = np.eye(count, count * len(columns), dtype=np.float32)
            every = np.concatenate([classes, np.arange(count)])
            head = fit_head(np.vstack([np.hstack(columns), empty]), every, count, STRENGTH)
        stored = Head(head.weights.astype(np.float16).astype(np.float32), head.bias)
        return cls(labels, blank.sources, scales, stored)

    def log_probabilities(self, log_p: Floats, votes: Votes) -> Floats:
        """Return log P(label | votes), shape (texts, classes)."""
        columns = self._columns(log_p, votes)
        if len(self.labels) > MANY_CLASSES:
            weighed = (w * column for w, column in zip(self.head.weights[:, 0], columns, strict=True))
            return log_softmax(np.asarray(sum(weighed), np.float64))
        return np.asarray(self.head.log_probabilities(np.hstack(columns)), np.float64)

    def facts(self) -> dict[str, Any]:
        """Return the part of the stacker that JSON can hold."""
        return {"sources": self.sources, "scales": self.scales}

    def arrays(self) -> Arrays:
        """Return the part of the stacker that is numbers."""
        return {"stack.weights": self.head.weights.astype(np.float16), "stack.bias": self.head.bias}

    @classmethod
    def load(cls, labels: list[str], facts: Mapping[str, Any], arrays: Arrays) -> Stacker:
        """Undo ``facts`` and ``arrays``."""
        scales = {source: tuple(scale) if scale else None for source, scale in facts["scales"].items()}
        head = Head(arrays["stack.weights"].astype(np.float32), arrays["stack.bias"])
        return cls(labels, facts["sources"], scales, head)

    def _columns(self, log_p: Floats, votes: Votes) -> Columns:
        """Return what the regression reads of each label, each of shape (texts, classes).

        First log P of the weak model, shifted to 0 where P is 0. Then, for each source, a one where it
        voted for the label; and for scored sources the log odds of the score there, and the square of half
        of them. An abstention is all zeros.
        """
        number = {label: k for k, label in enumerate(self.labels)}
        columns: Columns = [(np.log(np.exp(log_p) + _FLOOR) - np.log(_FLOOR)).astype(np.float32)]
        for source in self.sources:
            given = votes.get(source) or [ABSTENTION] * len(log_p)
            said = [(i, number[v.label], v.score) for i, v in enumerate(given) if v.label is not None]
            where = [i for i, _, _ in said], [k for _, k, _ in said]
            worth: Columns = [np.ones(len(said), np.float32)]
            if source in self.scales:
                worth += _score_columns(np.array([score for _, _, score in said]), self.scales[source])
            for values in worth:
                column = np.zeros(log_p.shape, np.float32)
                column[where] = values
                columns.append(column)
        return columns


def _score_columns(scores: Floats, scale: tuple[float, float] | None) -> Columns:
    """Return what is read of a source's scores; see ``Stacker.scales``."""
    if scale is None:
        p = np.clip(scores, _LEAST_ODDS, 1 - _LEAST_ODDS)
        odds = np.log(p / (1 - p))
        return [column.astype(np.float32) for column in (odds, odds * odds / 4)]
    z = np.clip((scores - scale[0]) / scale[1], -_FARTHEST, _FARTHEST)
    return [column.astype(np.float32) for column in (z, z * z)]


def stack_loss(labels: list[str], folds: Ints, log_p: Floats, votes: Votes, classes: Ints) -> float:
    """Return a stacker's log-loss, in nats, on examples that it was not fitted to.

    Args:
        labels: the classes.
        folds: shape (examples,), the folds to leave out in turn; of one fold, halves are made.
        log_p: shape (examples, classes), of the weak model, out of fold.
        votes: source to one vote per example.
        classes: shape (examples,), the right ones.
    """
    folds = np.arange(len(folds)) % 2 if len(set(folds.tolist())) == 1 else folds
    out = np.empty(log_p.shape)
    for fold in sorted(set(folds.tolist())):
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        learned = {source: [given[i] for i in train.tolist()] for source, given in votes.items()}
        asked = {source: [given[i] for i in test.tolist()] for source, given in votes.items()}
        stacker = Stacker.learn(labels, log_p[train], learned, classes[train])
        out[test] = stacker.log_probabilities(log_p[test], asked)
    return log_loss(out, classes)


def _fit_shared(columns: Columns, classes: Ints) -> npt.NDArray[np.float32]:
    """Fit a conditional logit with the same penalty; return one weight per column."""
    from scipy.optimize import minimize

    rows = np.arange(len(classes))
    right = np.array([column[rows, classes].sum(dtype=np.float64) for column in columns])

    def loss(weights: Floats) -> tuple[float, Floats]:
        log_p = log_softmax(sum(w * column for w, column in zip(weights, columns, strict=True)))
        p = np.exp(log_p)
        expected = np.array([(p * column).sum() for column in columns])
        value = -log_p[rows, classes].sum() + weights @ weights / (2 * STRENGTH)
        return float(value), expected - right + weights / STRENGTH

    found = minimize(loss, np.zeros(len(columns)), jac=True, method="L-BFGS-B")
    weights: npt.NDArray[np.float32] = np.asarray(found.x, np.float32)
    return weights

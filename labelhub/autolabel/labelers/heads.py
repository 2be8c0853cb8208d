"""Softmax regressions on the views: fitted on all examples, and out of fold for honest scores."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]

STRENGTH = 20.0  # inverse weight of the L2 penalty on the views
FOLDS = 4
ONE_FOLD_FROM = 10_000  # with so many examples, a quarter of them is evidence enough


@dataclass(frozen=True)
class Head:
    """A fitted softmax regression.

    Attributes:
        weights: shape (features, classes).
        bias: shape (classes,).
    """

    weights: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]

    def log_probabilities(self, features: Any) -> npt.NDArray[np.float32]:
        """Return log P(class | features), shape (rows, classes)."""
        return log_softmax(np.asarray(features @ self.weights) + self.bias)


def fit_head(features: Any, classes: Ints, count: int, strength: float = STRENGTH) -> Head:
    """Fit a softmax regression with an L2 penalty.

    Args:
        features: shape (rows, features), dense or sparse.
        classes: shape (rows,), in [0, count); every class must occur.
        count: number of classes.
        strength: inverse weight of the penalty, above 0.
    Source: scikit-learn's LogisticRegression (L-BFGS); stopped early at 1e-3, which halves the time and
        costs no accuracy on the data of ``benchmarks/weak_model.py``.
    """
    width = features.shape[1]
    if count == 1:
        return Head(np.zeros((width, 1), np.float32), np.zeros(1, np.float32))
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, max_iter=100, tol=1e-3)
    with warnings.catch_warnings():  # many labels with few examples each are usual here
        warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%")
        model.fit(features, classes)
    weights, bias = model.coef_.T, model.intercept_
    if count == 2:  # one column of log odds; split evenly it is the same softmax
        weights, bias = np.hstack([-weights / 2, weights / 2]), np.array([-bias[0] / 2, bias[0] / 2])
    return Head(np.ascontiguousarray(weights, np.float32), np.asarray(bias, np.float32))


def out_of_fold(
    features: Mapping[str, Any], classes: Ints, count: int, folds: Ints, strength: float = STRENGTH
) -> tuple[Ints, dict[str, npt.NDArray[np.float32]]]:
    """Score examples by models that never saw them.

    Args:
        features: name to features, all with the same rows.
        classes: shape (rows,).
        count: number of classes.
        folds: shape (rows,); rows with -1 are in every training set and are not scored.
        strength: as in ``fit_head``.
    Returns: the scored rows, and for each name their log-probabilities, shape (scored rows, classes).
    """
    used = [0] if (folds >= 0).sum() >= ONE_FOLD_FROM else sorted(set(folds[folds >= 0].tolist()))
    held = [np.flatnonzero(folds == fold) for fold in used]
    scores: dict[str, npt.NDArray[np.float32]] = {}
    for name, matrix in features.items():
        parts = []
        for fold, rows in zip(used, held, strict=True):
            train = np.flatnonzero(folds != fold)
            head = fit_head(matrix[train], classes[train], count, strength)
            parts.append(head.log_probabilities(matrix[rows]))
        scores[name] = np.vstack(parts)
    return np.concatenate(held), scores


def draw_folds(texts: Sequence[str], classes: Ints, seed: int) -> Ints:
    """Deal examples into folds: each label evenly, and equal texts always together.

    Returns: shape (texts,), in [0, FOLDS).
    """
    first: dict[str, int] = {}
    group = np.array([first.setdefault(text.strip(), i) for i, text in enumerate(texts)], np.int64)
    leaders = np.unique(group)
    shuffled = np.random.default_rng(seed).permutation(leaders)
    dealt = shuffled[np.argsort(classes[shuffled], kind="stable")]
    fold = np.empty(len(texts), np.int64)
    fold[dealt] = np.arange(len(dealt)) % FOLDS
    return fold[group]


def log_softmax(logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Normalise each row so that its exponentials sum to 1."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    normal: npt.NDArray[Any] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return normal


def margins(log_probabilities: npt.NDArray[Any]) -> Floats:
    """Return the log odds of each row's most likely class against all others, shape (rows,).

    Exact where the probability itself would round to 1, so the order of the surest is kept.
    """
    if log_probabilities.shape[1] == 1:
        return np.full(len(log_probabilities), np.inf)
    rows = np.arange(len(log_probabilities))
    top = log_probabilities.argmax(axis=1)
    others = log_probabilities.astype(np.float64)
    best = others[rows, top].copy()
    others[rows, top] = -np.inf
    peak = others.max(axis=1)
    rest: Floats = peak + np.log(np.exp(others - peak[:, None]).sum(axis=1))
    return best - rest


def log_loss(log_probabilities: npt.NDArray[Any], classes: Ints) -> float:
    """Return the mean negative log-probability of the right classes, in nats."""
    return float(-log_probabilities[np.arange(len(classes)), classes].mean())

"""How sure a labeler may be of each item: one number to order a pool by, learned from the answers so far.

Two stages. First several views of a text (words, characters, meaning, and directions found in all texts of the
dataset) each give class probabilities, and these are multiplied; given votes of other labelers are weighed by
one more regression. Then a second regression asks of each item "is that label right?" and looks at what the
first stage cannot see of itself: whether the views agree, and what the nearest answered items were. The score
is the mean of both logits, never far from the better of the two.

Everything that depends on the texts alone is computed once (``TextFeatures``) and kept between rounds
(``feature_store``); a round on 10,000 items then takes seconds. Texts are scored block by block, so memory is
bounded however many there are. The score orders; it promises nothing (see ``certify``).

Set OMP_NUM_THREADS=1: many small matrices are faster on one thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from labelhub.autolabel.features import TextFeatures, blocks
from labelhub.autolabel.labelers.heads import STRENGTH, Head, draw_folds, fit_head, log_softmax, margins
from labelhub.autolabel.labelers.weak import MANY_CLASSES

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]

NEIGHBOURS = 8
MOST_COMPARED = 4_000  # answered items to look for neighbours among
STACK_STRENGTH = 0.3  # inverse weight of the L2 penalty, both of the votes' and of the second stage

_UNSEEN = -15.0  # log-probability of a class that no example had
_BLOCK = 2_048  # rows compared at a time
_GROUP = 16
_TINY = 1e-3  # added to a probability before its logarithm is taken
_NO_NEIGHBOUR = 0.02


@dataclass(frozen=True)
class VoteTable:
    """Votes that came from elsewhere, for all texts of a dataset.

    Attributes:
        classes: shape (texts, sources), class numbers; -1 where a source gave none.
        confidences: shape (texts, sources), in [0, 1]; NaN where none was stated.
    """

    classes: Ints
    confidences: npt.NDArray[np.float64]

    def columns(self, rows: slice | Ints, count: int) -> Floats:
        """Return one-hot votes, and one-hot times the standardised confidence and its square."""
        columns = []
        for source, (center, spread) in enumerate(self._usual):
            hot = _one_hot(self.classes[rows, source], count)
            columns.append(hot)
            if spread > 0:
                stated = self.confidences[rows, source]
                z = np.where(np.isfinite(stated), (stated - center) / spread, 0.0)
                z = np.clip(z, -3, 3)[:, None]
                columns += [hot * z, hot * z * z]
        return np.hstack(columns)

    @cached_property
    def _usual(self) -> list[tuple[float, float]]:
        """Mean and spread of each source's stated confidences; 0 and 0 where it states none."""
        stated = [column[np.isfinite(column)] for column in self.confidences.T]
        return [(float(known.mean()), float(known.std())) if len(known) else (0.0, 0.0) for known in stated]


@dataclass(frozen=True)
class Scores:
    """What a fitted scorer says.

    Attributes:
        classes: shape (texts,), the label of every text of the dataset, answered ones included.
        x: shape (texts,), how sure, on the logit scale; larger is surer. Of use for unanswered texts only.
        oof_classes: shape (answered,), labels of the answered ones by models that had not seen their answers.
        oof_x: shape (answered,), the score of those.
        right: shape (answered,), whether they were right.
    """

    classes: Ints
    x: npt.NDArray[np.float64]
    oof_classes: Ints
    oof_x: npt.NDArray[np.float64]
    right: npt.NDArray[np.bool_]


def fit_scorer(
    features: TextFeatures,
    rows: npt.ArrayLike,
    classes: npt.ArrayLike,
    count: int,
    votes: VoteTable | None = None,
    seed: int = 0,
) -> Scores:
    """Learn from the answers so far, and score every text.

    Args:
        features: of all texts of the dataset.
        rows: shape (answered,), numbers of the answered texts, without repeats.
        classes: shape (answered,), their classes, in [0, count).
        count: number of classes, at least 1.
        votes: given votes on all texts, or None.
        seed: deals the answers into folds.
    Raises: ValueError with fewer than 2 answers, or answers that do not match.
    Source: stacked generalisation (Wolpert, 1992), twice; measured in benchmarks/certified_loop.py.
    """
    known, truth = np.asarray(rows, np.int64), np.asarray(classes, np.int64)
    if len(known) < 2 or len(known) != len(truth):
        raise ValueError(f"cannot learn from {len(known)} texts with {len(truth)} answers")
    folds = draw_folds([features.texts[i] for i in known.tolist()], truth, seed)
    if len(set(folds.tolist())) < 2:  # all the same text
        folds = np.arange(len(folds)) % 2
    if votes is not None and not votes.classes.shape[1]:
        votes = None
    views, inside = {}, {}
    for name in features.names(count):
        views[name], inside[name] = _learn(features.see(name, known), truth, count, folds)
    space = features.see("joint", known)
    among = _compared(len(known))
    near = _neighbours(space, space[among], truth[among], count, folds, folds[among])
    log_p, stack = _mean(inside), None
    if votes is not None:
        columns = _stack_columns(log_p, near, votes.columns(known, count))
        stack, log_p = _learn(columns, truth, count, folds, STACK_STRENGTH)
    oof_classes = log_p.argmax(axis=1)
    right = oof_classes == truth
    signs = _signs(log_p, inside, near, oof_classes, _agreement(votes, known, oof_classes), count)
    trust, oof_odds = _learn_trust(signs, right, folds)
    oof_x = (_sure(log_p) + oof_odds) / 2

    all_classes, x = np.empty(len(features.texts), np.int64), np.empty(len(features.texts))
    for block in blocks(len(features.texts)):
        said = {name: view.log_probabilities(features.see(name, block)) for name, view in views.items()}
        near = _neighbours(features.see("joint", block), space[among], truth[among], count)
        log_p = _mean(said)
        if stack is not None and votes is not None:
            log_p = stack.log_probabilities(_stack_columns(log_p, near, votes.columns(block, count)))
        best = all_classes[block] = log_p.argmax(axis=1)
        signs = _signs(log_p, said, near, best, _agreement(votes, block, best), count)
        x[block] = (_sure(log_p) + trust.log_odds(signs)) / 2
    return Scores(all_classes, x, oof_classes, oof_x, right)


@dataclass(frozen=True)
class _Voter:
    """A regression over the classes that had an answer; the others are as good as impossible."""

    head: Head
    present: Ints
    count: int

    @classmethod
    def fit(cls, features: Any, truth: Ints, count: int, strength: float) -> _Voter:
        present, numbers = np.unique(truth, return_inverse=True)
        return cls(fit_head(features, numbers, len(present), strength), present, count)

    def log_probabilities(self, features: Any) -> Floats:
        log_p = np.full((features.shape[0], self.count), _UNSEEN)
        log_p[:, self.present] = self.head.log_probabilities(features)
        return log_p


def _learn(
    features: Any, truth: Ints, count: int, folds: Ints, strength: float = STRENGTH
) -> tuple[_Voter, Floats]:
    """Return a regression on all answers, and log-probabilities of these by others, out of fold."""
    log_p = np.empty((len(truth), count))
    for fold in np.unique(folds).tolist():
        train, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        log_p[held] = _Voter.fit(features[train], truth[train], count, strength).log_probabilities(
            features[held]
        )
    return _Voter.fit(features, truth, count, strength), log_p


def _mean(views: dict[str, Floats]) -> Floats:
    """Return the geometric mean of the views' probabilities, normalised."""
    return log_softmax(np.mean(list(views.values()), axis=0))


def _compared(answers: int) -> Ints:
    """Return the numbers of the answers to look for neighbours among."""
    if answers <= MOST_COMPARED:
        return np.arange(answers)
    return np.sort(np.random.default_rng(0).permutation(answers)[:MOST_COMPARED])


def _neighbours(
    asked: npt.NDArray[np.float32],
    space: npt.NDArray[np.float32],
    truth: Ints,
    count: int,
    folds: Ints | None = None,
    its_folds: Ints | None = None,
) -> tuple[Floats, Floats]:
    """Return the classes' shares among the nearest answered texts, and how near those are on average.

    Args:
        asked: joint view of the texts asked about.
        space: that of the answered ones.
        truth: their classes.
        count: number of classes.
        folds, its_folds: of ``asked`` and ``space`` where both are answered: neighbours of the own fold do not
            count.
    """
    k = min(NEIGHBOURS, len(space))
    hot = _one_hot(truth, count)
    shares, nearness = np.empty((len(asked), count)), np.empty(len(asked))
    for start in range(0, len(asked), _BLOCK):
        block = slice(start, start + _BLOCK)
        cosine = asked[block] @ space.T / 2
        if folds is not None and its_folds is not None:
            cosine[folds[block, None] == its_folds[None]] = -1.0
        nearest = _largest(cosine, k)
        shares[block] = hot[nearest].mean(axis=1)
        nearness[block] = np.take_along_axis(cosine, nearest, axis=1).mean(axis=1)
    return shares, nearness


def _largest(values: Floats, k: int) -> Ints:
    """Return the places of the k largest values of each row, in any order.

    In long rows they are looked for in the k groups with the largest maxima only, which hold them all.
    """
    size = values.shape[1] // _GROUP
    if size < 2 * k:
        return np.argpartition(-values, k - 1, axis=1)[:, :k]
    even = size * _GROUP
    tops = values[:, :even].reshape(-1, _GROUP, size).max(axis=1)
    groups = np.argpartition(tops, -k, axis=1)[:, -k:]
    places = (groups[:, :, None] + size * np.arange(_GROUP)).reshape(len(values), -1)
    rest = np.broadcast_to(np.arange(even, values.shape[1]), (len(values), values.shape[1] - even))
    places = np.hstack([places, rest])
    best = np.argpartition(np.take_along_axis(values, places, axis=1), -k, axis=1)[:, -k:]
    largest: Ints = np.take_along_axis(places, best, axis=1)
    return largest


def _stack_columns(log_p: Floats, near: tuple[Floats, Floats], cast: Floats) -> Floats:
    return np.hstack([np.log(np.exp(log_p) + _TINY), 0.5 * np.log(near[0] + _NO_NEIGHBOUR), cast])


def _agreement(votes: VoteTable | None, rows: slice | Ints, classes: Ints) -> Floats:
    """Return the share of given votes for a label, and the mean confidence stated by those."""
    if votes is None:
        return np.empty((len(classes), 0))
    said, stated = votes.classes[rows], votes.confidences[rows]
    agree = said == classes[:, None]
    given = np.maximum((said >= 0).sum(axis=1), 1)
    known = agree & np.isfinite(stated)
    sure = np.where(known, stated, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return np.column_stack([agree.sum(axis=1) / given, sure])


def _signs(
    log_p: Floats,
    views: dict[str, Floats],
    near: tuple[Floats, Floats],
    classes: Ints,
    agreement: Floats,
    count: int,
) -> Floats:
    """Return what the second stage reads, shape (rows, signs)."""
    rows = np.arange(len(log_p))
    best = np.partition(log_p, -2, axis=1)[:, -2:] if count > 1 else np.zeros((len(log_p), 2))
    columns = [_sure(log_p), best[:, 1] - best[:, 0], -(np.exp(log_p) * log_p).sum(axis=1)]
    agreeing = np.zeros(len(log_p))
    for view in views.values():
        chosen = np.clip(np.exp(view[rows, classes]), 1e-6, 1 - 1e-6)
        columns.append(np.log(chosen / (1 - chosen)))
        agreeing += view.argmax(axis=1) == classes
    columns += [agreeing, near[0][rows, classes], near[1]]
    if count <= MANY_CLASSES:
        columns.append(_one_hot(classes, count))
    return np.column_stack([*columns, agreement])


@dataclass(frozen=True)
class _Trust:
    """A regression on signs that tells right labels from wrong ones."""

    center: Floats
    spread: Floats
    model: Any  # None where nothing could be told apart
    usual: float

    @classmethod
    def fit(cls, signs: Floats, right: npt.NDArray[np.bool_], center: Floats, spread: Floats) -> _Trust:
        wins, losses = int(right.sum()), int((~right).sum())
        usual = float(np.log((wins + 0.5) / (losses + 0.5)))
        if not wins or not losses:
            return cls(center, spread, None, usual)
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=STACK_STRENGTH, max_iter=200).fit((signs - center) / spread, right)
        return cls(center, spread, model, usual)

    def log_odds(self, signs: Floats) -> Floats:
        if self.model is None:
            return np.full(len(signs), self.usual)
        odds: Floats = self.model.decision_function((signs - self.center) / self.spread)
        return odds


def _learn_trust(signs: Floats, right: npt.NDArray[np.bool_], folds: Ints) -> tuple[_Trust, Floats]:
    """Return the regression on all answers, and the log odds that these are right, out of fold."""
    center, spread = signs.mean(axis=0), signs.std(axis=0)
    spread = np.where(spread > 1e-9, spread, 1.0)
    odds = np.empty(len(right))
    for fold in np.unique(folds).tolist():
        held = folds == fold
        odds[held] = _Trust.fit(signs[~held], right[~held], center, spread).log_odds(signs[held])
    return _Trust.fit(signs, right, center, spread), odds


def _sure(log_p: Floats) -> Floats:
    """Return the log odds of the best class, cut where they say nothing more."""
    return np.minimum(margins(log_p), 15.0)


def _one_hot(classes: Ints, count: int) -> Floats:
    hot = np.zeros((len(classes), count), np.float32)
    said = np.flatnonzero(classes >= 0)
    hot[said, classes[said]] = 1.0
    return hot

"""How sure a labeler may be of each item: one number to order a pool by, learned from the answers so far.

Two stages. First several views of a text (words, characters, meaning, and directions found in all texts of the
dataset) each give class probabilities, and these are multiplied; given votes of other labelers are weighed by
one more regression. Then a second regression asks of each item "is that label right?" and looks at what the
first stage cannot see of itself: whether the views agree, and what the nearest answered items were. The score
is the mean of both logits, never far from the better of the two.

Everything that depends on the texts alone is computed once (``TextFeatures``) and kept between rounds; a round
on 10,000 items then takes seconds. The score orders; it promises nothing (see ``certify``).

Set OMP_NUM_THREADS=1: many small matrices are faster on one thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from labelhub.autolabel.labelers.heads import draw_folds, fit_head, log_softmax, margins
from labelhub.autolabel.labelers.views import CharacterView, Pieces, WordView, see_meaning, unit_rows
from labelhub.autolabel.labelers.weak import MANY_CLASSES

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]

NEIGHBOURS = 8
MOST_COMPARED = 4_000  # answered items to look for neighbours among
STACK_STRENGTH = 0.3  # inverse weight of the L2 penalty, both of the votes' and of the second stage

_MOST_FEATURES = 60_000  # of one view
_DIRECTIONS = 300  # of the latent view
_UNSEEN = -15.0  # log-probability of a class that no example had
_BLOCK = 2_048  # rows compared at a time
_TINY = 1e-3  # added to a probability before its logarithm is taken
_NO_NEIGHBOUR = 0.02


@dataclass(frozen=True)
class TextFeatures:
    """What the views see of all texts of a dataset; made once by ``of``.

    Attributes:
        texts: the texts, in order.
        word, char: shape (texts, features), sparse TF-IDF rows of length 1.
        meaning: shape (texts, 256), directions of the mean token vectors.
        latent: shape (texts, up to 300), the main directions of word and char together (LSA), rows of
            length 1.
    """

    texts: Sequence[str]
    word: Any
    char: Any
    meaning: npt.NDArray[np.float32]
    latent: npt.NDArray[np.float32]

    @classmethod
    def of(cls, texts: Sequence[str], seed: int = 0) -> TextFeatures:
        """See all texts of a dataset; a few seconds for 10,000 short ones.

        Args:
            texts: at least 1.
            seed: starts the search for directions; the same seed gives the same features.
        Raises: ValueError without texts.
        """
        from scipy.sparse import hstack
        from sklearn.utils.extmath import randomized_svd

        if not texts:
            raise ValueError("There are no texts to see.")
        pieces = Pieces(texts)
        _, word = WordView.fit(pieces, _MOST_FEATURES, 2)
        _, char = CharacterView.fit(pieces, _MOST_FEATURES, 2)
        both = hstack([word, char]).tocsr().astype(np.float32)
        rank = min(_DIRECTIONS, min(both.shape) - 1)
        if rank >= 1 and both.nnz:
            left, size, _ = randomized_svd(both, rank, n_oversamples=10, n_iter=2, random_state=seed)
            latent = unit_rows(left * size)
        else:
            latent = np.zeros((len(texts), 1), np.float32)
        return cls(texts, word, char, see_meaning(pieces), latent)

    @cached_property
    def joint(self) -> npt.NDArray[np.float32]:
        """Meaning and latent side by side; the inner product is the mean of both cosines, times two."""
        return np.hstack([self.meaning, self.latent]).astype(np.float32)

    def views(self, count: int) -> dict[str, Any]:
        """Return the views that vote: with many classes the sparse ones cost much and add nothing."""
        if count > MANY_CLASSES:
            return {"meaning": self.meaning, "latent": self.latent, "joint": self.joint}
        views = {"word": self.word, "char": self.char, "meaning": self.meaning, "latent": self.latent}
        return {name: matrix for name, matrix in views.items() if matrix.shape[1]}


@dataclass(frozen=True)
class VoteTable:
    """Votes that came from elsewhere, for all texts of a dataset.

    Attributes:
        classes: shape (texts, sources), class numbers; -1 where a source gave none.
        confidences: shape (texts, sources), in [0, 1]; NaN where none was stated.
    """

    classes: Ints
    confidences: npt.NDArray[np.float64]

    def columns(self, count: int) -> Floats:
        """Return one-hot votes, and one-hot times the standardised confidence and its square."""
        columns = []
        for source in range(self.classes.shape[1]):
            said, stated = self.classes[:, source], self.confidences[:, source]
            hot = _one_hot(said, count)
            columns.append(hot)
            known = np.isfinite(stated)
            if known.any() and stated[known].std() > 0:
                z = np.where(known, (stated - stated[known].mean()) / stated[known].std(), 0.0)
                z = np.clip(z, -3, 3)[:, None]
                columns += [hot * z, hot * z * z]
        return np.hstack(columns)


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
    inside, outside = {}, {}
    for name, matrix in features.views(count).items():
        inside[name], outside[name] = _both(matrix[known], matrix, truth, count, folds)
    near_in = _neighbours(features.joint, known, truth, count, known, folds)
    near_out = _neighbours(features.joint, known, truth, count, np.arange(len(features.texts)), None)
    log_in, log_out = _mean(inside), _mean(outside)
    cast_in = cast_out = None
    if votes is not None and votes.classes.shape[1]:
        cast_out = votes.columns(count)
        cast_in = cast_out[known]
        log_in, log_out = _both(
            _stack_columns(log_in, near_in, cast_in),
            _stack_columns(log_out, near_out, cast_out),
            truth,
            count,
            folds,
            STACK_STRENGTH,
        )
    oof_classes, all_classes = log_in.argmax(axis=1), log_out.argmax(axis=1)
    right = oof_classes == truth
    signs_in = _signs(log_in, inside, near_in, oof_classes, _agreement(votes, known, oof_classes), count)
    everybody = np.arange(len(features.texts))
    signs_out = _signs(
        log_out, outside, near_out, all_classes, _agreement(votes, everybody, all_classes), count
    )
    trust_in, trust_out = _trust(signs_in, signs_out, right, folds)
    return Scores(
        all_classes, (_sure(log_out) + trust_out) / 2, oof_classes, (_sure(log_in) + trust_in) / 2, right
    )


def _both(
    known: Any, everything: Any, truth: Ints, count: int, folds: Ints, strength: float = 20.0
) -> tuple[Floats, Floats]:
    """Return log-probabilities of the answered rows, out of fold, and of everything by one fit on all."""
    inside = np.empty((len(truth), count))
    for fold in np.unique(folds).tolist():
        train, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        inside[held] = _predict(known[train], truth[train], known[held], count, strength)
    return inside, _predict(known, truth, everything, count, strength)


def _predict(features: Any, truth: Ints, asked: Any, count: int, strength: float) -> Floats:
    present, numbers = np.unique(truth, return_inverse=True)
    head = fit_head(features, numbers, len(present), strength)
    log_p = np.full((asked.shape[0], count), _UNSEEN)
    log_p[:, present] = head.log_probabilities(asked)
    return log_p


def _mean(views: dict[str, Floats]) -> Floats:
    """Return the geometric mean of the views' probabilities, normalised."""
    return log_softmax(np.mean(list(views.values()), axis=0))


def _neighbours(
    space: npt.NDArray[np.float32],
    known: Ints,
    truth: Ints,
    count: int,
    asked: Ints,
    folds: Ints | None,
) -> tuple[Floats, Floats]:
    """Return the classes' shares among the nearest answered texts, and how near those are on average.

    With ``folds`` the asked texts are the answered ones, and neighbours of their own fold do not count.
    """
    among = np.arange(len(known))
    if len(known) > MOST_COMPARED:
        among = np.sort(np.random.default_rng(0).permutation(len(known))[:MOST_COMPARED])
    k = min(NEIGHBOURS, len(among))
    hot = _one_hot(truth[among], count)
    shares, nearness = np.empty((len(asked), count)), np.empty(len(asked))
    for start in range(0, len(asked), _BLOCK):
        block = slice(start, start + _BLOCK)
        cosine = space[asked[block]] @ space[known[among]].T / 2
        if folds is not None:
            cosine[folds[block, None] == folds[among][None]] = -1.0
        nearest = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
        shares[block] = hot[nearest].mean(axis=1)
        nearness[block] = np.take_along_axis(cosine, nearest, axis=1).mean(axis=1)
    return shares, nearness


def _stack_columns(log_p: Floats, near: tuple[Floats, Floats], cast: Floats) -> Floats:
    return np.hstack([np.log(np.exp(log_p) + _TINY), 0.5 * np.log(near[0] + _NO_NEIGHBOUR), cast])


def _agreement(votes: VoteTable | None, rows: Ints, classes: Ints) -> Floats:
    """Return the share of given votes for a label, and the mean confidence stated by those."""
    if votes is None or not votes.classes.shape[1]:
        return np.empty((len(rows), 0))
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


def _trust(
    inside: Floats, outside: Floats, right: npt.NDArray[np.bool_], folds: Ints
) -> tuple[Floats, Floats]:
    """Return the log odds that a label is right: of answered rows out of fold, and of everything."""
    center, spread = inside.mean(axis=0), inside.std(axis=0)
    spread = np.where(spread > 1e-9, spread, 1.0)
    inside, outside = (inside - center) / spread, (outside - center) / spread
    scored = np.empty(len(right))
    for fold in np.unique(folds).tolist():
        held = folds == fold
        scored[held] = _log_odds(inside[~held], right[~held], inside[held])
    return scored, _log_odds(inside, right, outside)


def _log_odds(signs: Floats, right: npt.NDArray[np.bool_], asked: Floats) -> Floats:
    wins, losses = int(right.sum()), int((~right).sum())
    if not wins or not losses:  # nothing to tell apart
        return np.full(len(asked), np.log((wins + 0.5) / (losses + 0.5)))
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=STACK_STRENGTH, max_iter=200).fit(signs, right)
    odds: Floats = model.decision_function(asked)
    return odds


def _sure(log_p: Floats) -> Floats:
    """Return the log odds of the best class, cut where they say nothing more."""
    return np.minimum(margins(log_p), 15.0)


def _one_hot(classes: Ints, count: int) -> Floats:
    hot = np.zeros((len(classes), count), np.float32)
    said = np.flatnonzero(classes >= 0)
    hot[said, classes[said]] = 1.0
    return hot

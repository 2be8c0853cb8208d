"""A model that learns from decisions within seconds, on a CPU, without a network.

Three views of a text (words, characters, meaning) feed softmax regressions in one of two ways:

* ``ALL``: one regression on all three side by side;
* ``CLOSE``: one on characters and meaning, one on meaning alone, their probabilities multiplied.

Out-of-fold log-loss chooses between them. CLOSE wins while examples are few, and over 20 classes it is the
only one tried (``benchmarks/weak_model.py`` has the figures). Each label's name and definition is one more
example of it, so that a label which nobody has used yet can be found too; with no examples at all the labels
are guesses by nearness of meaning (``ZeroShot``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..calibration import Platt, fit_platt
from ..types import ABSTAINED, ABSTENTION, Answer, Example, GivenVotes, Vote
from .heads import Floats, Head, Ints, draw_folds, fit_head, log_loss, log_softmax, margins, out_of_fold
from .rules import without_rules
from .state import Arrays, read_state, write_state
from .views import CharacterView, Pieces, WordView, piece_vectors, see_meaning, unit_rows

NAME = "weak_model"
ALL = ("all",)
CLOSE = ("joint", "meaning")
MANY_CLASSES = 20
CALIBRATE_FROM = 50  # different examples
BLOCK = 8192  # texts labeled at a time: bounds memory, not results
EASY = 0.95  # in fast mode the word view alone decides from this confidence on

_MOST_FEATURES = 60_000  # of one view
_MOST_WEIGHTS = 3_000_000  # of one view, features x classes: bounds the stored state
_PLENTY = 200  # examples from which a pair of words or a run of characters must occur twice to count
_ZERO_SHOT_SCALE = 10.0  # cosine to logit
_LEAST_SAMPLE = 20  # texts that make a mean worth subtracting


@dataclass(frozen=True)
class WeakModel:
    """A fitted weak model.

    Attributes:
        labels: the classes, in the order of the probabilities.
        seen: shape (classes,), whether any example had that label.
        heads: the regressions by name; "word", on words alone, is always there, to explain and for fast mode.
        views: the heads whose probabilities are multiplied, ALL or CLOSE.
        platt: margin of the product to probability of being right; None with too few examples.
        platt_word: the same for the word view alone; set in fast mode only.
    """

    labels: list[str]
    seen: npt.NDArray[np.bool_]
    word: WordView
    char: CharacterView
    heads: dict[str, Head]
    views: tuple[str, ...]
    platt: Platt | None
    platt_word: Platt | None

    guess = False  # at least one example was learned from

    def judge(self, texts: Sequence[str]) -> tuple[Floats, Floats]:
        """Return log P(label | text), shape (texts, classes), and the confidence in the best one.

        The confidence is calibrated, or else the geometric mean of the heads' probabilities, which
        overstates less than their product while examples are few.
        """
        pieces = Pieces(texts)
        if self.platt_word is None:
            return self._judge(pieces, self.word.see(pieces) if self.views == ALL else None)
        words = self.word.see(pieces)
        log_p = np.asarray(self.heads["word"].log_probabilities(words), np.float64)
        confidence = self.platt_word(margins(log_p))
        hard = np.flatnonzero(confidence < EASY)
        if len(hard):
            log_p[hard], confidence[hard] = self._judge(
                Pieces([texts[i] for i in hard.tolist()]), words[hard]
            )
        return log_p, confidence

    def _judge(self, pieces: Pieces, words: Any) -> tuple[Floats, Floats]:
        characters, meaning = self.char.see(pieces), see_meaning(pieces)
        if self.views == ALL:
            seen = {"all": _beside(words, characters, meaning)}
        else:
            seen = {"joint": _beside(characters, meaning), "meaning": meaning}
        total = sum(self.heads[view].log_probabilities(seen[view]) for view in self.views)
        log_p = log_softmax(np.asarray(total, np.float64))
        if self.platt is not None:
            return log_p, self.platt(margins(log_p))
        return log_p, np.exp(log_softmax(np.asarray(total, np.float64) / len(self.views)).max(axis=1))

    def explain(self, text: str, label: str) -> list[str]:
        """Return the words and word pairs of a text that speak most for a label, in the word view."""
        if label not in self.labels:
            return []
        row = self.word.see(Pieces([text]))
        weights = self.heads["word"].weights
        lift = weights[row.indices, self.labels.index(label)] - weights[row.indices].mean(axis=1)
        worth = row.data * lift
        names = self.word.names()
        return [names[row.indices[i]] for i in np.argsort(-worth)[:5] if worth[i] > 0]

    def facts(self) -> dict[str, Any]:
        """Return the part of the model that JSON can hold."""
        return {
            "kind": "trained",
            "views": list(self.views),
            "platt": self.platt,
            "platt_word": self.platt_word,
            "seen": self.seen.tolist(),
        }

    def arrays(self) -> Arrays:
        """Return the part of the model that is numbers; weights in half precision."""
        arrays = {**self.word.to_arrays(), **self.char.to_arrays()}
        for name, head in self.heads.items():
            arrays[f"{name}.weights"] = head.weights.astype(np.float16)
            arrays[f"{name}.bias"] = head.bias
        return arrays

    @classmethod
    def load(cls, labels: list[str], facts: Mapping[str, Any], arrays: Arrays) -> WeakModel:
        """Undo ``facts`` and ``arrays``."""
        views = tuple(facts["views"])
        heads = {
            name: Head(arrays[f"{name}.weights"].astype(np.float32), arrays[f"{name}.bias"])
            for name in sorted({"word", *views})
        }
        platt, platt_word = (Platt(*p) if p else None for p in (facts["platt"], facts["platt_word"]))
        word, char = WordView.from_arrays(arrays), CharacterView.from_arrays(arrays)
        return cls(labels, np.array(facts["seen"], bool), word, char, heads, views, platt, platt_word)


@dataclass(frozen=True)
class ZeroShot:
    """Guesses labels by the nearness of a text to their names and definitions.

    Attributes:
        labels: the classes.
        directions: shape (classes, 256), what each label's name and definition mean.
        middle: shape (256,), mean of a sample of the texts, taken out of both sides; zeros without one.
    """

    labels: list[str]
    directions: Floats
    middle: Floats

    guess = True
    platt = None

    @property
    def seen(self) -> npt.NDArray[np.bool_]:
        """Shape (classes,): no label has been seen."""
        return np.zeros(len(self.labels), bool)

    @classmethod
    def learn(cls, label_schema: Mapping[str, str], texts: Sequence[str]) -> ZeroShot:
        """Place the labels; ``texts``, a sample of what will be labeled, says where the middle is."""
        directions = see_meaning(Pieces([describe(*item) for item in label_schema.items()]))
        many = len(texts) >= _LEAST_SAMPLE
        middle = see_meaning(Pieces(texts)).mean(axis=0) if many else np.zeros(directions.shape[1])
        middle = middle.astype(np.float16).astype(np.float32)  # as it will be stored
        directions = unit_rows(directions - middle).astype(np.float16).astype(np.float32)
        return cls(list(label_schema), directions, middle)

    def judge(self, texts: Sequence[str]) -> tuple[Floats, Floats]:
        """Return log-scores of the labels, shape (texts, classes), and the best one's as confidence."""
        near = unit_rows(np.asarray(see_meaning(Pieces(texts)) - self.middle, np.float32)) @ self.directions.T
        log_p = log_softmax(_ZERO_SHOT_SCALE * near.astype(np.float64))
        return log_p, np.exp(log_p.max(axis=1))

    def explain(self, text: str, label: str) -> list[str]:
        """Return the pieces of a text that lie nearest to a label."""
        if label not in self.labels:
            return []
        pieces = Pieces([text]).distinct
        near = unit_rows(piece_vectors(pieces)) @ self.directions[self.labels.index(label)]
        return [pieces[i] for i in np.argsort(-near)[:5] if near[i] > 0]

    def facts(self) -> dict[str, Any]:
        """Return the part of the model that JSON can hold."""
        return {"kind": "guess"}

    def arrays(self) -> Arrays:
        """Return the part of the model that is numbers; weights in half precision."""
        return {
            "zero.directions": self.directions.astype(np.float16),
            "zero.middle": self.middle.astype(np.float16),
        }

    @classmethod
    def load(cls, labels: list[str], facts: Mapping[str, Any], arrays: Arrays) -> ZeroShot:
        """Undo ``facts`` and ``arrays``."""
        return cls(
            labels, arrays["zero.directions"].astype(np.float32), arrays["zero.middle"].astype(np.float32)
        )


@dataclass(frozen=True)
class Evidence:
    """What the examples said about the weak model, out of fold.

    Attributes:
        rows: shape (n,), numbers of the scored examples.
        folds: shape (n,), their folds.
        log_p: shape (n, classes), log P(label | text) by models that had not seen them.
    """

    rows: Ints
    folds: Ints
    log_p: Floats


class WeakLabeler:
    """Labels with a weak model; a text without any character to go by is an abstention."""

    def __init__(self, model: WeakModel | ZeroShot) -> None:
        self.model = model
        self.labels = model.labels

    @property
    def guess(self) -> bool:
        """True when no example was learned from; see ``Labeler.guess``."""
        return self.model.guess

    def label(self, texts: Sequence[str], given_votes: GivenVotes | None = None) -> list[Answer]:
        """Answer for each text; see ``Labeler.label``."""
        answers: list[Answer] = []
        unseen = [not seen for seen in self.model.seen.tolist()]
        for votes, best, _ in self.blocks(texts):
            for vote, k in zip(votes, best, strict=True):
                if vote.label is None:
                    answers.append(Answer(None, 0.0, ABSTAINED, {NAME: vote}))
                else:
                    answers.append(Answer(vote.label, vote.score, None, {NAME: vote}, unseen[k]))
        return answers

    def blocks(self, texts: Sequence[str]) -> Iterator[tuple[list[Vote], list[int], Floats]]:
        """Yield, block by block, a vote per text, the number of its label, and all log-probabilities."""
        labels = self.labels
        for start in range(0, len(texts), BLOCK):
            block = texts[start : start + BLOCK]
            log_p, confidence = self.model.judge(block)
            best = log_p.argmax(axis=1).tolist()
            votes = [Vote(labels[k], c) for k, c in zip(best, confidence.tolist(), strict=True)]
            for i, text in enumerate(block):
                if not text or text.isspace():
                    votes[i] = ABSTENTION
            yield votes, best, log_p

    def explain(self, text: str, label: str) -> list[str]:
        """Return up to five words of the text that speak for a label; see ``Labeler.explain``."""
        return self.model.explain(text, label)

    def to_state(self) -> bytes:
        """Return the model as bytes."""
        return write_state({"method": NAME, "labels": self.labels, **self.model.facts()}, self.model.arrays())

    @classmethod
    def from_state(cls, state: bytes) -> WeakLabeler:
        """Undo ``to_state``."""
        facts, arrays = read_state(state)
        return cls(load_model(facts["labels"], facts, arrays))


def load_model(labels: list[str], facts: Mapping[str, Any], arrays: Arrays) -> WeakModel | ZeroShot:
    """Return the model that ``facts`` and ``arrays`` of it describe."""
    kind = WeakModel if facts["kind"] == "trained" else ZeroShot
    return kind.load(labels, facts, arrays)


def describe(label: str, definition: str) -> str:
    """Return a label's name and definition as a text that one could meet."""
    name = label.replace("_", " ").replace("-", " ").strip()
    return f"{name} {without_rules(definition)}".strip()


def learn_weak(
    label_schema: Mapping[str, str],
    examples: Sequence[Example],
    *,
    texts: Sequence[str] = (),
    fast: bool = False,
    seed: int = 0,
) -> tuple[WeakModel | ZeroShot, Evidence | None]:
    """Fit the weak model.

    Args:
        label_schema: label name to definition.
        examples: labeled texts; their labels must be in the schema.
        texts: a sample of what will be labeled; centres zero-shot guesses.
        fast: let the word view alone decide where it is sure; ignored with too few examples to know that.
        seed: deals the examples into folds.
    Returns: the model, and from CALIBRATE_FROM different examples on what it said out of fold.
    """
    if not examples:
        return ZeroShot.learn(label_schema, texts), None
    labels = list(label_schema)
    count, n = len(labels), len(examples)
    number = {label: k for k, label in enumerate(labels)}
    shown = np.array([number[e.label] for e in examples], np.int64)
    classes = np.concatenate([shown, np.arange(count)])
    pieces = Pieces([e.text for e in examples] + [describe(*item) for item in label_schema.items()])
    limit = max(1_000, min(_MOST_FEATURES, _MOST_WEIGHTS // count))
    least = 2 if n >= _PLENTY else 1
    meaning = see_meaning(pieces)
    word, words = WordView.fit(pieces, limit, least)
    char, characters = CharacterView.fit(pieces, limit, least)
    features: dict[str, Any] = {"word": words, "joint": _beside(characters, meaning), "meaning": meaning}
    choices: list[tuple[str, ...]] = [CLOSE]
    if count <= MANY_CLASSES:
        features["all"] = _beside(words, characters, meaning)
        choices = [ALL, CLOSE]

    views: tuple[str, ...] = CLOSE
    platt = platt_word = evidence = None
    if len({e.text for e in examples}) >= CALIBRATE_FROM and count > 1:
        folds = np.concatenate([draw_folds([e.text for e in examples], shown, seed), np.full(count, -1)])
        judged = {name: matrix for name, matrix in features.items() if fast or name != "word"}
        rows, log_p = out_of_fold(judged, classes, count, folds)
        truth = classes[rows]
        views = min(choices, key=lambda choice: _loss(log_p, choice, truth))
        total = log_softmax(np.asarray(sum(log_p[view] for view in views), np.float64))
        platt = fit_platt(margins(total), total.argmax(axis=1) == truth)
        if fast:
            alone = np.asarray(log_p["word"], np.float64)
            platt_word = fit_platt(margins(alone), alone.argmax(axis=1) == truth)
            easy = platt_word(margins(alone)) >= EASY
            total[easy] = alone[easy]
        evidence = Evidence(rows, folds[rows], total)
    heads = {name: fit_head(features[name], classes, count) for name in sorted({"word", *views})}
    seen = np.bincount(shown, minlength=count) > 0
    return WeakModel(labels, seen, word, char, heads, views, platt, platt_word), evidence


def _loss(log_p: Mapping[str, Any], views: Sequence[str], classes: Ints) -> float:
    """Return the log-loss of the geometric mean of some heads."""
    return log_loss(log_softmax(sum(log_p[view] for view in views) / len(views)), classes)


def _beside(*features: Any) -> Any:
    """Put the features of several views side by side in one sparse matrix."""
    from scipy.sparse import csr_matrix, hstack

    return hstack([csr_matrix(matrix) for matrix in features]).tocsr()

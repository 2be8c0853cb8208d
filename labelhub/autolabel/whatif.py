"""What if, before paying: which labeler, and which prompt, would save the most work on this dataset?

Several ways to label are compared on items that people have reviewed, by how much of the pool could be accepted
unseen at the target, not by accuracy: the way that is right most often may not know when it is wrong. About a
hundred items leave wide intervals; so every figure has one, and two ways count as different only where a paired
interval says so. These are forecasts to choose by. They prove nothing; that is what a certificate is for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .buckets import clopper_pearson
from .labelers import Answer, Example, Vote, check_schema
from .labelers.ensemble import EnsembleLabeler
from .labelers.heads import draw_folds
from .labelers.rules import RulesLabeler, gather
from .labelers.weak import WeakLabeler, learn_weak
from .rank import MILLION, draw_ties, to_ranks
from .types import ABSTAINED, check_aligned

LEAST = 20  # reviewed items, below which nothing is claimed
DRAWS = 2_000  # of the bootstrap
ALPHA = 0.05  # chance that an interval misses

RULES = "Rules"
WEAK = "Weak model"
ENSEMBLE = "Ensemble"

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Range(NamedTuple):
    """An estimate with a 95 % interval; ``low <= value <= high`` unless nothing is claimed (all NaN)."""

    value: float
    low: float
    high: float


UNKNOWN = Range(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Line:
    """One way to label, as it did on the reviewed items.

    Attributes:
        name: "Rules", "Weak model", the name under which votes were given, or "Ensemble with" that name.
        n: reviewed items.
        answered: those that it gave a label.
        accuracy: share of the answered whose label is right, exact interval; unknown when none was answered.
        coverage: share of the pool that it could have accepted at the target, in [0, 1], bootstrap interval.
        threshold: least confidence among what it would accept, in [0, 1]; None when that is nothing.
        behind: coverage of the best line less that of this one, with a paired interval; 0 for the best.
        distinguishable: whether that interval lies above 0; False says "cannot be told apart from the best".
        cost_per_item: US dollars, filled in by whoever knows the prices; None here.
    """

    name: str
    n: int
    answered: int
    accuracy: Range
    coverage: Range
    threshold: float | None
    behind: Range
    distinguishable: bool
    cost_per_item: float | None = None

    @property
    def sentence(self) -> str:
        """One sentence on how this line compares with the best one."""
        if math.isnan(self.coverage.value):
            return f"{self.n} reviewed items are too few to compare anything; {LEAST} are the least."
        if self.behind.value == 0 and not self.distinguishable:
            return f"{self.name} is the best or level with it on these {self.n} items."
        if self.distinguishable:
            low, value, high = (
                round(100 * x) for x in (self.behind.low, self.behind.value, self.behind.high)
            )
            return f"{self.name} would leave {value} % more of the pool to people than the best ({low} to {high} %)."
        return f"{self.name} and the best cannot be told apart on {self.n} items."


def compare(
    texts: Sequence[str],
    gold: Sequence[str],
    label_schema: Mapping[str, str],
    *,
    votes: Mapping[str, Sequence[Vote]],
    rules: Mapping[str, Sequence[str]] | None = None,
    pool: int,
    target_error: float,
    seed: int,
) -> list[Line]:
    """Compare ways to label on reviewed items, by the share of a pool that each could accept at the target.

    An item counts as wrong where a way answers it and the label is not the person's. What is not accepted,
    people answer. So of ``pool + n`` labels in all, the promise tolerates ``target_error``, all of them among the
    accepted ones. Surest first, items are accepted while ``(wrong + 1) / (n + 1)`` stays within that: then the
    expected share of accepted wrong labels keeps the target (conformal risk control), where ``wrong / n`` would be
    too hopeful. Everything that learns answers each item by a model that has not seen it or any equal text. Equal
    confidences are put in a random order, the same for all ways, as ranks are.

    Args:
        texts: shape (n,), reviewed items, drawn at random from those that the figures are to hold for.
        gold: shape (n,), the people's labels.
        label_schema: label name to definition; definitions may hold rules.
        votes: name to votes, shape (n,), such as {"Prompt A": ..., "Prompt B": ...}; an unknown label is an
            abstention.
        rules: label to rules beside those in the definitions.
        pool: items of the same kind that nobody has labeled, at least 1.
        target_error: share of all labels that may be wrong, in (0, 1).
        seed: deals folds, orders equals, draws the bootstrap; not negative.
    Returns: a line for the rules (where there are any), the weak model, each name, and an ensemble of all that
        with each name; the most coverage first. With fewer than LEAST items every figure is NaN and nothing is
        distinguishable. Intervals come from DRAWS bootstrap draws of the items; those of ``behind`` are widened
        to hold for all lines together (Bonferroni). They do not hold the luck of learning from other items.
    Raises: ValueError on numbers that do not match or lie out of range, or a label outside the schema.
    Source: Angelopoulos and others (2024), "Conformal risk control", for the + 1; Efron (1979) for the bootstrap;
        measured in ``tests/autolabel/test_whatif.py``.
    """
    given = check_aligned(len(texts), votes)
    taken = {RULES, WEAK, *(f"{ENSEMBLE} with {name}" for name in given)} & set(given)
    if taken:
        raise ValueError(f"Votes cannot be named “{taken.pop()}”: another line has that name.")
    _check(texts, gold, label_schema, pool, target_error)
    written = gather(label_schema, rules or {})
    n = len(texts)
    if n < LEAST:
        every = [*([RULES] if written else []), WEAK, *given, *(f"{ENSEMBLE} with {name}" for name in given)]
        return [Line(name, n, 0, UNKNOWN, UNKNOWN, None, UNKNOWN, False) for name in every]
    answers = _answers(texts, gold, label_schema, given, written, seed)
    ties = draw_ties(seed, n)
    counts = np.random.default_rng([seed, n]).multinomial(n, np.full(n, 1 / n), size=DRAWS)
    counts = np.vstack([np.ones((1, n), np.int64), counts])  # the first row is the sample itself
    tolerated = min(target_error * (pool + n) / pool, 1.0)
    budget = math.floor(tolerated * (n + 1) - 1 + 1e-9)
    covered: dict[str, Floats] = {}
    thresholds: dict[str, float | None] = {}
    for name, said in answers.items():
        covered[name], thresholds[name] = _coverage(said, gold, ties, counts, budget)
    best = max(covered, key=lambda name: (covered[name][0], covered[name].mean()))
    lines = []
    for name, said in answers.items():
        lead = covered[best] - covered[name]
        behind = _range(lead, ALPHA / max(len(answers) - 1, 1))
        lines.append(
            Line(
                name,
                n,
                sum(answer.label is not None for answer in said),
                _accuracy(said, gold),
                _range(covered[name], ALPHA),
                thresholds[name],
                behind,
                behind.low > 0,
            )
        )
    return sorted(lines, key=lambda line: (line.name != best, -line.coverage.value))


def _check(
    texts: Sequence[str], gold: Sequence[str], label_schema: Mapping[str, str], pool: int, target_error: float
) -> None:
    check_schema(label_schema)
    if len(texts) != len(gold):
        raise ValueError(f"There are {len(texts)} texts but {len(gold)} labels.")
    strange = sorted(set(gold) - set(label_schema))
    if strange:
        raise ValueError(f"A reviewed item has the label “{strange[0]}”, which is not one of the labels.")
    if pool < 1 or not 0 < target_error < 1:
        raise ValueError(f"Nothing can be compared for a pool of {pool} at a target error of {target_error}.")


def _answers(
    texts: Sequence[str],
    gold: Sequence[str],
    label_schema: Mapping[str, str],
    given: Mapping[str, Sequence[Vote]],
    written: Mapping[str, Sequence[str]],
    seed: int,
) -> dict[str, list[Answer]]:
    """Return what each way says of each item, learned without the item's fold."""
    number = {label: k for k, label in enumerate(label_schema)}
    folds = draw_folds(texts, np.array([number[label] for label in gold], np.int64), seed)
    nothing = Answer(None, 0.0, ABSTAINED, {})
    names = [*([RULES] if written else []), WEAK, *given, *(f"{ENSEMBLE} with {name}" for name in given)]
    said = {name: [nothing] * len(texts) for name in names}
    for name, cast in given.items():
        said[name] = [
            Answer(v.label, _clipped(v.score), None, {}) if v.label in number else nothing for v in cast
        ]
    for fold in sorted(set(folds.tolist())):
        train, held = np.flatnonzero(folds != fold).tolist(), np.flatnonzero(folds == fold).tolist()
        examples, asked = [Example(texts[i], gold[i]) for i in train], [texts[i] for i in held]
        model, evidence = learn_weak(label_schema, examples, texts=asked, seed=seed)
        found = {WEAK: WeakLabeler(model).label(asked)}
        if written:
            found[RULES] = RulesLabeler.learn(written, examples).label(asked)
        for name, cast in given.items():
            learned = {"llm": [cast[i] for i in train]}
            ensemble = EnsembleLabeler.combine(model, evidence, examples, written, given_votes=learned)
            found[f"{ENSEMBLE} with {name}"] = ensemble.label(asked, {"llm": [cast[i] for i in held]})
        for name, answers in found.items():
            for i, answer in zip(held, answers, strict=True):
                said[name][i] = answer
    return said


def _clipped(score: float) -> float:
    return 0.0 if math.isnan(score) else min(max(float(score), 0.0), 1.0)


def _coverage(
    said: Sequence[Answer], gold: Sequence[str], ties: Ints, counts: Any, budget: int
) -> tuple[Floats, float | None]:
    """Return the share of the items accepted in each draw, shape (draws,), and the threshold in the first.

    Args:
        said, gold, ties: shape (items,).
        counts: shape (draws, items), how often each item was drawn.
        budget: wrong labels that may be accepted, -1 for none at all and nothing to accept.
    """
    answered = np.array(
        [a.label is not None and not a.guess for a in said]
    )  # a guess is never accepted unseen
    wrong = np.array([a.label != label for a, label in zip(said, gold, strict=True)])
    ranks = to_ranks([a.confidence for a in said], ties)
    order = np.argsort(-ranks, kind="stable")
    order = order[answered[order]]
    drawn = counts[:, order]
    # An item that was drawn twice and is wrong counts twice: it is in or out as a whole.
    kept = np.cumsum(drawn * wrong[order], axis=1) <= budget
    covered = (drawn * kept).sum(axis=1) / counts.sum(axis=1)
    accepted = int(kept[0].sum())
    threshold = float(ranks[order[accepted - 1]] // MILLION / MILLION) if accepted else None
    return np.asarray(covered, np.float64), threshold


def _accuracy(said: Sequence[Answer], gold: Sequence[str]) -> Range:
    answered = [a.label == label for a, label in zip(said, gold, strict=True) if a.label is not None]
    if not answered:
        return UNKNOWN
    low, high = clopper_pearson(sum(answered), len(answered), ALPHA)
    return Range(sum(answered) / len(answered), low, high)


def _range(draws: Floats, alpha: float) -> Range:
    """Return the first draw, the sample itself, with the percentile interval of the others."""
    low, high = np.quantile(draws[1:], [alpha / 2, 1 - alpha / 2]).tolist()
    return Range(float(draws[0]), min(low, float(draws[0])), max(high, float(draws[0])))

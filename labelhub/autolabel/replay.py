"""The certified loop on data whose answers are known: learn, plan, freeze, sample, certify, once more.

The decisions are those of ``planner``, ``certify``, ``scorer`` and ``calibration``; only the people are played.
Learning is dear and drawing is cheap, so one trained course of rounds serves many draws of the certificate's
sample. The price is one simplification: after a first attempt that proved nothing, the answers of its sample
count as given and leave the pool, but the course does not learn from them. So second attempts look a little
dearer here than they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from labelhub.autolabel import planner
from labelhub.autolabel.calibration import calibrate
from labelhub.autolabel.certify import allowed_errors, attempt_alpha, certify, sample_size
from labelhub.autolabel.playing import Floats, Ints, Known, Marks, Outcome, People, Promise
from labelhub.autolabel.scorer import Scores, TextFeatures, fit_scorer

ATTEMPTS = 2
NEVER = -40.0  # score of an item without a machine label
LEAST_FACTOR, MOST_FACTOR = 0.6, 3.0  # how far one sample may correct the predicted errors


@dataclass(frozen=True)
class Round:
    """The state after one time of learning: ``pool`` is in order, surest first; p, labels belong to it."""

    answered: Ints
    pool: Ints
    labels: Ints
    p: Floats


@dataclass(frozen=True)
class Frozen:
    """What an attempt is about: places of a round's pool that are still open, and the plan for them."""

    number: int
    places: Ints
    plan: planner.Plan
    labelled: int


@dataclass
class Course:
    """One course of learning, round by round, remembered so that many draws can share it."""

    known: Known
    people: People
    seed: int
    features: TextFeatures | None = None
    rounds: list[Round] = field(default_factory=list)
    first: dict[Promise, Frozen | None] = field(default_factory=dict)  # attempts, the same for every draw
    _steps: Iterator[Round] | None = None

    def round(self, number: int) -> Round | None:
        """Return a round, learning as far as needed; None when nothing is left to label."""
        if self._steps is None:
            self._steps = self._learn()
        while len(self.rounds) <= number:
            step = next(self._steps, None)
            if step is None:
                return None
            self.rounds.append(step)
        return self.rounds[number]

    def _learn(self) -> Iterator[Round]:
        known, items = self.known, len(self.known.gold)
        random = np.random.default_rng([self.seed, 0])
        tie = random.random(items)
        answered = random.permutation(items)[: planner.seed_size(items, known.count)]
        stands = np.ones(len(answered), bool)  # drawn at random, and no cut so far would have taken it
        while len(answered) < items:
            scores = self._score(answered)
            open_ = np.setdiff1d(np.arange(items), answered)
            pool = open_[np.lexsort((tie[open_], -scores.x[open_]))]
            p = calibrate(scores.oof_x, scores.right, stands, scores.x[pool])
            yield Round(answered, pool, scores.classes[pool], p)
            batch = planner.batch_size(items, len(answered))
            if batch < len(pool):
                stands &= scores.oof_x >= scores.x[pool[-batch - 1]]
            answered = np.concatenate([answered, pool[-batch:]])
            stands = np.concatenate([stands, np.zeros(len(answered) - len(stands), bool)])

    def _score(self, answered: Ints) -> Scores:
        known, answers = self.known, self.people.answers[answered]
        if known.learns:
            assert self.features is not None
            return fit_scorer(self.features, answered, answers, known.count, known.votes, self.seed)
        assert known.given is not None and known.confidence is not None
        p = np.clip(known.confidence, 1e-6, 1 - 1e-6)
        x = np.where(known.given >= 0, np.log(p / (1 - p)), NEVER)
        return Scores(known.given, x, known.given[answered], x[answered], known.given[answered] == answers)


def replay(course: Course, promise: Promise, draw_seed: int) -> Outcome:
    """Play one dataset to its end: at most two attempts, then people label what is left.

    Args:
        course: shared by all draws of one repetition.
        promise: what is to be proven.
        draw_seed: draws the samples.
    """
    random = np.random.default_rng([draw_seed, 2])
    items = len(course.known.gold)
    final = course.people.answers.copy()
    extra = np.zeros(items, bool)  # sampled by an earlier attempt
    factor, number = 1.0, 0
    attempts, found = 0, 0
    chosen: planner.Plan | None = None
    problem: str | None = "not ready"
    at_freeze = items
    for attempt in range(1, ATTEMPTS + 1):
        if attempt > 1:
            frozen = _until_ready(course, promise, attempt, number, extra, factor)
        else:
            if promise not in course.first:
                course.first[promise] = _until_ready(course, promise, attempt, number, extra, factor)
            frozen = course.first[promise]
        if frozen is None:
            break
        number, keep, chosen, at_freeze = frozen.number, frozen.places, frozen.plan, frozen.labelled
        now = course.rounds[number]
        pool, labels = now.pool[keep], now.labels[keep]
        attempts = attempt
        places = np.sort(random.permutation(len(pool))[: chosen.sample])
        wrong, answers = course.people.check(pool[places], labels[places])
        final[pool[places]] = answers
        found = int(wrong.sum())
        c = allowed_errors(
            len(pool), chosen.sample, chosen.budget, _alpha(promise, attempt), promise.reviewer_error
        )
        result = certify(
            range(len(pool)),
            places.tolist(),
            places[wrong].tolist(),
            c,
            chosen.budget,
            promise.floor,
        )
        problem = result.problem
        if result.accepted:
            unseen = np.array(result.accepted, np.int64)
            final[pool[unseen]] = labels[unseen]
            return Outcome(pool[unseen], final, attempts, at_freeze, chosen, found, None)
        expected = float((now.p[keep] * factor)[places].sum())
        factor *= min(max(found / max(expected, 1e-9), LEAST_FACTOR), MOST_FACTOR)
        extra[pool[places]] = True
        number += 1
    return Outcome(np.empty(0, np.int64), final, attempts, at_freeze, chosen, found, problem)


def _until_ready(
    course: Course, promise: Promise, attempt: int, number: int, extra: Marks, factor: float
) -> Frozen | None:
    """Learn until it is time to freeze; None when that time never comes."""
    items, alpha = len(course.known.gold), _alpha(promise, attempt)
    costs: list[float] = []
    manual = items // 2  # a guess until there is a plan; only reviewers' slips depend on it
    while (now := course.round(number)) is not None:
        # Without a label there is nothing to accept: people will answer.
        keep = np.flatnonzero(~extra[now.pool] & (now.labels >= 0))
        p = np.minimum(now.p[keep] * factor, 1.0)
        labelled = items - len(p)
        budget = promise.budget(items, manual)
        if planner.hopeless(labelled, items, budget, alpha):
            return None
        chosen = planner.plan(p, labelled, items, budget, alpha, promise.floor)
        costs.append(chosen.manual if chosen else math.inf)
        manual = math.ceil(chosen.manual) if chosen else manual
        if chosen is not None and planner.ready(p, labelled, items, budget, promise.floor, chosen, costs):
            return Frozen(number, keep, _noticed(chosen, len(p), alpha, promise.reviewer_error), labelled)
        number += 1
    return None


def _noticed(chosen: planner.Plan, pool: int, alpha: float, miss: float) -> planner.Plan:
    """Enlarge a plan's sample for reviewers who may overlook a wrong label."""
    sample = sample_size(chosen.errors, pool, chosen.budget, alpha, miss) if miss else None
    return chosen if sample is None else replace(chosen, sample=sample)


def _alpha(promise: Promise, attempt: int) -> float:
    return attempt_alpha(promise.alpha, attempt)

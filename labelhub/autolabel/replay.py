"""The certified loop on data whose answers are known: learn, plan, freeze, sample, certify, once more.

The steps are those of ``loop``, ``planner``, ``sampling`` and ``certify``, as in the application; only the people
are played. Learning is dear and drawing is cheap, so one trained course of rounds serves many draws of the
certificate's sample; after a draw that proved nothing its course branches off, for the answers of its sample
teach too.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from labelhub.autolabel import loop, planner, sampling
from labelhub.autolabel.certify import allowed_errors, attempt_alpha, certify, sample_size
from labelhub.autolabel.playing import Ints, Known, Marks, Outcome, People, Promise
from labelhub.autolabel.scorer import Scores, TextFeatures

NEVER = -40.0  # score of an item without a machine label

Seeds = Callable[[str, int], int]  # what for ("seed", "round", "sample") and its number; answers 128 bits


def seeds_of(seed: int) -> Seeds:
    """Return seeds that all follow from one number."""

    def bits(what: str, number: int) -> int:
        return int.from_bytes(hashlib.sha256(f"{seed} {what} {number}".encode()).digest()[:16])

    return bits


@dataclass(frozen=True)
class Round:
    """The state after one time of learning; ``pool`` are the unanswered items, surest first."""

    answers: loop.Answers
    learned: loop.Learned
    pool: Ints

    @property
    def labeled(self) -> Ints:
        """The part of the pool that has a machine label: without one there is nothing to accept."""
        return self.pool[self.learned.classes[self.pool] >= 0]


@dataclass(frozen=True)
class Frozen:
    """When an attempt is made, and its plan."""

    number: int
    plan: planner.Plan


@dataclass
class Course:
    """One course of learning, round by round, remembered so that many draws can share it."""

    known: Known
    people: People
    seeds: Seeds
    features: TextFeatures | None = None
    rounds: list[Round] = field(default_factory=list)
    frozen: dict[Promise, Frozen | None] = field(
        default_factory=dict
    )  # first attempts, the same for every draw
    said: Ints | None = None  # people's answers to every item, in the end
    drawn: dict[int, Ints] = field(
        default_factory=dict
    )  # by round: the sample of a certificate that proved nothing

    def round(self, number: int) -> Round | None:
        """Return a round, learning as far as needed; None when nothing is left to label."""
        while len(self.rounds) <= number:
            answers = self._answer()
            if len(answers.rows) >= len(self.known.gold):
                return None
            learned = self._learn(answers, self.seeds("round", len(self.rounds) + 1))
            open_ = np.setdiff1d(np.arange(len(self.known.gold)), answers.rows)
            self.rounds.append(
                Round(answers, learned, open_[np.argsort(learned.ranks[open_], kind="stable")][::-1])
            )
        return self.rounds[number]

    def after(self, number: int, drawn: Ints, answers: Ints) -> Course:
        """Return the course as it goes on when the sample drawn after a round proved nothing."""
        said = self._said().copy()
        said[drawn] = answers
        return replace(
            self, rounds=self.rounds[: number + 1], frozen={}, said=said, drawn=self.drawn | {number: drawn}
        )

    def _said(self) -> Ints:
        return self.people.answers if self.said is None else self.said

    def _answer(self) -> loop.Answers:
        """Answer what the loop asks for after the last round."""
        items = len(self.known.gold)
        if not self.rounds:
            size = planner.seed_size(items, self.known.count)
            lane = np.array(sampling.draw(self.seeds("seed", 1), np.arange(items), size), np.int64)
            return self._with(np.empty(0, np.int64), np.empty(0, bool), lane, True)
        last = self.rounds[-1]
        rows, stands = last.answers.rows, last.answers.stands
        if (drawn := self.drawn.get(len(self.rounds) - 1)) is not None:
            return self._with(rows, stands, drawn, True)
        batch = planner.batch_size(items, len(rows))
        if batch < len(last.pool):
            cut = int(last.learned.ranks[last.pool[-batch - 1]])
            stands = stands & loop.still_stand(last.learned.sure, cut)
        return self._with(rows, stands, last.pool[-batch:], False)

    def _with(self, rows: Ints, stands: Marks, taken: Ints, random: bool) -> loop.Answers:
        every = np.concatenate([rows, taken])
        marks = np.concatenate([stands, np.full(len(taken), random)])
        order = np.argsort(every)
        return loop.Answers(every[order], self._said()[every[order]], marks[order])

    def _learn(self, answers: loop.Answers, seed: int) -> loop.Learned:
        known = self.known
        if known.learns:
            assert self.features is not None
            return loop.learn(self.features, answers, known.count, known.votes, seed)
        assert known.given is not None and known.confidence is not None
        p = np.clip(known.confidence, 1e-6, 1 - 1e-6)
        x = np.where(known.given >= 0, np.log(p / (1 - p)), NEVER)
        here = answers.rows
        right = known.given[here] == answers.classes
        return loop.rate(Scores(known.given, x, known.given[here], x[here], right), answers.stands, seed)


def replay(course: Course, promise: Promise, seeds: Seeds) -> Outcome:
    """Play one dataset to its end: at most ``loop.ATTEMPTS`` attempts, then people label what is left.

    Args:
        course: shared by all draws of one repetition.
        promise: what is to be proven.
        seeds: draw the samples.
    """
    items = len(course.known.gold)
    final = course.people.answers.copy()
    number, attempts, found = 0, 0, 0
    chosen: planner.Plan | None = None
    problem: str | None = "not ready"
    at_freeze = items
    for attempt in range(1, loop.ATTEMPTS + 1):
        frozen = _until_ready(course, promise, attempt, number)
        if frozen is None:
            break
        number, chosen, attempts = frozen.number, frozen.plan, attempt
        now = course.rounds[number]
        pool, labels = now.labeled, now.learned.classes
        at_freeze = items - len(pool)
        drawn = np.array(sampling.draw(seeds("sample", attempt), np.sort(pool), chosen.sample), np.int64)
        wrong, answers = course.people.check(drawn, labels[drawn])
        final[drawn] = answers
        found = int(wrong.sum())
        alpha = attempt_alpha(promise.alpha, attempt)
        c = allowed_errors(len(pool), chosen.sample, chosen.budget, alpha, promise.reviewer_error)
        result = certify(
            pool.tolist(), drawn.tolist(), drawn[wrong].tolist(), c, chosen.budget, promise.floor
        )
        problem = result.problem
        if result.accepted:
            unseen = np.array(result.accepted, np.int64)
            final[unseen] = labels[unseen]
            return Outcome(unseen, final, attempts, at_freeze, chosen, found, None)
        course = course.after(number, drawn, answers)
        number += 1
    return Outcome(np.empty(0, np.int64), final, attempts, at_freeze, chosen, found, problem)


def _until_ready(course: Course, promise: Promise, attempt: int, number: int) -> Frozen | None:
    """Learn until it is time to freeze; None when that time never comes."""
    if promise not in course.frozen:
        course.frozen[promise] = _freeze(course, promise, attempt, number)
    return course.frozen[promise]


def _freeze(course: Course, promise: Promise, attempt: int, number: int) -> Frozen | None:
    items, alpha = len(course.known.gold), attempt_alpha(promise.alpha, attempt)
    costs: list[float] = []
    manual = items // 2  # a guess until there is a plan; only reviewers' slips depend on it
    while (now := course.round(number)) is not None:
        p = loop.chances(now.learned.ranks[now.labeled])
        budget = promise.budget(items, manual)
        step, chosen = loop.Position(p, items, budget, alpha, promise.floor, costs).judge()
        if step == "nothing to gain":
            return None
        if step == "certify now" and chosen is not None:
            return Frozen(number, _noticed(chosen, len(p), alpha, promise.reviewer_error))
        costs.append(chosen.manual if chosen else math.inf)
        manual = math.ceil(chosen.manual) if chosen else manual
        number += 1
    return None


def _noticed(chosen: planner.Plan, pool: int, alpha: float, miss: float) -> planner.Plan:
    """Enlarge a plan's sample for reviewers who may overlook a wrong label."""
    sample = sample_size(chosen.errors, pool, chosen.budget, alpha, miss) if miss else None
    return chosen if sample is None else replace(chosen, sample=sample)

"""A round on the way to a goal: all answers teach, every open item is scored, and the planner says what is next."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from django.conf import settings
from django.db.models import Q, QuerySet

from datasets.labeling import MOST_GIVEN, free_items, pack_scores
from datasets.models import Dataset, Item, LabelerVersion, Prediction, Run, Vote
from labelhub.autolabel import certify, feature_store, loop
from labelhub.autolabel.scorer import VoteTable
from reviews import samples
from reviews.models import Decision, Goal, Outcome, Purpose, Remark, Round, SampleItem

RANDOM = (Purpose.TRAINING, Purpose.CALIBRATION)  # samples whose items stand for everything that is open


@dataclass(frozen=True)
class _Answered:
    """Items with a known class, ascending by row: ``item`` ids, and whether they stand for the pool."""

    items: list[int]
    answers: loop.Answers


def fit(run: Run, items: QuerySet[Item]) -> tuple[bytes, Round]:
    """Learn from the answers of a run's version and score its open items.

    Args:
        run: of the method ``labeling.ROUND``; its version's settings name the goal.
        items: what the run is to label.
    Returns: the state of the version, and the unsaved row of this round.
    Raises: ValueError with fewer than two answers.
    """
    dataset, version = run.dataset, run.version
    goal = Goal.objects.get(pk=version.settings["goal"])
    rows = list(
        Item.objects.filter(dataset=dataset, same_as=None, excluded=None)
        .order_by("pk")
        .values_list("pk", "text", "given_label")
    )
    ids = [pk for pk, _, _ in rows]
    texts = [text for _, text, _ in rows]
    labels = [label for label, _, _ in version.settings["labels"]]
    given = [(pk, label) for pk, _, label in rows if label is not None][:MOST_GIVEN]
    before = _round_before(run)
    answered = _answered(version, ids, labels, given, _standing(dataset, run, before))
    features = feature_store.load_or_make(settings.LABELHUB_HOME / "features", texts)
    learned = loop.learn(
        features, answered.answers, len(labels), _votes(dataset, ids, labels), int(run.seed, 16)
    )
    here = np.searchsorted(ids, list(items.order_by("pk").values_list("pk", flat=True)))
    state = pack_scores(
        [ids[i] for i in here], np.take(labels, learned.classes[here]).tolist(), learned.ranks[here]
    )
    asked = Remark.objects.filter(dataset=dataset, kind=Remark.Kind.ASK).values_list("item", flat=True)
    pool = here[~np.isin(np.take(ids, here), list(asked))]
    stands = answered.answers.stands
    representative = [[answered.items[i], int(learned.sure[i])] for i in np.flatnonzero(stands).tolist()]
    return state, _advise(goal, run, learned.ranks[pool], representative)


def _advise(goal: Goal, run: Run, ranks: Any, representative: list[list[int]]) -> Round:
    """Ask the planner, by the rounds of this attempt so far."""
    attempt, alpha = samples.next_attempt(goal.dataset)
    earlier = list(goal.rounds.filter(attempt=attempt))
    costs = [one.manual if one.sample is not None else math.inf for one in earlier]
    items = free_items(goal.dataset).count()
    budget = certify.budget(items, goal.target_error)
    where = loop.Position(loop.chances(ranks), items, budget, alpha, goal.floor_error, costs)
    advice = where.advice()
    return Round(
        goal=goal, run=run, number=goal.rounds.count() + 1, attempt=attempt, items=items, labelled=where.labelled,
        representative=representative, expected_errors=advice.expected_errors, step=advice.step,
        batch=advice.batch, sample=advice.plan.sample if advice.plan else None, manual=advice.manual,
        saved_by_fifty=where.saved_by(loop.FIFTY), reason=advice.reason,
    )  # fmt: skip


def _round_before(run: Run) -> Round | None:
    rounds = Round.objects.filter(run__dataset=run.dataset_id, run__number__lt=run.number)
    return rounds.select_related("run__version").defer("run__version__state").order_by("-run__number").first()


def _standing(dataset: Dataset, run: Run, before: Round | None) -> set[int]:
    """Items answered in a random sample that no round would have taken from the pool since."""
    drawn = SampleItem.objects.filter(sample__dataset=dataset, sample__purpose__in=RANDOM)
    if before is None:
        return set(drawn.values_list("item", flat=True))
    ended = Q(sample__closed_at__gt=before.at) | Q(sample__superseded_at__gt=before.at)
    fresh = set(drawn.filter(ended).values_list("item", flat=True))
    cut = _cut(before, run.version)
    if cut is None:
        return fresh | {item for item, _ in before.representative}
    sure = [millionths for _, millionths in before.representative]
    stand = loop.still_stand(sure, cut)
    return fresh | {item for (item, _), stays in zip(before.representative, stand, strict=True) if stays}


def _cut(before: Round, version: LabelerVersion) -> int | None:
    """The rank of the least sure item that people left of an earlier round, had they gone strictly worst first."""
    since = Decision.objects.current().filter(
        dataset=version.dataset_id,
        pk__gt=before.run.version.decisions,
        pk__lte=version.decisions,
        sample=None,
    )
    taken = since.count()
    if not taken:
        return None
    ranks = (
        Prediction.objects.filter(run=before.run_id).order_by("rank", "item").values_list("rank", flat=True)
    )
    return next(iter(ranks[taken : taken + 1]), None)


def _answered(
    version: LabelerVersion,
    ids: list[int],
    labels: list[int],
    given: list[tuple[int, int]],
    standing: set[int],
) -> _Answered:
    number = {label: n for n, label in enumerate(labels)}
    known = {pk: number[label] for pk, label in given if label in number}
    known |= {pk: number[label] for pk, label in version.examples if label in number}
    items = sorted(known)
    if len(items) < 2:
        raise ValueError("There is nothing to learn from yet: answer at least two items.")
    answers = loop.Answers(
        np.searchsorted(ids, items).astype(np.int64),
        np.array([known[pk] for pk in items], np.int64),
        np.array([pk in standing for pk in items], bool),
    )
    return _Answered(items, answers)


def _votes(dataset: Dataset, ids: list[int], labels: list[int]) -> VoteTable | None:
    """The labels and confidences that came with the file, if there are any."""
    came = Vote.objects.filter(version__dataset=dataset, version__method="imported", label__isnull=False)
    place = {pk: i for i, pk in enumerate(ids)}
    number = {label: n for n, label in enumerate(labels)}
    classes = np.full((len(ids), 1), -1, np.int64)
    confidences = np.full((len(ids), 1), np.nan)
    found = False
    for item, label, score in came.values_list("item", "label", "score").iterator():
        if item in place and label in number:
            classes[place[item]], confidences[place[item]] = number[label], score
            found = True
    return VoteTable(classes, confidences) if found else None


@dataclass(frozen=True)
class Lesson:
    """How many of the answers are in that the next round waits for."""

    number: int
    done: int
    batch: int


def lesson(goal: Goal) -> Lesson | None:
    """The batch that people answer now; None when no round asks for one."""
    latest = goal.rounds.select_related("run__version").defer("run__version__state").last()
    if latest is None or latest.step != "go on":
        return None
    return Lesson(latest.number, min(answered_since(latest), latest.batch), latest.batch)


def answered_since(latest: Round) -> int:
    """Count the items answered since a round learned, samples included."""
    since = Decision.objects.current().filter(
        dataset=latest.run.dataset_id, pk__gt=latest.run.version.decisions
    )
    return since.exclude(outcome=Outcome.UNDO).count()

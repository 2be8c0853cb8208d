"""A round on the way to a goal: all answers teach, every open item is scored, and the planner says what is next."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from django.conf import settings
from django.db import connection
from django.db.models import Q, QuerySet

from datasets import questions
from datasets.labeling import MOST_GIVEN, ROUND, pack_scores
from datasets.models import Dataset, Item, LabelerVersion, Prediction, Run, Vote
from labelhub.autolabel import feature_store, loop, planner
from labelhub.autolabel.scorer import VoteTable
from reviews import calibrations, samples
from reviews.models import Decision, Goal, Outcome, Purpose, Remark, Round, Sample

RANDOM = (Purpose.TRAINING, Purpose.CALIBRATION)  # samples whose items stand for everything that is open
HEAVY = ("version__state", "version__examples", "version__settings")  # megabytes that no page needs


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
    firsts = Item.objects.filter(dataset=dataset, same_as=None, excluded=None)
    rows = list(firsts.order_by("pk").values_list("pk", "text", "given_label"))
    ids = [pk for pk, _, _ in rows]
    texts = [text for _, text, _ in rows]
    labels = [label for label, _, _ in version.settings["labels"]]
    given = [(pk, label) for pk, _, label in rows if label is not None][:MOST_GIVEN]
    before = _round_before(run)
    answered = _answered(version, ids, labels, given, _standing(dataset, run, before))
    features = feature_store.load_or_make(settings.LABELHUB_HOME / "features", texts)
    learned = loop.learn(
        features, answered.answers, len(labels), _votes(version, ids, labels), int(run.seed, 16)
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
    earlier = goal.rounds.filter(attempt=attempt).values_list("sample", "manual")
    costs = [manual if sample is not None else math.inf for sample, manual in earlier]
    where = calibrations.position(goal, ranks, alpha, costs)
    advice = where.advice()
    return Round(
        goal=goal, run=run, number=goal.rounds.count() + 1, attempt=attempt, items=where.items, labelled=where.labelled,
        representative=representative, expected_errors=advice.expected_errors, step=advice.step,
        batch=advice.batch, sample=advice.plan.sample if advice.plan else None, manual=advice.manual,
        saved_by_fifty=where.saved_by(loop.FIFTY), reason=advice.reason,
    )  # fmt: skip


def _round_before(run: Run) -> Round | None:
    rounds = _ended(Round.objects.filter(run__dataset=run.dataset_id, run__number__lt=run.number))
    light = rounds.select_related("run__version").defer(*(f"run__{name}" for name in HEAVY))
    return light.order_by("-run__number").first()


def _ended(rounds: QuerySet[Round]) -> QuerySet[Round]:
    """Those that people went by: their runs labeled everything."""
    return rounds.filter(run__finished_at__isnull=False, run__problem=None)


def _standing(dataset: Dataset, run: Run, before: Round | None) -> set[int]:
    """Items answered in a random sample that no round would have taken from the pool since.

    What was drawn but not answered there, because the sample was discarded, stands for nothing: whoever answers it
    later may have chosen it.
    """
    answered = Decision.objects.filter(dataset=dataset, sample__purpose__in=RANDOM).exclude(
        outcome=Outcome.UNDO
    )
    if before is None:
        return set(answered.values_list("item", flat=True))
    ended = Q(sample__closed_at__gt=before.at) | Q(sample__superseded_at__gt=before.at)
    fresh = set(answered.filter(ended).values_list("item", flat=True))
    cut = _cut(before, run.version)
    if cut is None:
        return fresh | {item for item, _ in before.representative}
    sure = [millionths for _, millionths in before.representative]
    stand = loop.still_stand(sure, cut)
    return fresh | {item for (item, _), stays in zip(before.representative, stand, strict=True) if stays}


def _cut(before: Round, version: LabelerVersion) -> int | None:
    """The rank of the least sure item that people left of an earlier round, had they gone strictly worst first."""
    scored = Prediction.objects.filter(run=before.run_id)
    since = Decision.objects.current().filter(
        dataset=version.dataset_id,
        pk__gt=before.run.version.decisions,
        pk__lte=version.decisions,
        sample=None,
        item__in=scored.values("item"),  # not one answered before that, and corrected since
    )
    taken = since.count()
    if not taken:
        return None
    ranks = scored.order_by("rank", "item").values_list("rank", flat=True)
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
    items = sorted(
        known.keys() & set(ids)
    )  # an answer to a copy, or to what nobody need label, teaches nothing
    if len(items) < 2:
        raise ValueError("There is nothing to learn from yet: answer at least two items.")
    answers = loop.Answers(
        np.searchsorted(ids, items).astype(np.int64),
        np.array([known[pk] for pk in items], np.int64),
        np.array([pk in standing for pk in items], bool),
    )
    return _Answered(items, answers)


def _votes(version: LabelerVersion, ids: list[int], labels: list[int]) -> VoteTable | None:
    """The labels and confidences that came with the file or from a language model, if there are any."""
    came = Vote.objects.filter(version__dataset=version.dataset_id, version__method="imported")
    sources = [came.filter(label__isnull=False)]
    asked = questions.of_version(version)
    set_aside = _not_counted(asked)
    for source, question in asked.items():
        if source != questions.WITHOUT_ORDERS:
            votes = Vote.objects.filter(version=question.version_id, label__isnull=False)
            sources.append(votes.exclude(item__in=set_aside) if set_aside else votes)
    place = {pk: i for i, pk in enumerate(ids)}
    number = {label: n for n, label in enumerate(labels)}
    classes = np.full((len(ids), len(sources)), -1, np.int64)
    confidences = np.full((len(ids), len(sources)), np.nan)
    for column, votes in enumerate(sources):
        for item, label, score in votes.values_list("item", "label", "score").iterator():
            if item in place and label in number:
                classes[place[item], column], confidences[place[item], column] = number[label], score
    spoke = (classes >= 0).any(axis=0)
    return VoteTable(classes[:, spoke], confidences[:, spoke]) if spoke.any() else None


def _not_counted(asked: dict[str, questions.Question]) -> list[int]:
    """Items on which a language model's word does not count, since their texts seem to have told it what to say."""
    if questions.FIRST not in asked:
        return []
    suspects = list(Vote.objects.filter(version=asked[questions.FIRST].version_id).exclude(suspect=""))
    without = questions.answered(asked[questions.WITHOUT_ORDERS], [vote.item_id for vote in suspects])
    return [vote.item_id for vote in suspects if not questions.counts(vote, without.get(vote.item_id))]


def latest(goal: Goal) -> Round | None:
    """The newest round whose run labeled everything, without what only the next one needs."""
    return _ended(goal.rounds.defer("representative")).order_by("-number").first()


def newest_run(goal: Goal) -> Run | None:
    """The run of the round that was started last, whatever became of it; with its ``round`` where it has one."""
    runs = Run.objects.filter(dataset=goal.dataset_id, version__method=ROUND, version__settings__goal=goal.pk)
    runs = runs.select_related("version", "round").defer(*HEAVY, "round__representative")
    return runs.order_by("-number").first()


@dataclass(frozen=True)
class Lesson:
    """How many of the answers are in that the next round waits for; ``number`` is that of the latest round."""

    number: int
    done: int
    batch: int


def lesson(goal: Goal) -> Lesson | None:
    """The batch that people answer now; None when no round asks for one."""
    drawn = calibrations.last_drawn(goal)
    last = newest_run(goal)
    return None if drawn is not None and is_newer(drawn, last) else lesson_after(goal, last)


def is_newer(sample: Sample, last: Run | None) -> bool:
    """Whether a sample was drawn from what the newest round said, or from a run after it: no round knows it yet."""
    return last is None or sample.run.number >= last.number


def lesson_after(goal: Goal, last: Run | None) -> Lesson | None:
    """The batch that people answer since the newest round was started.

    A round that failed or was cancelled is not tried again before there are new answers.
    """
    if last is None:
        return None
    ended = last.round if last.state == "finished" else latest(goal)
    if ended is None:
        return Lesson(1, answered_since(last), planner.LEAST_BATCH)
    batch = _batch(ended)
    return Lesson(ended.number, min(answered_since(last), batch), batch) if batch else None


def is_due(goal: Goal, last: Run) -> bool:
    """Whether the answers are in that the next round waits for."""
    ended = last.round if last.state == "finished" else latest(goal)
    batch = planner.LEAST_BATCH if ended is None else _batch(ended)
    # Nearly always too few rows came since to count answers among them: this is asked after each one.
    rows = Decision.objects.filter(pk__gt=last.version.decisions)[:batch].count()
    return rows >= batch > 0 and answered_since(last) >= batch


def _batch(ended: Round) -> int:
    """How many answers a next round waits for, also where the sample could be drawn instead; 0 where none follows."""
    if ended.step == "nothing to gain":
        return 0
    return ended.batch or planner.batch_size(ended.items, ended.labelled)


# As DecisionQuerySet.current(), but the database shall start from the newest rows, not from all of the dataset.
_SINCE = """SELECT count(*) FROM reviews_decision d WHERE d.id > %s AND +d.dataset_id = %s AND d.outcome <> 'undo'
    AND NOT EXISTS (SELECT 1 FROM reviews_decision r WHERE r.revokes_id = d.id)
    AND NOT EXISTS (SELECT 1 FROM reviews_decision o WHERE o.item_id = d.item_id AND o.id < d.id
        AND o.outcome <> 'undo' AND NOT EXISTS (SELECT 1 FROM reviews_decision r WHERE r.revokes_id = o.id))"""


def answered_since(run: Run) -> int:
    """Count the items answered since a run was started, samples included."""
    with connection.cursor() as cursor:
        cursor.execute(_SINCE, [run.version.decisions, run.dataset_id])
        return int(cursor.fetchone()[0])

"""The way to a goal: what happens by itself between two answers, and what a manager decides.

seed (random items) → rounds of learning, worst items first → calibration sample → certified threshold → review of
the rest → certificate. Everything follows from rows, so ``advance`` may be called at any time, by anybody, twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef
from django.utils import timezone

from datasets.labeling import ROUND, free_items
from datasets.models import Dataset, Run, record
from labelhub.autolabel import loop, planner
from labelhub.autolabel.rank import ACCEPT_NOTHING
from reviews import calibrations, learning, prompts, rounds, samples, tasks, thresholds, verdicts
from reviews.models import Decision, Goal, Purpose, Sample, Threshold
from reviews.validity import void_since

if TYPE_CHECKING:
    from django.contrib.auth.models import User

FIRST_METHOD = "ensemble"  # labels everything once, so that there is something to draw from and to show
UNIT = "\N{NO-BREAK SPACE}%"  # a figure and its sign stay on one line
MOST_STEPS = 4  # that can follow each other without a person or a worker in between

Step = Literal["conclude", "apply", "seed", "learn"]


class CannotPromise(Exception):
    """A goal that cannot be set; the message says why."""


def active_goal(dataset: Dataset) -> Goal | None:
    """The goal that people work towards, if the threshold goes by target."""
    return Goal.objects.active().filter(dataset=dataset).select_related("dataset").first()


def choose(dataset: Dataset, target_error: float, floor_error: float | None, by: User | None) -> Goal:
    """Set a goal, or another one, and start towards it. From here on nothing is accepted until it is proven.

    Choosing the same promise again keeps the way so far, unless that came to its end; where a run failed or was
    cancelled, the next one is started.

    Args:
        target_error: share of all labels that may be wrong, in (0, 0.5].
        floor_error: share of the labels accepted unseen that may be wrong, at least the target's, or None.
    Raises: CannotPromise, thresholds.SampleIsOpen, learning.CannotLearn, each with a sentence.
    """
    if not 0 < target_error <= 0.5:
        raise CannotPromise(f"The target is a share of right labels from 50{UNIT} to below 100{UNIT}.")
    if floor_error is not None and not target_error <= floor_error < 1:
        raise CannotPromise(
            "The accepted labels cannot be promised to be better than the whole dataset: give a smaller share."
        )
    with transaction.atomic():
        _lock(dataset.pk)
        _finish_proof(dataset)
        goal = active_goal(dataset)
        if (
            goal is None
            or (goal.target_error, goal.floor_error) != (target_error, floor_error)
            or _ended(goal)
        ):
            goal = _replace(dataset, target_error, floor_error, by)
        if not dataset.runs.active().exists():
            _start_again(goal, by)
    advance(dataset.pk)
    return goal


def _replace(dataset: Dataset, target_error: float, floor_error: float | None, by: User | None) -> Goal:
    Goal.objects.active().filter(dataset=dataset).update(left_at=timezone.now())
    goal = Goal.objects.create(dataset=dataset, target_error=target_error, floor_error=floor_error, by=by)
    record(by, dataset, "goal chosen", target_error=target_error, floor_error=floor_error)
    now = thresholds.in_force(dataset)
    if now is not None and not now.accepts_nothing:
        thresholds.move(dataset, ACCEPT_NOTHING, by)
    return goal


def _start_again(goal: Goal, by: User | None) -> None:
    """Start what a person asks for by choosing: the first run, or the round whose run came to nothing."""
    dataset = goal.dataset
    now, last = thresholds.in_force(dataset), rounds.newest_run(goal)
    if now is None or (now.run.state != "finished" and _candidate(dataset, now, last) is None):
        learning.learn(dataset, FIRST_METHOD, by)
    elif last is not None and last.state != "finished" and thresholds.open_sample(dataset) is None:
        learn_again(goal, by)


def leave(dataset: Dataset, by: User | None) -> bool:
    """Go by hand from now on; False when the threshold did so already.

    Raises: thresholds.SampleIsOpen while the sample that shall prove it is answered: nobody would look at it.
    """
    with transaction.atomic():
        _lock(dataset.pk)
        _finish_proof(dataset)
        return thresholds.leave_goal(dataset, by)


def prove(dataset: Dataset, by: User | None) -> Sample:
    """Freeze labels and order, and draw the sample that proves a threshold.

    Raises: CannotPromise without a goal; tasks.RunIsActive, thresholds.SampleIsOpen, samples.NothingToDraw,
        calibrations.NothingToPlan, each with a sentence.
    """
    advance(dataset.pk)
    with transaction.atomic():
        _lock(dataset.pk)
        goal = active_goal(dataset)
        if goal is None:
            raise CannotPromise("Choose a promise first.")
        thresholds.check_no_sample(dataset)
        _check_no_run(dataset)
        now = thresholds.in_force(dataset)
        if now is not None and proven(goal, now):
            raise calibrations.NothingToPlan("A threshold is proven already.")
        if len(calibrations.failed_attempts(goal)) >= loop.ATTEMPTS:
            raise calibrations.NothingToPlan(
                f"{loop.ATTEMPTS} samples proved nothing: choose another promise."
            )
        return calibrations.draw(goal, by)


def advance(dataset_id: int) -> None:
    """Do what is due and needs no person: conclude a sample, put a round in force, draw the seed, learn again."""
    for _ in range(MOST_STEPS):
        goal = _idle_goal(dataset_id)
        step = due(goal) if goal is not None else None
        if step is None:
            return
        try:
            with transaction.atomic():
                _lock(dataset_id)
                goal = _idle_goal(dataset_id)
                if goal is None or due(goal) != step:
                    return  # whoever came first did it
                _do(step, goal)
        except (
            thresholds.SampleIsOpen, tasks.RunIsActive, learning.CannotLearn, samples.NothingToDraw, IntegrityError,
        ):  # fmt: skip
            return  # a person came first, or nothing is left to learn or to draw: ``place`` says which


def _idle_goal(dataset_id: int) -> Goal | None:
    """The active goal of a dataset that neither has a run under way nor an open sample: one statement."""
    run = Run.objects.active().filter(dataset=OuterRef("dataset"))
    sample = Sample.objects.open().filter(dataset=OuterRef("dataset"))
    goals = Goal.objects.active().filter(~Exists(run), ~Exists(sample), dataset=dataset_id)
    return goals.select_related("dataset").first()


def due(goal: Goal) -> Step | None:
    """What shall happen next without a person, while no run is under way and no sample is open. Reads only."""
    dataset = goal.dataset
    now = thresholds.in_force(dataset)
    if now is None or proven(goal, now):
        return None
    drawn = calibrations.last_drawn(goal)
    complete = drawn is not None and drawn.closed_at is not None and drawn.run_id == now.run_id
    if drawn is not None and complete and not calibrations.is_concluded(drawn):
        return "conclude"
    last = rounds.newest_run(goal)
    if _candidate(dataset, now, last) is not None:
        return "apply"
    if now.run.state != "finished":
        return None  # the first labeling failed or was cancelled: a person must look
    if drawn is not None and rounds.is_newer(drawn, last):  # it proved nothing, but its answers teach
        return "learn" if len(calibrations.failed_attempts(goal)) < loop.ATTEMPTS else None
    if last is None:
        answered, wanted = seed(dataset)
        return "seed" if answered < wanted else "learn"
    return "learn" if rounds.is_due(goal, last) else None


def _candidate(dataset: Dataset, now: Threshold, last: Run | None) -> Run | None:
    """The finished run that takes force by itself: a round, or the first labeling where another one failed."""
    if last is not None and last.state == "finished" and last.number > now.run.number:
        return last
    if now.run.state == "finished":
        return None
    newer = dataset.runs.filter(
        number__gt=now.run.number, finished_at__isnull=False, problem=None, trial=False
    )
    return newer.order_by("-number").first()


def _do(step: Step, goal: Goal) -> None:
    dataset, now = goal.dataset, thresholds.in_force(goal.dataset)
    assert now is not None
    if step == "conclude":
        drawn = calibrations.last_drawn(goal)
        assert drawn is not None
        calibrations.conclude(drawn)
    elif step == "apply":
        thresholds.move(dataset, ACCEPT_NOTHING, None, run=_candidate(dataset, now, rounds.newest_run(goal)))
    elif step == "seed":
        answered, wanted = seed(dataset)
        samples.draw_to_teach(dataset, now, None, wanted - answered)
    else:
        learn_again(goal, None)


def proven(goal: Goal, now: Threshold) -> bool:
    """Whether a sample of this goal proved the threshold in force, or a lower one."""
    return (
        now.sample is not None
        and now.sample.purpose == Purpose.CALIBRATION
        and now.sample.drawn_at >= goal.at
    )


def _ended(goal: Goal) -> bool:
    """Whether nothing more can come of a goal: what it proved is lost, or its attempts are used up."""
    now = thresholds.in_force(goal.dataset)
    if now is not None and now.sample is not None and proven(goal, now):
        return bool(why_lost(now.sample))
    return len(calibrations.failed_attempts(goal)) >= loop.ATTEMPTS


def why_lost(proof: Sample) -> str:
    """Why what a calibration sample proved is not to be built upon any more, as a sentence; empty while it is."""
    gone = void_since(proof)
    if gone:
        return gone
    checks = Sample.objects.filter(dataset=proof.dataset_id, purpose=Purpose.SPOT_CHECK, pk__gt=proof.pk)
    last = checks.filter(closed_at__isnull=False).select_related("verdict").order_by("-pk").first()
    if last is None:
        return ""
    if hasattr(last, "verdict") and not last.verdict.approved:
        return "A manager rejected the labels after a spot check."
    seen = samples.count(last)
    if verdicts.alarms(last, seen):
        return f"The spot check found {seen.errors:,} of {seen.size:,} labels wrong, more than was promised."
    return ""


def seed(dataset: Dataset) -> tuple[int, int]:
    """How many random items have an answer, and how many shall have before a first round judges itself by them."""
    items, labels = free_items(dataset).count(), dataset.labels.filter(retired_at=None).count()
    random = Decision.objects.current().filter(dataset=dataset, sample__purpose__in=rounds.RANDOM)
    return random.count(), planner.seed_size(items, labels)


def learn_again(goal: Goal, by: User | None, rings: bool = True) -> Run:
    """Start a round: learn from all answers and score what is open, in the background.

    Raises: thresholds.SampleIsOpen, tasks.RunIsActive, learning.CannotLearn.
    """
    dataset = goal.dataset
    with transaction.atomic():
        thresholds.check_no_sample(dataset)
        _check_no_run(dataset)
        version = learning.make_version(dataset, ROUND, {"goal": goal.pk} | prompts.heard_before(dataset))
        return tasks.start(dataset, version, by, rings)


def _lock(dataset_id: int) -> None:
    """Let one at a time decide what is next on a dataset; answers go on meanwhile. SQLite writes one at a time anyway."""
    Dataset.objects.select_for_update(no_key=True).only("pk").get(pk=dataset_id)


def _check_no_run(dataset: Dataset) -> None:
    active = dataset.runs.active().first()
    if active is not None:
        raise tasks.RunIsActive(active)


def _finish_proof(dataset: Dataset) -> None:
    """Raise SampleIsOpen while a sample that says something about the labels is answered; a lane to teach is none.

    One that is complete but was not looked at yet is looked at: nobody would do it once its goal is gone.
    """
    sample = thresholds.open_sample(dataset)
    if sample is not None and sample.purpose != Purpose.TRAINING:
        thresholds.check_no_sample(dataset)
    goal = _idle_goal(dataset.pk)
    if goal is not None and due(goal) == "conclude":
        _do("conclude", goal)

"""The way to a goal in a few rows: answers, samples and rounds as people and workers would have left them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import pytest
from django.utils import timezone

from datasets import slices
from datasets.labeling import ROUND, free_items
from datasets.models import Item, Prediction, Run
from labelhub.autolabel.rank import ACCEPT_NOTHING, to_rank
from reviews import calibrations, decisions, path, samples, tasks, thresholds
from reviews.models import Decision, Goal, Purpose, Round, Sample, Threshold
from tests.reviews.conftest import World


def fix_seeds(patch: pytest.MonkeyPatch) -> None:
    """The same draws and folds every time."""
    dice = random.Random(1)
    patch.setattr(samples.secrets, "randbits", dice.getrandbits)
    patch.setattr(tasks.secrets, "token_hex", lambda n: f"{dice.getrandbits(8 * n):0{2 * n}x}")


def once_labeled(make_world: Callable[..., World]) -> World:
    """120 items that were labeled once; 15 are accepted at 0.85."""
    return make_world([i / 140 + 0.02 for i in range(120)])


def with_seed(world: World, floor_error: float | None = 0.5) -> World:
    """A goal whose 60 random answers are in, and whose first round is under way: as ``choose`` and ``advance`` do."""
    goal = Goal.objects.create(dataset=world.dataset, target_error=0.2, floor_error=floor_error)
    now = thresholds.move(world.dataset, ACCEPT_NOTHING, None)
    samples.draw_to_teach(world.dataset, now, None, 60)
    finish(world, advance=False)
    path.learn_again(goal, None, rings=False)
    return world


def with_proof_open(world: World, floor_error: float | None = 0.5) -> World:
    """A goal whose first calibration sample is open."""
    run = work(with_seed(world, floor_error), "certify now", advance=False)
    thresholds.move(world.dataset, ACCEPT_NOTHING, None, run=run)
    calibrations.draw(Goal.objects.get(), None)
    return world


def say(
    world: World, items: Iterable[Item], sample: Sample | None = None, wrong: int = 0, outcome: str = "label"
) -> None:
    """Answer items as the machine did, but for the first few: all at once, as ``decide`` would one by one."""
    now = thresholds.in_force(world.dataset)
    assert now is not None
    said = {p.item_id: p for p in Prediction.objects.filter(run=now.run)}
    items, by_id, (first, second, *_) = list(items), {label.pk: label for label in world.labels}, world.labels
    Decision.objects.bulk_create(
        Decision(
            dataset=world.dataset, item=item, reviewer=world.people["reviewer"], outcome=outcome, run=now.run,
            purpose=sample.purpose if sample else Purpose.REVIEW, sample=sample, decided_at=timezone.now(),
            machine_label_id=said[item.pk].label_id, machine_rank=said[item.pk].rank,
            label=None if outcome != "label" else (second if said[item.pk].label_id == first.pk else first)
            if n < wrong else by_id[said[item.pk].label_id],
        )
        for n, item in enumerate(items)
    )  # fmt: skip
    decisions.settle(world.dataset.pk, [item.pk for item in items])


def finish(world: World, wrong: int = 0, surest: bool = True, advance: bool = True) -> Sample:
    """Answer the open sample: the machine was wrong about so many items, the surest of them or the others."""
    sample = thresholds.open_sample(world.dataset)
    assert sample is not None
    drawn = sample.drawn.select_related("item").order_by("-machine_rank" if surest else "machine_rank")
    say(world, [one.item for one in drawn], sample, wrong)
    assert samples.close_when_answered(sample)
    if advance:
        path.advance(world.dataset.pk)
    sample.refresh_from_db()
    return sample


def worst(world: World, n: int) -> list[Item]:
    now = thresholds.in_force(world.dataset)
    assert now is not None
    still = Prediction.objects.filter(run=now.run, open=True).order_by("rank", "item").select_related("item")
    return [one.item for one in still[:n]]


def work(
    world: World, step: str = "go on", batch: int = 5, problem: str | None = None, advance: bool = True
) -> Run:
    """End the round that was started as a worker would, with what the planner is taken to say."""
    run = world.dataset.runs.active().get()
    assert run.version.method == ROUND
    goal = Goal.objects.get(pk=run.version.settings["goal"])
    if problem is not None:
        slices.fail(run, problem)
        return run
    items = list(tasks.to_label(world.dataset, run.version).order_by("pk"))
    Prediction.objects.bulk_create(
        Prediction(
            run=run, item=item, label=world.labels[n % 2], rank=to_rank(0.8 + 0.19 * n / len(items), n)
        )
        for n, item in enumerate(items)
    )
    decisions.settle(world.dataset.pk, [item.pk for item in items])
    run.slices.update(done_at=timezone.now())
    Round.objects.create(
        goal=goal, run=run, number=goal.rounds.count() + 1, attempt=samples.next_attempt(world.dataset)[0],
        items=free_items(world.dataset).count(), labelled=free_items(world.dataset).count() - len(items),
        expected_errors=7.4, step=step, batch=batch if step == "go on" else 0, sample=20, manual=60.0,
        saved_by_fifty=2.0, reason="-",
    )  # fmt: skip
    assert slices.finish(run)
    if advance:
        path.advance(world.dataset.pk)
    return run


def latest(world: World) -> Threshold:
    now = thresholds.in_force(world.dataset)
    assert now is not None
    return now


def purposes(world: World) -> list[str]:
    return list(world.dataset.samples.order_by("pk").values_list("purpose", flat=True))

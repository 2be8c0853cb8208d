"""What may be promised when: the sample that proves, what it proves, and what follows where it proves nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from django.utils import timezone

from datasets import slices
from datasets.labeling import ROUND
from datasets.models import Item, Label, Prediction
from labelhub.autolabel.rank import ACCEPT_NOTHING, to_rank
from reviews import calibrations, decisions, learning, path, samples, thresholds, verdicts
from reviews.models import Decision, Goal, Purpose, Sample, Threshold
from reviews.states import states
from tests.reviews.conftest import World
from tests.reviews.guided import (
    finish,
    fix_seeds,
    latest,
    once_labeled,
    say,
    with_proof_open,
    with_seed,
    work,
    worst,
)

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def dice(monkeypatch: pytest.MonkeyPatch) -> None:
    fix_seeds(monkeypatch)


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return once_labeled(make_world)


@pytest.fixture
def taught(world: World) -> World:
    return with_seed(world)


@pytest.fixture
def drawn(world: World) -> World:
    return with_proof_open(world)


# What a manager may do when


def test_a_promise_is_refused_while_a_sample_that_says_something_is_open(world: World) -> None:
    manager = world.people["manager"]
    samples.draw_spot_check(world.dataset, world.threshold, manager)
    with pytest.raises(thresholds.SampleIsOpen):
        path.choose(world.dataset, 0.2, None, manager)
    assert not Goal.objects.exists() and latest(world) == world.threshold


def test_while_the_proof_is_answered_the_promise_stays(drawn: World) -> None:
    manager = drawn.people["manager"]
    for act in (
        lambda: path.choose(drawn.dataset, 0.1, None, manager),
        lambda: path.leave(drawn.dataset, manager),
        lambda: path.prove(drawn.dataset, manager),
        lambda: learning.learn(drawn.dataset, "ensemble", manager, rings=False),
        lambda: thresholds.move(drawn.dataset, to_rank(0.9), manager),
    ):
        with pytest.raises(thresholds.SampleIsOpen):
            act()
    assert Goal.objects.active().get().target_error == 0.2
    assert latest(drawn).accepts_nothing


def test_a_complete_sample_is_looked_at_before_its_promise_goes(drawn: World) -> None:
    sample = finish(drawn, advance=False)
    assert path.leave(drawn.dataset, drawn.people["manager"])
    assert latest(drawn).sample_id == sample.pk
    assert not path.leave(drawn.dataset, drawn.people["manager"])


def test_the_same_promise_again_keeps_the_way_so_far(drawn: World) -> None:
    manager, goal = drawn.people["manager"], path.active_goal(drawn.dataset)
    finish(drawn)
    proof = latest(drawn)
    assert proof.sample is not None
    assert path.choose(drawn.dataset, 0.2, 0.5, manager) == goal
    assert latest(drawn) == proof, "a second click must not throw the proof away"
    other = path.choose(drawn.dataset, 0.2, None, manager)
    assert other != goal and Goal.objects.active().get() == other
    assert latest(drawn).accepts_nothing and latest(drawn).by == manager
    assert drawn.dataset.runs.active().get().version.settings["goal"] == other.pk, "all answers teach at once"
    work(drawn, "certify now")
    assert path.prove(drawn.dataset, manager).attempt == 2


@pytest.mark.parametrize("lost", ["label", "verdict", "alarm"])
def test_a_promise_whose_proof_is_lost_starts_anew_when_chosen_again(drawn: World, lost: str) -> None:
    manager, goal = drawn.people["manager"], path.active_goal(drawn.dataset)
    sample = finish(drawn)
    if lost == "label":
        Label.objects.filter(pk=drawn.labels[1].pk).update(retired_at=timezone.now())
    else:
        check = samples.draw_spot_check(drawn.dataset, latest(drawn), manager)
        finish(drawn, wrong=0 if lost == "verdict" else check.size)
    if lost == "verdict":
        check.refresh_from_db()
        verdicts.reject(check, manager)
    assert path.why_lost(sample)
    again = path.choose(drawn.dataset, 0.2, 0.5, manager)
    assert again != goal and latest(drawn).accepts_nothing
    assert drawn.dataset.runs.active().get().version.settings["goal"] == again.pk


def test_another_threshold_by_hand_leaves_the_path_unless_it_only_raises_a_proven_one(drawn: World) -> None:
    manager, sample = drawn.people["manager"], finish(drawn)
    up = thresholds.move(drawn.dataset, latest(drawn).rank + 10**6, manager)
    assert up.sample_id == sample.pk and path.active_goal(drawn.dataset) is not None
    thresholds.move(drawn.dataset, 1, manager)
    assert path.active_goal(drawn.dataset) is None
    path.advance(drawn.dataset.pk)
    assert latest(drawn).rank == 1 and not drawn.dataset.runs.active().exists()


def test_label_again_by_hand_changes_nothing_on_the_path_before_it_is_applied(taught: World) -> None:
    run, manager = work(taught), taught.people["manager"]
    by_hand = learning.learn(taught.dataset, "weak_model", manager, rings=False)
    by_hand.slices.update(done_at=timezone.now())
    slices.finish(by_hand)
    path.advance(taught.dataset.pk)
    assert latest(taught).run_id == run.pk
    say(taught, worst(taught, 5))
    path.advance(taught.dataset.pk)
    assert taught.dataset.runs.active().get().version.method == ROUND
    work(taught)
    by_hand.refresh_from_db()
    learning.apply(taught.dataset, by_hand, manager)
    assert path.active_goal(taught.dataset) is None


def test_accepting_nothing_again_after_a_proof_goes_on_from_there(drawn: World) -> None:
    finish(drawn)
    thresholds.undo_move(drawn.dataset, drawn.people["manager"])
    path.advance(drawn.dataset.pk)
    assert latest(drawn).accepts_nothing
    assert drawn.dataset.runs.active().get().version.method == ROUND


# The second attempt


def test_a_sample_that_proves_nothing_teaches_and_the_last_attempt_is_tested_more_strictly(
    drawn: World,
) -> None:
    first = finish(drawn, wrong=30)
    assert latest(drawn).accepts_nothing and calibrations.result(first).problem == "floor"
    run = drawn.dataset.runs.active().get()
    known = dict(run.version.examples)
    assert all(known[one.item_id] for one in first.drawn.all())
    assert len(known) == 60 + first.size
    work(drawn, "certify now")
    say(drawn, worst(drawn, 2))
    second = path.prove(drawn.dataset, drawn.people["manager"])
    assert (first.attempt, second.attempt) == (1, 2)
    assert [first.alpha, second.alpha] == pytest.approx([0.04, 0.008])
    assert second.seed != first.seed and second.run_id == run.pk
    assert second.pool == 120 - 60 - first.size - 2
    decided = set(Decision.objects.values_list("item", flat=True))
    assert not decided & set(second.drawn.values_list("item", flat=True))
    finish(drawn, wrong=30)
    assert latest(drawn).accepts_nothing and not drawn.dataset.runs.active().exists()
    with pytest.raises(calibrations.NothingToPlan, match="proved nothing"):
        path.prove(drawn.dataset, drawn.people["manager"])
    say(drawn, worst(drawn, 5))
    path.advance(drawn.dataset.pk)
    assert drawn.dataset.runs.count() == 3 and drawn.dataset.samples.count() == 3
    goal = path.choose(drawn.dataset, 0.2, 0.5, drawn.people["manager"])  # from here on it is a new one
    assert not goal.rounds.exists() and drawn.dataset.runs.active().exists()
    work(drawn, "certify now")
    assert samples.next_attempt(drawn.dataset)[0] == 3


@pytest.mark.parametrize("answers", [0, 7])
def test_a_discarded_sample_is_learned_from_and_its_alpha_is_spent(drawn: World, answers: int) -> None:
    manager = drawn.people["manager"]
    sample = thresholds.open_sample(drawn.dataset)
    assert sample is not None
    say(drawn, [one.item for one in sample.drawn.select_related("item")[:answers]], sample)
    samples.discard(drawn.dataset, manager)
    goal = path.active_goal(drawn.dataset)
    assert goal is not None and not calibrations.failed_attempts(goal)
    path.advance(drawn.dataset.pk)
    assert len(drawn.dataset.runs.active().get().version.examples) == 60 + answers
    work(drawn, "certify now")
    again = path.prove(drawn.dataset, manager)
    assert (again.attempt, again.pool) == (2, 60 - answers)
    assert again.size > sample.size, "a stricter test asks for more"


def test_a_threshold_is_proven_once(drawn: World) -> None:
    finish(drawn)
    with pytest.raises(calibrations.NothingToPlan, match="already"):
        path.prove(drawn.dataset, drawn.people["manager"])
    assert samples.next_attempt(drawn.dataset)[0] == 2


# What is drawn from, and what it may cost


def test_the_pool_is_what_could_be_accepted_and_the_rest_counts_as_peoples(
    make_world: Callable[..., World],
) -> None:
    world = make_world([0.9] * 100)
    given, copy, retired, failed, asked, left_out, unsure, answered = world.items[:8]
    old = Label.objects.create(dataset=world.dataset, name="old", position=9, retired_at=timezone.now())
    Item.objects.filter(pk=given.pk).update(given_label=world.labels[0])
    Item.objects.filter(pk=copy.pk).update(same_as=answered)
    Prediction.objects.filter(item=retired).update(label=old)
    Prediction.objects.filter(item=failed).update(label=None, problem="refused", rank=0)
    decisions.remark(asked, world.people["reviewer"], "ask")
    say(world, [left_out], outcome="exclude")
    say(world, [unsure], outcome="cant_tell")
    say(world, [answered])
    decisions.settle(world.dataset.pk, [given.pk, copy.pk])
    goal = Goal.objects.create(dataset=world.dataset, target_error=0.2)
    thresholds.move(world.dataset, ACCEPT_NOTHING, None)
    where = calibrations.position(goal, [to_rank(0.9)] * 92, 0.04, [])
    assert (where.items, where.labelled) == (98, 6), "neither given labels nor copies are promised (E9, E15)"
    sample = calibrations.draw(goal, None)
    assert sample.pool == 92
    calibrations.conclude(finish(world, advance=False))
    stand = set(thresholds.accepted(latest(world)).values_list("item", flat=True))
    assert not stand & {item.pk for item in world.items[:8]} and len(stand) == 92 - sample.size
    assert states(world.dataset).flagged == 3, "the certificate waits for what was asked, failed or retired"


def test_labels_that_nobody_can_give_are_no_part_of_the_budget(make_world: Callable[..., World]) -> None:
    world = make_world([0.9] * 100)
    goal = Goal.objects.create(dataset=world.dataset, target_error=0.1)
    say(world, world.items[:15])
    assert calibrations.position(goal, [to_rank(0.9)] * 85, 0.04, []).budget == 10
    say(world, world.items[15:18], outcome="cant_tell")
    say(world, world.items[18:20], outcome="exclude")
    # 5 of 20 answers gave no label, and of the 30 that are still to come to half the work as many will not: 12.5.
    assert calibrations.position(goal, [to_rank(0.9)] * 80, 0.04, []).budget == 8


# What a closed sample says


def draw(world: World, size: int, budget: int, allowed: int, floor: float | None = None) -> Sample:
    now = latest(world)
    terms = samples.Plan(0, size, 1, 0.04, budget, allowed, 0.1, floor)
    return samples.draw(
        now, Purpose.CALIBRATION, thresholds.accepted(now, 0), lambda n: replace(terms, pool=n), None
    )


@pytest.fixture
def small(make_world: Callable[..., World]) -> World:
    """20 items, surest last; nothing is accepted."""
    world = make_world([0.5 + n / 50 for n in range(20)])
    thresholds.move(world.dataset, ACCEPT_NOTHING, None)
    return world


def rank_of(sample: Sample, place: int) -> int:
    return sorted(sample.drawn.values_list("machine_rank", flat=True), reverse=True)[place]


def test_the_proven_threshold_is_just_above_the_first_error_too_many(small: World) -> None:
    sample = draw(small, 10, 2, 1)
    sample = finish(small, wrong=3)
    result = calibrations.result(sample)
    assert result.rank == rank_of(sample, 1) + 1 and result.problem == ""
    assert (result.seen.errors, result.seen.size) == (3, 10)
    assert calibrations.conclude(sample) is not None
    assert latest(small).rank == result.rank
    assert thresholds.accepted(latest(small)).count() == result.accepted


@pytest.mark.parametrize("outcome", ["cant_tell", "exclude"])
def test_an_answer_without_a_label_counts_as_wrong(small: World, outcome: str) -> None:
    sample = draw(small, 10, 2, 0)
    items = [one.item for one in sample.drawn.order_by("-machine_rank").select_related("item")]
    say(small, items[:1], sample)
    say(small, items[1:2], sample, outcome=outcome)
    say(small, items[2:], sample)
    samples.close_when_answered(sample)
    sample.refresh_from_db()
    assert calibrations.wrong_ranks(sample) == [rank_of(sample, 1)]
    assert calibrations.result(sample).seen.errors == 1


@pytest.mark.parametrize(
    ("size", "budget", "allowed", "floor", "wrong", "problem"),
    [
        (10, 2, -1, None, 0, "sample"),
        (20, 2, 20, None, 0, "nothing left"),
        (18, 2, 0, None, 18, "errors"),
        (10, 2, 0, 0.1, 0, "floor"),  # 10 labels stand, and 20 are needed
        (10, 2, 0, 0.2, 0, ""),
    ],
)
def test_why_nothing_is_proven(
    small: World, size: int, budget: int, allowed: int, floor: float | None, wrong: int, problem: str
) -> None:
    if problem == "errors":  # the two that are not drawn are the least sure
        Prediction.objects.filter(item__in=small.items[:2]).update(rank=0)
    sample = draw(small, size, budget, allowed, floor)
    if problem == "errors":
        Prediction.objects.exclude(item__in=sample.drawn.values("item")).update(rank=0)
    sample = finish(small, wrong=wrong)
    result = calibrations.result(sample)
    assert result.problem == problem and bool(result.sentence) == bool(problem)
    threshold = calibrations.conclude(sample)
    assert (threshold is None) == bool(problem) == latest(small).accepts_nothing


def test_what_it_says_never_changes(small: World) -> None:
    early = small.items[19]
    say(small, [early])
    sample = draw(small, 8, 1, 0, 0.1)  # ten labels are needed, and eleven stand
    sample = finish(small)
    said = calibrations.result(sample)
    assert (said.accepted, said.needed) == (11, 10)
    calibrations.conclude(sample)
    undrawn = [item for item in small.items if not sample.drawn.filter(item=item).exists() and item != early]
    say(small, undrawn[:5])
    decisions.remark(undrawn[6], small.people["reviewer"], "ask")
    last = Decision.objects.get(item=early)
    assert decisions.undo(small.dataset, small.people["reviewer"], uuid=last.uuid)
    assert calibrations.result(sample) == said, (
        "an item that was decided at the draw is not in the pool (E11)"
    )


def test_it_is_looked_at_once_and_never_after_another_threshold(small: World) -> None:
    sample = draw(small, 8, 1, 0)
    assert calibrations.conclude(sample) is None and not calibrations.is_concluded(sample)
    sample = finish(small)
    thresholds.move(small.dataset, to_rank(0.99), small.people["manager"])
    assert calibrations.conclude(sample) is None
    assert latest(small).rank == to_rank(0.99) and calibrations.is_concluded(sample)
    thresholds.move(small.dataset, ACCEPT_NOTHING, small.people["manager"])
    assert calibrations.conclude(sample) is None


def test_concluding_twice_adds_one_row(small: World) -> None:
    sample = draw(small, 8, 1, 0)
    sample = finish(small)
    first = calibrations.conclude(sample)
    assert first is not None and calibrations.conclude(sample) == first
    assert Threshold.objects.filter(sample=sample).count() == 1

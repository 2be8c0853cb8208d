"""What a round learns from, what it scores, and how many answers the next one waits for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from datasets.labeling import ROUND
from datasets.models import Dataset, Item, Prediction, Run
from labelhub.autolabel.labelers.state import read_state
from labelhub.autolabel.rank import ACCEPT_NOTHING, to_rank
from reviews import decisions, path, place, rounds, samples, tasks, thresholds
from reviews.models import Decision, Goal, Purpose, Remark, Round
from tests.reviews.conftest import World
from tests.reviews.guided import finish, fix_seeds, latest, say, work, worst
from tests.reviews.things import WORDS, import_rows, things

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def dice(monkeypatch: pytest.MonkeyPatch) -> None:
    fix_seeds(monkeypatch)


def kind(item: Item) -> str:
    return next(kind for kind, words in WORDS.items() if any(word in item.text for word in words))


def answer(dataset: Dataset, items: Any, boss: User, label: str = "") -> None:
    labels = {label.name: label for label in dataset.labels.all()}
    for item in items:
        decisions.decide(item, boss, "label", labels[label or kind(item)])


def fit(dataset: Dataset, target_error: float = 0.2) -> tuple[dict[int, tuple[str, int]], Round]:
    """Learn once: what is said of each item (label and rank), and the round."""
    goal = path.active_goal(dataset) or Goal.objects.create(dataset=dataset, target_error=target_error)
    run = path.learn_again(goal, None, rings=False)
    state, this_round = rounds.fit(run, tasks.to_label(dataset, run.version))
    names = dict(dataset.labels.values_list("pk", "name"))
    _, arrays = read_state(state)
    said = zip(*(arrays[key].tolist() for key in ("items", "labels", "ranks")), strict=True)
    return {item: (names[label], rank) for item, label, rank in said}, this_round


# What it learns from


def test_it_learns_from_answers_and_votes_and_scores_every_open_first(tmp_path: Path, boss: User) -> None:
    rows = [f"{row.split(',')[0]},{('fruit', 'tool')[n % 2]},0.9" for n, row in enumerate(things(40))]
    rows += ["of unknown kind,odd,0.5", *rows[:2]]
    columns = {"predicted": "predicted", "confidence": "confidence"}
    dataset = import_rows(tmp_path, rows, "text,predicted,confidence", **columns)
    firsts = list(Item.objects.filter(dataset=dataset, same_as=None).order_by("pk"))
    copy = Item.objects.exclude(same_as=None).latest("pk")
    odd = dataset.labels.get(name="odd")
    answer(dataset, firsts[:16], boss)
    decisions.decide(firsts[16], boss, "cant_tell")
    decisions.decide(firsts[17], boss, "label", odd)
    answer(dataset, [copy], boss, "tool")  # to a copy: its first has another answer
    decisions.remark(firsts[20], boss, "ask")
    odd.retired_at = timezone.now()
    odd.save()
    said, this_round = fit(dataset)
    assert set(said) == {item.pk for item in firsts[18:]}
    assert sum(said[item.pk][0] == kind(item) for item in firsts[18:40]) >= 20
    assert "odd" not in {label for label, _ in said.values()}
    assert (this_round.items, this_round.labelled) == (41, 19), (
        "asked for: not in the pool, but in the promise"
    )
    assert this_round.representative == [], "nothing was drawn at random"


def test_given_labels_teach_and_are_not_promised(tmp_path: Path, boss: User) -> None:
    dataset = import_rows(tmp_path, things(40, 20), "text,label", label="label")
    said, this_round = fit(dataset)
    assert len(said) == 20 and (this_round.items, this_round.labelled) == (20, 0)
    assert all(said[item.pk][0] == kind(item) for item in dataset.items.filter(pk__in=said))


def test_one_class_is_all_that_it_can_say_where_people_named_no_other(tmp_path: Path, boss: User) -> None:
    dataset = import_rows(tmp_path, [row.split(",")[0] for row in things(12)])
    answer(dataset, dataset.items.order_by("pk")[:4:2], boss)
    said, this_round = fit(dataset)
    assert {label for label, _ in said.values()} == {"fruit"} and len(said) == 10
    assert this_round.step in ("go on", "nothing to gain")


def test_a_seed_that_nobody_could_tell_teaches_nothing_and_says_so(tmp_path: Path, boss: User) -> None:
    dataset = import_rows(tmp_path, [row.split(",")[0] for row in things(80)])
    first = tasks.work_here(path.choose(dataset, 0.2, None, boss).dataset.runs.get())
    path.advance(dataset.pk)
    sample = thresholds.open_sample(dataset)
    assert sample is not None
    for one in sample.drawn.select_related("item"):
        Decision.objects.create(
            dataset=dataset, item=one.item, reviewer=boss, purpose=Purpose.TRAINING, outcome="cant_tell",
            sample=sample, decided_at=timezone.now(),
        )  # fmt: skip
    decisions.settle(dataset.pk, sample.drawn.values_list("item", flat=True))
    samples.close_when_answered(sample)
    path.advance(dataset.pk)
    failed = tasks.work_here(dataset.runs.active().get())
    path.advance(dataset.pk)
    assert dataset.runs.count() == 2 and failed.state == "failed"
    now = thresholds.in_force(dataset)
    assert now is not None and now.run_id == first.pk
    goal = path.active_goal(dataset)
    assert goal is not None
    here = place.where(goal)
    assert "answer at least two items" in here.here and (here.act, here.done, here.total) == ("review", 0, 10)


# Which answers stand for the pool


def standing(world: World) -> set[int]:
    run = world.dataset.runs.active().get()
    return rounds._standing(world.dataset, run, rounds._round_before(run))


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """90 items, labeled once; the goal's 60 random answers are in, and the first round is under way."""
    world = make_world([0.3 + n / 200 for n in range(90)])
    path.choose(world.dataset, 0.2, 0.5, world.people["manager"])
    finish(world)
    return world


@pytest.mark.parametrize("corrected", [False, True])
def test_random_answers_stand_until_a_batch_would_have_taken_them(world: World, corrected: bool) -> None:
    seed = list(Item.objects.filter(samplings__sample__purpose=Purpose.TRAINING).order_by("pk"))
    assert standing(world) == {item.pk for item in seed}
    run = work(world, batch=10)
    pairs = [[item.pk, 400_000 + 50_000 * n] for n, item in enumerate(seed[:10])]  # as sure as 0.40 … 0.85
    Round.objects.filter(run=run).update(representative=pairs)
    order = worst(world, 11)
    Prediction.objects.filter(run=run, item__in=order[:10]).update(rank=to_rank(0.2))
    Prediction.objects.filter(run=run, item=order[10]).update(rank=to_rank(0.62))
    if corrected:  # an answer from before takes nothing from the pool
        decisions.decide(seed[20], world.people["reviewer"], "label", world.labels[1])
    say(world, order[: 9 if corrected else 10])
    path.advance(world.dataset.pk)
    say(world, worst(world, 3))  # while it learns: these are the next round's
    assert standing(world) == {item.pk for item in seed[0 if corrected else 5 : 10]}


def test_an_item_of_a_discarded_sample_stands_only_if_it_was_answered_there(world: World) -> None:
    work(world, "certify now")
    sample = path.prove(world.dataset, world.people["manager"])
    drawn = [one.item for one in sample.drawn.select_related("item")]
    say(world, drawn[:4], sample)
    samples.discard(world.dataset, world.people["manager"])
    say(world, drawn[4:6])  # chosen by whoever answered them
    path.advance(world.dataset.pk)
    assert standing(world) == {item.pk for item in drawn[:4]}


def test_a_round_whose_run_was_cancelled_is_no_round_that_people_went_by(world: World) -> None:
    first = work(world)
    say(world, worst(world, 5))
    path.advance(world.dataset.pk)
    second = work(world, advance=False)
    Run.objects.filter(pk=second.pk).update(finished_at=None, cancelled_at=timezone.now())
    goal = path.active_goal(world.dataset)
    assert goal is not None
    latest_round = rounds.latest(goal)
    assert latest_round is not None and latest_round.run_id == first.pk
    path.advance(world.dataset.pk)
    assert latest(world).run_id == first.pk
    say(world, worst(world, 5))
    path.advance(world.dataset.pk)
    before = rounds._round_before(world.dataset.runs.active().get())
    assert before is not None and before.run_id == first.pk


# How many answers the next one waits for


def lesson(world: World) -> tuple[int, int] | None:
    goal = path.active_goal(world.dataset)
    assert goal is not None
    found = rounds.lesson(goal)
    return (found.done, found.batch) if found else None


def test_a_batch_counts_items_and_an_undo_takes_one_back(world: World) -> None:
    assert lesson(world) == (0, 10), "as long as the first round is under way"
    work(world, batch=4)
    assert lesson(world) == (0, 4)
    one, two, three, *_ = worst(world, 5)
    for person in ("reviewer", "second"):
        decisions.decide(one, world.people[person], "label", world.labels[0])
    decisions.decide(two, world.people["reviewer"], "cant_tell")
    decisions.decide(three, world.people["reviewer"], "exclude")
    assert lesson(world) == (3, 4), "two readings of one item are one answer"
    decisions.undo(world.dataset, world.people["reviewer"])
    assert lesson(world) == (2, 4)
    say(world, worst(world, 2))
    path.advance(world.dataset.pk)
    assert world.dataset.runs.active().exists()


def test_more_than_a_batch_while_a_round_learns_starts_the_next_at_once(world: World) -> None:
    work(world, batch=4)
    say(world, worst(world, 4))
    path.advance(world.dataset.pk)
    say(world, worst(world, 7))
    second = work(world, batch=4)
    assert latest(world).run_id == second.pk
    third = world.dataset.runs.active().get()
    assert third.number == second.number + 1 and len(third.version.examples) == 71


def test_where_the_sample_could_be_drawn_more_answers_teach_as_well(world: World) -> None:
    work(world, "certify now")
    assert lesson(world) == (0, 10)
    say(world, worst(world, 10))
    path.advance(world.dataset.pk)
    assert world.dataset.runs.active().get().version.method == ROUND


def test_no_batch_is_asked_for_where_no_round_follows(world: World) -> None:
    work(world, "certify now")
    path.prove(world.dataset, world.people["manager"])
    assert lesson(world) is None, "a sample is open"
    finish(world, wrong=30)
    work(world, "nothing to gain")
    say(world, worst(world, 5))
    path.advance(world.dataset.pk)
    assert lesson(world) is None and not world.dataset.runs.active().exists()


def test_a_batch_larger_than_what_is_open_ends_with_what_is_open(world: World) -> None:
    work(world, batch=40)
    asked, *rest = worst(world, 100)
    decisions.remark(asked, world.people["reviewer"], "ask")
    say(world, rest)
    path.advance(world.dataset.pk)
    goal = path.active_goal(world.dataset)
    assert goal is not None and not world.dataset.runs.active().exists()
    assert place.where(goal).here == "1 item waits for a manager’s answer."
    assert latest(world).rank == ACCEPT_NOTHING
    assert Remark.objects.count() == 1


def test_the_rows_that_a_page_reads_leave_the_heavy_columns_behind(world: World) -> None:
    work(world)
    goal = path.active_goal(world.dataset)
    assert goal is not None
    run, found = rounds.newest_run(goal), rounds.latest(goal)
    assert run is not None and found is not None
    assert {"state", "examples", "settings"} <= run.version.get_deferred_fields()
    assert "representative" in found.get_deferred_fields() & run.round.get_deferred_fields()

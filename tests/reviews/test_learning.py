"""When a run takes force, what it learns from, and when it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.utils import timezone

from datasets.models import (
    Dataset,
    Item,
    LabelerVersion,
    Prediction,
    Run,
)
from labelhub.autolabel.rank import ACCEPT_NOTHING, to_rank
from reviews import decisions, learning, queue, samples, tasks, thresholds
from reviews.models import Outcome, Purpose, Sample, Threshold
from reviews.states import states
from tests.reviews.things import WORDS, import_rows, run_here, things

pytestmark = pytest.mark.django_db


# Force


def test_the_first_run_takes_force_at_its_start_at_085(taught: Dataset, boss: User) -> None:
    run = learning.learn(taught, "weak_model", boss, rings=False)
    latest = thresholds.in_force(taught)
    assert latest is not None and (latest.run_id, latest.rank) == (run.pk, to_rank(0.85))
    assert run.version.guess is False


def test_a_run_that_can_only_guess_accepts_nothing_and_opens_a_lane_to_teach(
    tmp_path: Path, boss: User
) -> None:
    dataset = import_rows(tmp_path, [row.split(",")[0] for row in things(120)])
    run = run_here(dataset, boss, "ensemble")
    latest = thresholds.in_force(dataset)
    assert run.version.guess and latest is not None and latest.rank == ACCEPT_NOTHING
    sample = Sample.objects.get(dataset=dataset)
    assert (sample.purpose, sample.size, sample.is_open) == (Purpose.TRAINING, 50, True)
    now = states(dataset)
    assert now.accepted == 0 and now.flagged == 120


def test_twenty_answers_of_the_lane_are_enough_for_a_run_that_learns(tmp_path: Path, boss: User) -> None:
    dataset = import_rows(tmp_path, [row.split(",")[0] for row in things(400)])
    run_here(dataset, boss, "ensemble")
    sample = Sample.objects.get(dataset=dataset)
    labels = {label.name: label for label in dataset.labels.all()}
    for n in range(20):
        if n == 19:
            with pytest.raises(thresholds.SampleIsOpen):
                learning.learn(dataset, "weak_model", boss, rings=False)
        claim = queue.claim_drawn(dataset, boss, "browser", sample)
        assert claim is not None
        name = "fruit" if any(word in claim.item.text for word in WORDS["fruit"]) else "tool"
        decisions.decide(claim.item, boss, Outcome.LABEL, labels[name])
    run = run_here(dataset, boss, "weak_model")
    sample.refresh_from_db()
    assert sample.superseded_at is not None
    assert len(run.version.examples) == 20 and not run.version.guess
    assert Prediction.objects.filter(run=run).count() == 380


def test_a_later_run_is_a_candidate_until_it_is_applied(taught: Dataset, boss: User) -> None:
    first = run_here(taught, boss)
    second = run_here(taught, boss, "ensemble")
    latest = thresholds.in_force(taught)
    assert latest is not None and latest.run_id == first.pk
    offer = learning.offer(taught)
    assert offer is not None and offer.run.pk == second.pk
    accepted = [
        set(Prediction.objects.filter(run=run).accepted(latest.rank).values_list("item", flat=True))
        for run in (first, second)
    ]
    assert offer.changed == len(accepted[0] ^ accepted[1])
    learning.apply(taught, second, boss)
    latest = thresholds.in_force(taught)
    assert latest is not None and (latest.run_id, latest.rank) == (second.pk, to_rank(0.85))
    assert learning.offer(taught) is None


def test_applying_after_a_guess_starts_at_085(tmp_path: Path, boss: User) -> None:
    dataset = import_rows(tmp_path, [row.split(",")[0] for row in things(60)])
    run_here(dataset, boss, "ensemble")
    samples.discard(dataset, boss)
    item = Item.objects.filter(dataset=dataset).first()
    assert item is not None
    for item in Item.objects.filter(dataset=dataset)[:4]:
        name = "fruit" if any(word in item.text for word in WORDS["fruit"]) else "tool"
        decisions.decide(item, boss, Outcome.LABEL, dataset.labels.get(name=name))
    second = run_here(dataset, boss)
    learning.apply(dataset, second, boss)
    latest = thresholds.in_force(dataset)
    assert latest is not None and latest.rank == to_rank(0.85)


def test_a_run_that_is_not_finished_cannot_take_force(taught: Dataset, boss: User) -> None:
    run_here(taught, boss)
    second = learning.learn(taught, "ensemble", boss, rings=False)
    with pytest.raises(learning.CannotLearn, match="not finished"):
        learning.apply(taught, second, boss)


def test_the_next_run_leaves_out_what_people_decided_and_learns_from_it(taught: Dataset, boss: User) -> None:
    run_here(taught, boss)
    items = list(Item.objects.filter(dataset=taught, given_label=None)[:3])
    fruit = taught.labels.get(name="fruit")
    for item in items:
        decisions.decide(item, boss, Outcome.LABEL, fruit)
    decisions.undo(taught, boss)
    decisions.decide(items[1], boss, Outcome.CANT_TELL)
    second = run_here(taught, boss)
    assert second.version.examples == [[items[0].pk, fruit.pk]]
    predicted = set(Prediction.objects.filter(run=second).values_list("item", flat=True))
    assert predicted.isdisjoint({items[0].pk, items[1].pk}) and items[2].pk in predicted


def test_what_is_decided_while_a_run_works_is_closed_in_it(taught: Dataset, boss: User) -> None:
    first = run_here(taught, boss)
    second = learning.learn(taught, "weak_model", boss, rings=False)
    item = Item.objects.filter(dataset=taught, given_label=None).order_by("pk").last()
    assert item is not None
    decisions.decide(item, boss, Outcome.LABEL, taught.labels.get(name="tool"))
    tasks.work_here(second)
    for run in (first, second):
        assert Prediction.objects.get(run=run, item=item).open is False
        assert Prediction.objects.filter(run=run, open=False).count() == 1


def test_answers_of_an_open_sample_do_not_teach_and_of_a_closed_one_do(taught: Dataset, boss: User) -> None:
    run_here(taught, boss)
    latest = thresholds.in_force(taught)
    assert latest is not None
    sample = samples.draw_spot_check(taught, latest, boss)
    claim = queue.claim_drawn(taught, boss, "browser", sample)
    assert claim is not None
    decisions.decide(claim.item, boss, Outcome.LABEL, taught.labels.get(name="tool"))
    assert learning.examples(taught) == []
    with pytest.raises(thresholds.SampleIsOpen, match="finish it, or discard"):
        learning.learn(taught, "weak_model", boss, rings=False)
    Sample.objects.filter(pk=sample.pk).update(closed_at=timezone.now())
    assert [pair[0] for pair in learning.examples(taught)] == [claim.item_id]


# One at a time


def test_only_one_run_of_a_dataset_is_active(taught: Dataset, boss: User) -> None:
    run = learning.learn(taught, "weak_model", boss, rings=False)
    with pytest.raises(tasks.RunIsActive, match="Run 1 is under way"):
        learning.learn(taught, "weak_model", boss, rings=False)
    with pytest.raises(IntegrityError), transaction.atomic():
        Run.objects.create(dataset=taught, number=2, version=run.version, seed="0")
    assert LabelerVersion.objects.filter(dataset=taught).count() == 1


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("magic", "There is no method “magic”"),
        ("imported", "without predicted labels"),
        ("rules", "No label has a rule"),
        ("llm", "ANTHROPIC_API_KEY|has none yet"),
    ],
)
def test_a_method_that_cannot_work_says_what_is_missing(
    taught: Dataset, boss: User, method: str, words: str
) -> None:
    with pytest.raises(learning.CannotLearn, match=words):
        learning.learn(taught, method, boss, rings=False)
    assert not Run.objects.exists() and not LabelerVersion.objects.exists() and not Threshold.objects.exists()


def test_a_run_over_nothing_is_refused(tmp_path: Path, boss: User) -> None:
    dataset = import_rows(tmp_path, things(6, 6), "text,label", label="label")
    with pytest.raises(learning.CannotLearn, match="Nothing is left to label"):
        learning.learn(dataset, "weak_model", boss, rings=False)
    assert not LabelerVersion.objects.exists()


def test_rules_work_without_any_example(tmp_path: Path, boss: User) -> None:
    labels = [
        {"name": "fruit", "rules": "apple\n/pl[ua]m/"},
        {"name": "tool", "definition": 'Has a "saw" in it.'},
    ]
    dataset = import_rows(tmp_path, ["an apple", "a plum", "the saw", "nothing"], labels=labels)
    run = run_here(dataset, boss, "rules")
    found = (
        Prediction.objects.filter(run=run).order_by("item__position").values_list("label__name", "problem")
    )
    assert list(found) == [("fruit", None), ("fruit", None), ("tool", None), (None, "abstained")]

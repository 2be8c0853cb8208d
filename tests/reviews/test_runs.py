"""A run worked in this process: what it writes, slice by slice, and who may stop it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

from datasets import labeling, slices
from datasets.models import (
    Dataset,
    Item,
    LabelerVersion,
    Prediction,
    Run,
    RunVotes,
    Slice,
    Tally,
)
from labelhub.autolabel.rank import MILLION, to_rank
from reviews import decisions, learning, tasks, thresholds
from tests.reviews.things import WORDS, claim_first, expire, import_rows, run_here, things

pytestmark = pytest.mark.django_db


def test_each_free_item_gets_one_prediction_and_the_run_ends(taught: Dataset, boss: User) -> None:
    run = run_here(taught, boss)
    assert run.state == "finished" and run.started_at is not None
    predicted = list(Prediction.objects.filter(run=run).values_list("item", flat=True))
    free = Item.objects.filter(dataset=taught, given_label=None)
    assert sorted(predicted) == sorted(free.values_list("pk", flat=True)) and len(predicted) == 1200
    assert list(Slice.objects.filter(run=run).order_by("number").values_list("number", "items")) == [
        (0, 0), (1, 500), (2, 500), (3, 200),
    ]  # fmt: skip
    assert not Slice.objects.filter(run=run, done_at=None).exists()


def test_it_learns_what_the_given_labels_show(taught: Dataset, boss: User) -> None:
    run = run_here(taught, boss)
    wrong = [
        p for p in Prediction.objects.filter(run=run).select_related("item", "label")
        if p.label is None or not any(word in p.item.text for word in WORDS[p.label.name])
    ]  # fmt: skip
    assert len(wrong) <= 12


def test_copies_and_excluded_items_are_not_labeled(tmp_path: Path, boss: User) -> None:
    dataset = import_rows(
        tmp_path, ["one,a,0.9", "two,b,0.8", "one,a,0.9"], "text,p,c", predicted="p", confidence="c"
    )
    Item.objects.filter(dataset=dataset, position=2).update(excluded="spam")
    run = run_here(dataset, boss, "imported")
    assert [p.item.position for p in Prediction.objects.filter(run=run).select_related("item")] == [1]


def test_imported_confidence_is_kept_to_the_millionth_with_a_tie_from_the_seed(
    tmp_path: Path, boss: User
) -> None:
    rows = ["one,a,0.85", "two,b,0.8499999", "three,a,1", "four,b,0"]
    dataset = import_rows(tmp_path, rows, "text,p,c", predicted="p", confidence="c")
    run = run_here(dataset, boss, "imported")
    ranks = list(Prediction.objects.filter(run=run).order_by("item__position").values_list("rank", flat=True))
    assert [rank // MILLION for rank in ranks] == [850_000, 850_000, 1_000_000, 0]
    assert all(0 <= rank % MILLION < MILLION for rank in ranks)
    assert len({rank % MILLION for rank in ranks}) > 1
    assert Prediction.objects.filter(run=run).accepted(to_rank(0.85)).count() == 3


def test_a_row_without_a_usable_prediction_is_a_problem_and_never_a_label(tmp_path: Path, boss: User) -> None:
    rows = ["one,a,0.9", "two,zzz,0.9", "three,,", "four,b,0.7"]
    labels = [{"name": "a"}, {"name": "b"}]
    dataset = import_rows(tmp_path, rows, "text,p,c", labels, predicted="p", confidence="c")
    run = run_here(dataset, boss, "imported")
    found = Prediction.objects.filter(run=run, label=None).order_by("item__position")
    assert list(found.values_list("item__position", "problem", "rank")) == [
        (2, "abstained", 0),
        (3, "abstained", 0),
    ]
    assert Prediction.objects.filter(run=run).accepted(0).count() == 2


def test_votes_are_kept_for_what_a_person_may_see(tmp_path: Path, boss: User) -> None:
    rows = ["one,a,0.99", "two,b,0.5"]
    dataset = import_rows(tmp_path, rows, "text,p,c", predicted="p", confidence="c")
    run = run_here(dataset, boss, "imported")
    kept = RunVotes.objects.get(run=run)
    label = dataset.labels.get(name="b")
    assert kept.item.position == 2 and kept.votes == {"imported": [label.pk, 0.5, ""]}


def test_the_tally_counts_every_prediction_by_thousandth_and_label(taught: Dataset, boss: User) -> None:
    run = run_here(taught, boss)
    expected: dict[tuple[int, int | None], int] = {}
    for rank, label in Prediction.objects.filter(run=run).values_list("rank", "label"):
        expected[rank // 10**9, label] = expected.get((rank // 10**9, label), 0) + 1
    assert {
        (bin_, label): n for bin_, label, n in Tally.objects.filter(run=run).values_list("bin", "label", "n")
    } == expected


def test_the_same_seed_gives_the_same_ranks(tmp_path: Path, boss: User) -> None:
    rows = [f"text {n},a,0.{n % 9}" for n in range(700)]
    ranks = []
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        dataset = import_rows(
            tmp_path / folder, rows, "text,p,c", [{"name": "a"}, {"name": "b"}], predicted="p", confidence="c"
        )
        run = learning.learn(dataset, "imported", boss, rings=False)
        Run.objects.filter(pk=run.pk).update(seed="0f" * 16)
        tasks.work_here(run)
        found = Prediction.objects.filter(run=run).order_by("item__position")
        ranks.append(list(found.values_list("rank", flat=True)))
    assert ranks[0] == ranks[1]


# Slices


def test_two_workers_get_two_slices(taught: Dataset, boss: User) -> None:
    run, _ = claim_first(taught, boss)
    numbers = [
        found.number if (found := slices.claim_slice(run, name)) else None
        for name in ("two", "three", "four")
    ]
    assert numbers == [2, 3, None]


def test_a_worker_that_was_thought_dead_writes_nothing(taught: Dataset, boss: User) -> None:
    run, old = claim_first(taught, boss)
    items = tasks.to_label(taught, run.version)
    said = labeling.label_slice(old, items)
    expire(old)
    new = slices.claim_slice(run, "two")
    assert new is not None and (new.pk, new.epoch) == (old.pk, old.epoch + 1)
    with pytest.raises(slices.Fenced):
        labeling.write_slice(old, said, 0, decisions.settle)
    assert not Prediction.objects.exists()
    labeling.write_slice(new, labeling.label_slice(new, items), 0, decisions.settle)
    with pytest.raises(slices.Fenced):
        labeling.write_slice(old, said, 0, decisions.settle)
    with pytest.raises(slices.Fenced):  # nor twice by the same worker
        labeling.write_slice(new, said, 0, decisions.settle)
    assert Prediction.objects.count() == 500


def test_a_slice_is_written_whole_or_not_at_all(taught: Dataset, boss: User) -> None:
    run, mine = claim_first(taught, boss)
    said = labeling.label_slice(mine, tasks.to_label(taught, run.version))

    def unplug(*_: Any) -> None:
        raise RuntimeError("unplugged")

    with pytest.raises(RuntimeError):
        labeling.write_slice(mine, said, 0, unplug)
    mine.refresh_from_db()
    assert mine.done_at is None and not Prediction.objects.exists()


def test_a_slice_that_ends_its_worker_three_times_is_set_aside(taught: Dataset, boss: User) -> None:
    run, mine = claim_first(taught, boss)
    for _ in range(2):
        expire(mine)
        again = slices.claim_slice(run, "one")
        assert again is not None and again.pk == mine.pk
    expire(mine)
    done = tasks.work_here(run)
    assert done.state == "finished"
    assert Prediction.objects.filter(run=run, problem="worker_crash", label=None, rank=0).count() == 500
    assert Prediction.objects.filter(run=run, problem=None).count() == 700


def test_a_mistake_in_the_labeler_pauses_the_run_after_three_attempts(
    taught: Dataset, boss: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, mine = claim_first(taught, boss)
    slices.release_slice(mine, counts=False)
    # A state that is damaged fails in the real labeler, the same way each time.
    good = LabelerVersion.objects.get(pk=run.version_id).state
    LabelerVersion.objects.filter(pk=run.version_id).update(state=b"broken")
    labeling._labeler.cache_clear()
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    run = tasks.work_here(run)
    assert run.state == "paused" and run.problem == "These bytes are not a learned labeler."
    assert not Prediction.objects.exists()
    LabelerVersion.objects.filter(pk=run.version_id).update(state=good)
    assert tasks.resume(run, boss)
    run = tasks.work_here(run)
    assert run.state == "finished" and run.problem is None
    assert Prediction.objects.filter(run=run).count() == 1200


def test_a_run_that_cannot_learn_fails_with_the_reason(tmp_path: Path, boss: User) -> None:
    dataset = import_rows(tmp_path, things(20, 10), "text,label", label="label")
    run = learning.learn(dataset, "weak_model", boss, rings=False)
    broken = run.version.settings | {"rules": {"nobody": ["x"]}, "labels": []}
    LabelerVersion.objects.filter(pk=run.version_id).update(settings=broken)
    run = tasks.work_here(run)
    assert run.state == "failed" and run.problem == "There are no labels to choose from."
    again = learning.learn(dataset, "weak_model", boss, rings=False)
    latest = thresholds.in_force(dataset)
    assert latest is not None and latest.run_id == again.pk  # the failed one labeled nothing


# Stopping


def test_a_paused_run_works_no_further_and_resumes_where_it_stopped(taught: Dataset, boss: User) -> None:
    run, mine = claim_first(taught, boss)
    assert tasks.pause(run, boss) and not tasks.pause(run, boss)
    tasks.work_here(run)
    run.refresh_from_db()
    assert run.state == "paused" and not Prediction.objects.exists()
    said = labeling.label_slice(mine, tasks.to_label(taught, run.version))
    labeling.write_slice(mine, said, 0, decisions.settle)  # the slice under way is still kept
    assert tasks.resume(run, boss) and not tasks.resume(run, boss)
    run = tasks.work_here(run)
    assert run.state == "finished" and Prediction.objects.filter(run=run).count() == 1200


def test_a_cancelled_run_keeps_what_it_labeled_and_takes_no_more(taught: Dataset, boss: User) -> None:
    run, mine = claim_first(taught, boss)
    said = labeling.label_slice(mine, tasks.to_label(taught, run.version))
    labeling.write_slice(mine, said, 0, decisions.settle)
    late = slices.claim_slice(run, "late")
    assert late is not None
    assert tasks.cancel(run, boss) and not tasks.cancel(run, boss)
    with pytest.raises(slices.Fenced):
        labeling.write_slice(
            late, labeling.label_slice(late, tasks.to_label(taught, run.version)), 0, decisions.settle
        )
    run = tasks.work_here(run)
    assert run.state == "cancelled" and Prediction.objects.filter(run=run).count() == 500
    assert sum(Tally.objects.filter(run=run).values_list("n", flat=True)) == 500
    second = run_here(taught, boss)
    assert second.number == 2 and Prediction.objects.filter(run=second).count() == 1200


def test_a_run_ends_once(taught: Dataset, boss: User) -> None:
    run = run_here(taught, boss)
    before = Tally.objects.filter(run=run).count()
    assert slices.finish(run) is False
    tasks.work_slices(run.pk)
    assert Tally.objects.filter(run=run).count() == before and not tasks.cancel(run, boss)

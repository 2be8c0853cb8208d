"""A certificate about a whole dataset: issued when everything has its label, and proven by the exported file alone."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone

from datasets.labeling import free_items
from datasets.models import Dataset, Item, Label, Prediction, Run
from labelhub.autolabel import certify
from labelhub.autolabel.rank import ACCEPT_NOTHING, to_rank
from labelhub.autolabel.verify import verify
from reviews import calibrations, certificates, decisions, samples, thresholds, validity, verdicts
from reviews.export import Export, to_file
from reviews.models import Certificate, Decision, Purpose, Sample, Verdict
from tests.reviews.scenario import count_statements
from tests.reviews.test_metrics import answer_all

pytestmark = pytest.mark.django_db


def rows_of(dataset: Dataset) -> list[dict[str, Any]]:
    return [json.loads(line) for line in b"".join(Export(dataset).write("jsonl")).splitlines()]


def as_json(certificate: Certificate) -> dict[str, Any]:
    found = certificates.find(certificate.dataset, certificates.number_of(certificate))
    assert found is not None
    return json.loads(json.dumps(certificates.document(found, 1)))


def differences(certificate: Certificate) -> dict[str, str]:
    return {one.what: one.sentence for one in verify(as_json(certificate), rows_of(certificate.dataset))}


def draw(
    dataset: Dataset, by, size: int, budget: int, target: float = 0.1, floor: float | None = None
) -> Sample:
    """Freeze everything open of the run in force, and draw a calibration sample with these terms."""
    now = thresholds.in_force(dataset)
    attempt, alpha = samples.next_attempt(dataset)

    def terms(pool: int) -> samples.Plan:
        allowed = certify.allowed_errors(pool, size, budget, alpha)
        return samples.Plan(pool, size, attempt, alpha, budget, allowed, target, floor)

    return samples.draw(now, Purpose.CALIBRATION, thresholds.accepted(now, 0), terms, by)


def right(world, said: Prediction) -> Label:
    """What people say: as the machine, but for every third item that it is unsure of."""
    wrong = said.rank < to_rank(0.6) and said.rank % 3 == 0
    return next(label for label in world.labels if (label.pk != said.label_id) == wrong)


def tell(world, item: Item) -> None:
    """One more answer, to any item."""
    decisions.decide(item, world.people["reviewer"], "label", right(world, world.prediction(item)))


def say(world, items: list[Item], who: str, sample: Sample | None = None, unsure: int = 0) -> None:
    """Store an answer to each item at once, as ``decide`` would one by one; of the first items nobody can tell."""
    purpose = Purpose.CALIBRATION if sample else Purpose.REVIEW
    said = {p.item_id: p for p in Prediction.objects.filter(run=world.run, item__in=items)}
    Decision.objects.bulk_create(
        Decision(
            dataset=world.dataset, item=item, reviewer=world.people[who], purpose=purpose, sample=sample,
            outcome="cant_tell" if n < unsure else "label", label=None if n < unsure else right(world, said[item.pk]),
            run=world.run, machine_label_id=said[item.pk].label_id, machine_rank=said[item.pk].rank,
            decided_at=timezone.now(),
        )
        for n, item in enumerate(items)
    )  # fmt: skip
    decisions.settle(world.dataset.pk, [item.pk for item in items])


def answer(world, sample: Sample, unsure: int = 0) -> Sample:
    """Answer a sample and conclude it."""
    say(world, [one.item for one in sample.drawn.select_related("item")], "second", sample, unsure)
    assert samples.close_when_answered(sample)
    sample.refresh_from_db()
    calibrations.conclude(sample)
    return sample


def flagged(world) -> list[Item]:
    now = thresholds.in_force(world.dataset)
    stands = thresholds.accepted(now).values("pk")
    return [p.item for p in Prediction.objects.filter(run=now.run, open=True).exclude(pk__in=stands)]


def review(world, but: int = 0) -> list[Item]:
    """Decide all flagged items but some."""
    left = flagged(world)
    say(world, left[but:], "reviewer")
    return left[:but]


@pytest.fixture(autouse=True)
def dice(monkeypatch) -> None:
    """The same draws every time: what is left to review depends on them."""
    monkeypatch.setattr(samples.secrets, "randbits", random.Random(1).getrandbits)


@pytest.fixture
def world(make_world):
    """150 items, some of each kind; the machine is wrong about every third of the 50 that it is unsure of."""
    world = make_world([0.95] * 100 + [0.5] * 50, labels=("spam", "häm\t"), threshold="0.9")
    for n, first in enumerate(world.items[90:110]):
        Item.objects.create(
            dataset=world.dataset, position=1000 + n, text=first.text, row="{}", text_hash=1, same_as=first
        )
    extra = {"dataset": world.dataset, "text": "x", "row": "{}", "text_hash": 2}
    Item.objects.create(**extra, position=2000, given_label=world.labels[0])
    Item.objects.create(**extra, position=2001, excluded="empty")
    for n in (0, 1, 100, 101):
        tell(world, world.items[n])
    decisions.decide(world.items[2], world.people["reviewer"], "cant_tell")
    decisions.remark(world.items[3], world.people["reviewer"], "ask")
    return world


def certified(world, floor: float | None = None) -> Certificate:
    sample = answer(world, draw(world.dataset, world.people["manager"], 60, 14, floor=floor))
    review(world)
    verdicts.approve(sample, world.people["manager"])
    return Certificate.objects.get(sample=sample)


def test_the_file_proves_the_promise_about_all_labels_and_any_change_does_not(world) -> None:
    sample = draw(world.dataset, world.people["manager"], 60, 14, floor=0.3)
    changed, undone = world.items[1], world.items[100]
    tell(world, changed)  # again: now its answer is from after the draw
    decisions.undo(world.dataset, world.people["reviewer"], uuid=decisions.current(undone.pk).uuid)
    answer(world, sample, unsure=1)
    review(world)
    verdicts.approve(sample, world.people["manager"])
    certificate = Certificate.objects.get()
    found, rows = certificate.evidence, rows_of(world.dataset)
    assert verify(as_json(certificate), rows) == []
    assert found["pool"] == 144 and 0 < found["allowed_errors"] < found["errors"]
    assert found["threshold_rank"] == sample.thresholds.get().rank > 0
    assert found["items"] == free_items(world.dataset).count() == 150
    assert found["labels"] == 148 and found["left_out"][0] == {
        "id": world.items[2].pk,
        "outcome": "cant_tell",
    }
    assert len(found["left_out"]) == 2 and found["file_rows"] == len(rows) == 172
    assert found["outside_pool"] == [world.items[n].pk for n in (0, 1, 2, 3, 100, 101)]
    share = math.floor(1000 * (1 - 14 / found["accepted"])) / 10
    assert certificate.statement == (
        f"With 95% confidence at least 90.5% of the 148 labels of this dataset, and at least {share:.1f}% of the "
        f"{found['accepted']} accepted unseen, agree with what your reviewers answer: at most 14 differ."
    )
    expected = {row["id"] for row in rows if row["source"] in ("person", "machine")}
    assert expected == {row["id"] for row in rows if row["certified"]} and len(expected) == found["rows"]
    for n in [n for n, row in enumerate(rows) if row["certified"]][::30]:
        for field, value in {
            "label": "another",
            "outcome": "exclude",
            "source": "given",
            "certified": False,
        }.items():
            assert verify(as_json(certificate), [*rows[:n], rows[n] | {field: value}, *rows[n + 1 :]]), (
                n,
                field,
            )


def test_it_waits_until_no_flagged_item_is_open(world) -> None:
    sample = answer(world, draw(world.dataset, world.people["manager"], 60, 14))
    left = review(world, but=2)
    assert world.items[3] in flagged(world), "a manager was asked about it"
    with pytest.raises(verdicts.CannotApprove, match="will hold once the 2 flagged items are decided"):
        verdicts.approve(sample, world.people["manager"])
    tell(world, left[0])
    with pytest.raises(verdicts.CannotApprove, match="once the 1 flagged item is decided"):
        verdicts.approve(sample, world.people["manager"])
    decisions.decide(left[1], world.people["reviewer"], "exclude")
    Prediction.objects.filter(item=world.items[50]).delete()
    with pytest.raises(verdicts.CannotApprove, match="neither the machine's label nor a person's"):
        verdicts.approve(sample, world.people["manager"])
    assert not Verdict.objects.exists() and not Certificate.objects.exists()


def test_too_many_items_without_a_label_are_more_than_the_budget_bears(world) -> None:
    sample = answer(world, draw(world.dataset, world.people["manager"], 60, 14))
    free = Prediction.objects.filter(run=world.run, open=True).select_related("item").order_by("item")
    left = [prediction.item for prediction in free[:11]]
    for item in left:
        decisions.decide(item, world.people["reviewer"], "cant_tell")
    review(world)
    with pytest.raises(
        verdicts.CannotApprove, match="Up to 14 .* allows 13 in a file of 138: 12 items have no"
    ):
        verdicts.approve(sample, world.people["manager"])
    for item in left[:2]:
        tell(world, item)
    verdicts.approve(sample, world.people["manager"])
    assert Certificate.objects.get().evidence["labels"] == 140
    assert differences(Certificate.objects.get()) == {}


def test_nothing_is_certified_that_a_sample_did_not_prove_or_that_moved_since(world) -> None:
    boss = world.people["manager"]
    sample = draw(world.dataset, boss, 60, 14)
    with pytest.raises(verdicts.CannotApprove, match="60 of 60 items have no answer"):
        verdicts.approve(sample, boss)
    samples.discard(world.dataset, boss)
    sample.refresh_from_db()
    with pytest.raises(verdicts.CannotApprove, match="discarded"):
        verdicts.approve(sample, boss)
    small = answer(world, draw(world.dataset, boss, 12, 1))
    assert small.allowed_errors == -1 and verdicts.summary(small).proven is False
    with pytest.raises(verdicts.CannotApprove, match="proves no threshold"):
        verdicts.approve(small, boss)
    sample = answer(world, draw(world.dataset, boss, 70, 14))
    review(world)
    proven = validity.proven_threshold(sample)
    assert verdicts.summary(sample).proven and proven.rank > 0
    with pytest.raises(verdicts.CannotApprove, match="nothing to reject"):
        verdicts.reject(sample, boss)
    thresholds.move(world.dataset, proven.rank - 1, boss)
    with pytest.raises(verdicts.CannotApprove, match="lowered .* fresh sample"):
        verdicts.approve(sample, boss)


def test_an_open_sample_comes_first(world) -> None:
    sample = answer(world, draw(world.dataset, world.people["manager"], 60, 14))
    review(world)
    samples.draw_spot_check(world.dataset, thresholds.in_force(world.dataset), world.people["manager"])
    with pytest.raises(verdicts.CannotApprove, match="other sample first"):
        verdicts.approve(sample, world.people["manager"])


def test_a_check_of_what_is_proven_is_no_attempt_and_no_certificate(world) -> None:
    certificate = certified(world)
    check = samples.draw_spot_check(
        world.dataset, thresholds.in_force(world.dataset), world.people["manager"]
    )
    answer_all(world.dataset, check, world.people["second"])
    check.refresh_from_db()
    assert verdicts.approve(check, world.people["manager"]).approved
    assert Certificate.objects.get() == certificate == validity.certificate_in_force(world.dataset)
    later = draw(world.dataset, world.people["manager"], 10, 14)
    assert later.attempt == 2 and certificates.earlier_attempts(later) == [certificate.sample]


def test_what_was_undone_after_the_draw_was_never_in_the_pool(world) -> None:
    sample = draw(world.dataset, world.people["manager"], 60, 14)
    item = world.items[0]
    decisions.undo(world.dataset, world.people["reviewer"], uuid=decisions.current(item.pk).uuid)
    answer(world, sample)
    review(world)
    verdicts.approve(sample, world.people["manager"])
    certificate = Certificate.objects.get()
    row = next(row for row in rows_of(world.dataset) if row["id"] == item.pk)
    assert row["source"] == "machine" and row["rank"] >= certificate.evidence["threshold_rank"]
    assert not row["certified"] and certificate.evidence["uncovered"] == 1 and differences(certificate) == {}
    tell(world, item)
    row = next(row for row in rows_of(world.dataset) if row["id"] == item.pk)
    assert row["source"] == "person" and row["certified"] and validity.why_void(certificate) == ""
    assert set(differences(certificate)) == {"rows", "content_hash"}


def test_the_row_that_it_proved_and_a_raise_leave_it_valid(world) -> None:
    certificate = certified(world)
    now = thresholds.in_force(world.dataset)
    assert now.sample == certificate.sample and validity.certificate_in_force(world.dataset) == certificate
    thresholds.move(world.dataset, to_rank(0.95, 100), world.people["manager"])
    assert validity.why_void(certificate) == ""
    found = differences(certificate)
    assert set(found) == {"rows", "content_hash"} and "threshold was raised" in found["content_hash"]
    thresholds.move(world.dataset, now.rank, world.people["manager"])
    assert differences(certificate) == {}
    thresholds.move(world.dataset, ACCEPT_NOTHING, world.people["manager"])
    assert validity.why_void(certificate) == ""
    thresholds.move(world.dataset, now.rank - 1, world.people["manager"])
    assert "threshold was lowered" in validity.why_void(certificate)
    assert not any(row["certified"] for row in rows_of(world.dataset))
    assert "No row of the file is certified" in differences(certificate)["content_hash"]


@pytest.mark.parametrize("what", ["run", "label", "answer"])
def test_another_run_a_retired_label_or_an_answer_taken_back_voids_it(world, what: str) -> None:
    certificate = certified(world)
    if what == "run":
        second = Run.objects.create(
            dataset=world.dataset,
            number=2,
            version=world.run.version,
            seed="0" * 32,
            finished_at=timezone.now(),
        )
        thresholds.move(world.dataset, ACCEPT_NOTHING, world.people["manager"], run=second)
    elif what == "label":
        Label.objects.filter(pk=world.labels[0].pk).update(retired_at=timezone.now())
    else:
        said = Decision.objects.filter(sample=certificate.sample).first()
        decisions.undo(world.dataset, world.people["second"], uuid=said.uuid)
    sentence = {"run": "Another run took force", "label": "A label was retired", "answer": "was taken back"}
    assert sentence[what] in validity.why_void(certificate)
    assert validity.certificate_in_force(world.dataset) is None


def test_corrections_since_are_counted_and_spoil_only_the_digest_of_the_file(world) -> None:
    certificate = certified(world)
    machine = [row for row in rows_of(world.dataset) if row["source"] == "machine" and row["same_as"] is None]
    for n, row in enumerate(machine[:12]):
        how = ("cant_tell", None) if n == 0 else ("label", world.labels[n % 2])
        decisions.decide(Item.objects.get(pk=row["id"]), world.people["reviewer"], *how)
    found = differences(certificate)
    assert set(found) == {"rows", "content_hash"} and "12 answers changed since" in found["content_hash"]
    assert validity.why_void(certificate) == ""


def test_statements_do_not_grow_with_rows(make_world) -> None:
    counts = []
    for n in (40, 120):
        world = make_world([0.95] * n, name=f"of {n}")
        sample = answer(world, draw(world.dataset, world.people["manager"], 30, n // 6, target=0.2))
        seen = samples.count(sample)
        counts.append(count_statements(lambda: certificates.evidence_of(sample, seen)))  # noqa: B023
    assert counts[0] == counts[1] <= 20


def test_the_command_agrees_in_one_sentence(world, tmp_path, capsys) -> None:
    certificate = certified(world)
    paper, file = tmp_path / "certificate.json", tmp_path / "export.jsonl"
    paper.write_text(json.dumps(as_json(certificate)))
    to_file(world.dataset, "jsonl", file)
    call_command("verify", str(paper), str(file))
    assert "errors with the threshold that they prove" in capsys.readouterr().out


def test_the_page_says_what_is_promised_and_what_is_not(world, client) -> None:
    sample = certified(world, floor=0.3).sample
    page = f"/d/{world.dataset.pk}/certificates/1/"
    client.force_login(world.people["viewer"])
    shown = client.get(page).content.decode()
    for text in ("With 95% confidence", "accepted unseen", "What it does not say", "What it assumes", sample.seed,
                 sample.pool_hash, "60 of the 144", "149 labels", "Floor", "in force"):  # fmt: skip
        assert text in shown, text
    answer = client.get(f"{page}json")
    assert verify(json.loads(answer.content), rows_of(world.dataset)) == []
    thresholds.move(world.dataset, 0, world.people["manager"])
    shown = client.get(page).content.decode()
    assert "no longer holds" in shown and "threshold was lowered" in shown and "in force" not in shown


def test_an_answer_that_comes_while_the_file_is_hashed_is_in_the_hash(world, monkeypatch) -> None:
    sample = answer(world, draw(world.dataset, world.people["manager"], 60, 14))
    review(world)
    real, calls = certificates.evidence_of, []

    def slow(*args):
        found = real(*args)
        if not calls:
            free = thresholds.accepted(thresholds.in_force(world.dataset)).last()
            decisions.decide(free.item, world.people["reviewer"], "label", world.labels[0])
        calls.append(found["content_hash"])
        return found

    monkeypatch.setattr(certificates, "evidence_of", slow)
    verdicts.approve(sample, world.people["manager"])
    assert len(calls) == 2 and calls[0] != calls[1]
    assert differences(Certificate.objects.get()) == {}

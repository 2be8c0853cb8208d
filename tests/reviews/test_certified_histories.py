"""Random histories around a calibration sample: whatever happened, the exported file proves the certificate."""

from __future__ import annotations

import pytest
from django.utils import timezone

from datasets.models import Item, Prediction, Run
from labelhub.autolabel.verify import verify
from reviews import calibrations, decisions, queue, samples, thresholds, validity, verdicts
from reviews.models import Certificate, Decision, Outcome, Sample
from tests.reviews.scenario import Recount, Story
from tests.reviews.test_dataset_certificates import as_json, differences, draw, rows_of

pytestmark = pytest.mark.django_db


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(200, 204))
def test_any_history_gives_a_file_that_proves_its_certificate(seed: int) -> None:
    """Random answers, changes, undos and questions before and after the draw; the certified rows are recounted."""
    story = Story(seed)
    dataset, boss = story.dataset, story.people[0]
    Run.objects.filter(dataset=dataset, finished_at=None).update(finished_at=timezone.now())
    missing = [item for item in story.free if not Prediction.objects.filter(item=item).exists()]
    for item in missing:  # what a broken run had left over
        decisions.decide(item, boss, "label", story.truth[item.pk])
    live(story, 25)
    pool = thresholds.accepted(thresholds.in_force(dataset), 0).count()
    sample = draw(dataset, boss, round(0.6 * pool), pool // 4, target=0.5)
    live(story, 15)
    for n in range(sample.size):
        claim = queue.claim_drawn(dataset, story.people[1], "", sample)
        decisions.decide(claim.item, story.people[1], **story._label(claim.item))
        live(story, n % 4 == 0, ("_answer", "_ask"))
    assert samples.close_when_answered(sample)
    sample.refresh_from_db()
    assert calibrations.conclude(sample) is not None
    live(story, 15, ("_answer", "_ask"))
    recount = Recount(story)
    for item in [item for item in story.free if recount.state(item) in ("flagged", "pending")]:
        decisions.decide(item, boss, "label", story.truth[item.pk])
    verdicts.approve(sample, boss)
    certificate = Certificate.objects.get()
    rows, recount = {row["id"]: row for row in rows_of(dataset)}, Recount(story)
    assert verify(as_json(certificate), rows.values()) == []
    lowest = certificate.evidence["threshold_rank"]
    for item in recount.items:
        assert rows[item.pk]["certified"] == is_covered(recount, sample, lowest, item.same_as or item)
    live(story, 20)
    if Decision.objects.filter(sample=sample, revoked_by__decided_at__gt=sample.closed_at).exists():
        assert "was taken back" in validity.why_void(certificate)
        assert "No row of the file is certified" in differences(certificate)["content_hash"]
    else:  # what came later is told, and nothing else is in doubt
        assert validity.why_void(certificate) == ""
        assert set(differences(certificate)) <= {"rows", "content_hash", "left_out"}


def live(
    story: Story, steps: int, kinds: tuple[str, ...] = ("_answer", "_change", "_second", "_undo", "_ask")
) -> None:
    for _ in range(steps):
        getattr(story, story.dice.choice(kinds))()


def is_covered(recount: Recount, sample: Sample, lowest: int, first: Item) -> bool:
    if first.given_label_id or first.excluded:
        return False
    told = recount.current(first.pk)
    if told is not None:
        return told.outcome == Outcome.LABEL
    before = recount.standing(first.pk, sample.drawn_at)
    asked = first.pk in recount.asked and recount.asked[first.pk] < sample.drawn_at
    return (
        recount.state(first) == "accepted"
        and not before
        and not asked
        and recount.said[first.pk].rank >= lowest
    )

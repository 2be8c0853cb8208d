"""The overview and the progress of a run, as the browser gets them."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db.models import F
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from datasets import labeling, slices
from datasets.models import (
    Dataset,
    Heartbeat,
    Membership,
    Run,
    Slice,
)
from reviews import decisions, learning, tasks, thresholds
from tests.reviews.things import claim_first, run_here

pytestmark = pytest.mark.django_db


HTMX = {"HX-Request": "true"}


def test_starting_twice_starts_one_run(taught: Dataset, at: Client) -> None:
    address = reverse("reviews:start", args=[taught.pk])
    for _ in range(2):
        assert at.post(address, {"method": "weak_model"}).status_code == 302
    assert Run.objects.count() == 1
    assert "Run 1 is under way." in at.get(reverse("reviews:overview", args=[taught.pk])).content.decode()


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ({"method": "magic"}, "There is no method"),
        ({"method": "weak_model", "budget": "-3"}, "above 0"),
        ({}, "no method"),
    ],
)
def test_a_start_that_cannot_work_answers_422_with_the_reason(
    taught: Dataset, at: Client, sent: Any, words: str
) -> None:
    answer = at.post(reverse("reviews:start", args=[taught.pk]), sent)
    assert answer.status_code == 422 and words in answer.content.decode()
    assert not Run.objects.exists()


def test_progress_asks_again_until_the_run_is_over(taught: Dataset, at: Client, boss: User) -> None:
    run, mine = claim_first(taught, boss)
    said = labeling.label_slice(mine, tasks.to_label(taught, run.version))
    labeling.write_slice(mine, said, 0, decisions.settle)
    address = reverse("reviews:progress", args=[taught.pk])
    during = at.get(address, headers=HTMX).content.decode()
    assert 'hx-trigger="every 2s"' in during and "41 %" in during and "500 of 1,200" in during
    tasks.work_here(run)
    after = at.get(address, headers=HTMX)
    assert "hx-trigger" not in after.content.decode() and after["HX-Refresh"] == "true"
    assert at.get(address).status_code == 302  # as a page it leads to the overview


def test_the_page_says_that_no_worker_runs_and_stops_saying_so_when_one_beats(
    taught: Dataset, at: Client, boss: User
) -> None:
    from datasets import tasks as below

    learning.learn(taught, "weak_model", boss, rings=False)
    address = reverse("reviews:progress", args=[taught.pk])
    Heartbeat.objects.create(name="dead", beat_at=timezone.now() - dt.timedelta(seconds=9))
    if below.queue_answers():
        assert "No labeling worker is running" in at.get(address, headers=HTMX).content.decode()
    below.beat("alive")
    below.beat("alive")
    assert [one.name for one in below.workers_alive()] == ["alive"]
    assert "No labeling worker is running" not in at.get(address, headers=HTMX).content.decode()


def test_pause_resume_and_cancel_by_hand(taught: Dataset, at: Client, boss: User) -> None:
    run = learning.learn(taught, "weak_model", boss, rings=False)
    for act, state in (
        ("pause", "paused"),
        ("resume", "waiting"),
        ("cancel", "cancelled"),
        ("pause", "cancelled"),
    ):
        assert at.post(reverse(f"reviews:{act}", args=[taught.pk, run.number])).status_code == 302
        run.refresh_from_db()
        assert run.state == state
    assert at.post(reverse("reviews:pause", args=[taught.pk, 9])).status_code == 404


def test_a_finished_candidate_is_offered_and_applied(taught: Dataset, at: Client, boss: User) -> None:
    run_here(taught, boss)
    second = run_here(taught, boss, "ensemble")
    page = reverse("reviews:overview", args=[taught.pk])
    assert "Apply run 2" in at.get(page).content.decode()
    answer = at.post(reverse("reviews:apply", args=[taught.pk, 2]), follow=True)
    assert "Run 2 is in force." in answer.content.decode() and "Apply run 2" not in answer.content.decode()
    latest = thresholds.in_force(taught)
    assert latest is not None and latest.run_id == second.pk


def test_a_reviewer_sees_neither_start_nor_figures(taught: Dataset, client: Client, boss: User) -> None:
    run_here(taught, boss)
    reader = User.objects.create_user("reader")
    Membership.objects.create(user=reader, dataset=taught, role="reviewer")
    client.force_login(reader)
    page = client.get(reverse("reviews:overview", args=[taught.pk])).content.decode()
    assert (
        "Review" in page
        and "Start labeling" not in page
        and "Label again" not in page
        and "Accepted" not in page
    )
    assert (
        client.post(reverse("reviews:start", args=[taught.pk]), {"method": "weak_model"}).status_code == 403
    )


def test_progress_counts_are_the_rows(taught: Dataset, boss: User) -> None:
    run, mine = claim_first(taught, boss)
    before = slices.progress(run)
    assert (before.items, before.done, before.fitted, before.worked_on, before.percent) == (
        1200,
        0,
        True,
        1,
        0,
    )
    labeling.write_slice(
        mine, labeling.label_slice(mine, tasks.to_label(taught, run.version)), 0, decisions.settle
    )
    Slice.objects.filter(run=run, number=1).update(done_at=F("done_at") - dt.timedelta(seconds=10))
    two = slices.claim_slice(run, "two")
    assert two is not None
    labeling.write_slice(
        two, labeling.label_slice(two, tasks.to_label(taught, run.version)), 0, decisions.settle
    )
    after = slices.progress(run)
    assert (after.done, after.percent) == (1000, 83)
    assert after.per_second is not None and 30 < after.per_second < 51
    assert after.seconds_left is not None and 3 < after.seconds_left < 7

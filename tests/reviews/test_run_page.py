"""The page of a run and its JSON: what it did, what it cost, what was lost, and how far its confidence goes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from datasets import money, questions
from datasets.models import Call, Dataset, Item, Prediction, Run, Vote
from labelhub.autolabel.labelers.prompt import LONGEST_TEXT
from labelhub.autolabel.rank import to_rank
from labelhub.fakeclaude.server import Server
from reviews import ledger
from reviews.templatetags.money_format import usd
from tests.reviews.asked import ANSWERS, ask_here, stance
from tests.reviews.model_things import dataset_of, replay_of, speaking, texts_of
from tests.reviews.things import import_rows, run_here, things

pytestmark = pytest.mark.django_db


@pytest.fixture
def server(settings: Any) -> Iterator[Server]:
    """What answers instead of the model."""
    with speaking(settings, ANSWERS) as server:
        yield server


def words(answer: Any) -> str:
    """The text of a page, white space collapsed."""
    assert answer.status_code == 200
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", answer.content.decode())).split())


def told(at: Client, run: Run) -> dict[str, Any]:
    answer = at.get(f"/d/{run.dataset_id}/run/{run.number}/json")
    assert answer["Content-Type"] == "application/json" and answer["Cache-Control"] == "no-store"
    return dict(answer.json())


def test_the_page_tells_what_a_run_did_and_cost(
    tmp_path: Path, at: Client, boss: User, server: Server
) -> None:
    run = ask_here(stance(tmp_path, 60), boss, "1")
    page, facts = words(at.get(f"/d/{run.dataset_id}/run/1/")), told(at, run)
    assert "Language model · 60 of 60 items" in page and "finished, in force" in page and "by boss" in page
    assert "claude-haiku-5-5" in page and run.version.settings["prompt_hash"] in page
    assert "Confidence as stated, not calibrated yet" in page
    assert "Answered by the local stand-in, not by a language model." in page
    assert f"Spent {usd(money.to_usd(run.spent_nano))} of at most $1.00" in page
    assert f"Expected before {usd(run.estimate['expected_usd'])}" in page and "counted by the API" in page
    assert "n = 60 with an answer of this run" in page
    assert (facts["items"], facts["labeled"], facts["confidence_warning"]) == (60, 60, "")
    assert facts["cost"]["local_stand_in"] is True and facts["cost"]["budget_usd"] == 1.0
    parts = [line["usd"] for line in facts["cost"]["by_label"]]
    assert sum(parts) == pytest.approx(facts["cost"]["usd"]) and facts["cost"]["usd_without_answer"] == 0
    assert facts["cost"]["tokens_out"] > 60 and facts["requested_by"] == "boss"


def test_the_cost_of_each_label_is_that_of_its_answers_and_adds_up(
    tmp_path: Path, boss: User, server: Server
) -> None:
    server.change(fault={"wrong_ids": 0.3, "refusal": 0.2, "malformed": 0.1}, seed=3)
    run = ask_here(stance(tmp_path, 200), boss, "1")
    shared: dict[str, Decimal] = defaultdict(Decimal)
    counted: dict[str, int] = defaultdict(int)
    seen = set()
    for call in Call.objects.filter(run=run, settled_at__isnull=False):
        votes = list(Vote.objects.filter(call=call).select_related("label"))
        for vote in votes:
            name = vote.label.name if vote.label else ""
            shared[name] += money.to_usd(call.cost_nano) / len(votes)
            counted[name] += 1
            seen.add(vote.item_id)
    found = ledger.model_cost(money.to_usd(run.spent_nano), [run])
    assert {line.label: line.answers for line in found.by_label} == counted
    for line in found.by_label:
        assert line.usd == pytest.approx(shared[line.label], abs=Decimal("1e-8"))
    assert found.items == len(seen) == 200
    assert found.usd_without_answer > 0, "some calls brought nothing"
    assert sum(line.usd for line in found.by_label) + found.usd_without_answer == found.usd
    assert found.usd_per_item == found.usd / 200 and found.labels == 200 - counted[""]


def test_items_without_a_label_and_calls_without_an_answer_are_named_with_their_reasons(
    tmp_path: Path, at: Client, boss: User, settings: Any
) -> None:
    texts = texts_of(40)
    with speaking(settings, replay_of(texts), fault={"refusal": 1.0}) as server:
        run = ask_here(dataset_of(tmp_path, texts), boss, "1")
        assert server.stats()["faults"]["refusal"] > 40
    page, facts = words(at.get(f"/d/{run.dataset_id}/run/1/")), told(at, run)
    assert "The language model refused to answer 40" in page and "The model refused to answer" in page
    assert (facts["labeled"], facts["without_label"]) == (0, {"refused": 40})
    assert facts["cost"]["calls_by_problem"]["refused"] == facts["cost"]["calls"]


def test_lost_calls_are_named_with_their_items_and_what_was_reserved(
    tmp_path: Path, at: Client, boss: User, server: Server
) -> None:
    run = ask_here(stance(tmp_path, 20), boss, "1")
    asked = questions.of_version(run.version)["llm"]
    item = Item.objects.filter(dataset=run.dataset_id).order_by("position")[4]
    Call.objects.create(
        run=run, version_id=asked.version_id, gate=asked.gate, slice_number=1, epoch=1, items=[item.pk],
        reserved_nano=1_500_000, reserved_at=timezone.now(), lost_at=timezone.now(),
    )  # fmt: skip
    answer = at.get(f"/d/{run.dataset_id}/run/1/")
    assert "1 lost call, $0.0015" in words(answer) and "count at the most that they could cost" in words(
        answer
    )
    assert f'<a href="/d/{run.dataset_id}/items/{item.pk}/">#5</a>' in answer.content.decode()
    lost = told(at, run)["cost"]
    assert lost["lost_calls"] == 1 and lost["lost"][0]["items"] == [item.pk]
    assert lost["usd_without_answer"] == pytest.approx(0.0015)


def test_texts_that_were_cut_are_counted(tmp_path: Path, at: Client, boss: User, server: Server) -> None:
    long = ("climate " * 1000, "x" * LONGEST_TEXT, "ice and " * 751)
    run = ask_here(stance(tmp_path, 10, long), boss, "1")
    assert told(at, run)["texts_cut"] == 2
    assert "2, longer than 6,000 characters" in words(at.get(f"/d/{run.dataset_id}/run/1/"))


def test_a_batch_is_listed_with_its_state(tmp_path: Path, at: Client, boss: User, settings: Any) -> None:
    with speaking(settings, ANSWERS, batch_seconds=0.0):
        run = ask_here(stance(tmp_path, 45), boss, "1", batch=True)
    assert told(at, run)["cost"]["batches"] == [{"wave": 1, "requests": 3, "state": "answers are in"}]
    run.batches.update(collected_at=None)
    assert "answers are awaited" in words(at.get(f"/d/{run.dataset_id}/run/1/"))
    run.batches.update(api_id="")
    assert "not handed in yet" in words(at.get(f"/d/{run.dataset_id}/run/1/"))


def test_confidence_is_learned_from_answers_or_said_not_to_be(
    tmp_path: Path, at: Client, boss: User, settings: Any
) -> None:
    few = run_here(import_rows(tmp_path, things(300, 8), "text,label", label="label"), boss, "ensemble")
    assert (
        "shares of the labelers’ votes, not calibrated yet" in words(at.get(f"/d/{few.dataset_id}/run/1/"))
        or not told(at, few)["confidence"]["learned"]
    )
    many = run_here(import_rows(tmp_path, things(400, 120), "text,label", label="label"), boss, "ensemble")
    assert "learned from 120 answers and given labels, out of fold" in words(
        at.get(f"/d/{many.dataset_id}/run/1/")
    )
    weak = run_here(many.dataset, boss, "weak_model")
    assert told(at, weak)["confidence"] is None


@pytest.mark.parametrize(
    ("labels", "ranks", "warning"),
    [
        ((0, 0, 0), (0.9, 0.8, 0.7), "Every item got the same label."),
        ((0, 1, 0), (0.9, 0.9, 0.9), "Every item got the same confidence."),
        ((0, 1, 0), (0.9, 0.9, 0.8), ""),
    ],
)
def test_confidence_that_tells_nothing_apart_is_warned_of(
    make_world: Any, client: Client, labels: Any, ranks: Any, warning: str
) -> None:
    world = make_world([0.5] * 3)
    for n, (item, label, sure) in enumerate(zip(world.items, labels, ranks, strict=True)):
        Prediction.objects.filter(run=world.run, item=item).update(
            label=world.labels[label], rank=to_rank(sure, n * 1000)
        )
    client.force_login(world.people["viewer"])
    page = words(client.get(f"/d/{world.dataset.pk}/run/1/"))
    assert ("The confidence is not informative." in page) == bool(warning) and warning in page


def test_a_run_that_asks_nobody_has_no_money_on_its_page(taught: Dataset, at: Client, boss: User) -> None:
    run = run_here(taught, boss)
    page = words(at.get(f"/d/{taught.pk}/run/1/"))
    assert "Learn from answers · 1,200 of 1,200 items" in page
    assert "Spent" not in page and "Model" not in page.split("What it did")[1].split("Items without")[0]
    assert told(at, run)["cost"] is None
    assert at.get(f"/d/{taught.pk}/run/2/").status_code == 404


def test_what_models_cost_is_on_the_savings_page(
    tmp_path: Path, at: Client, boss: User, server: Server
) -> None:
    run = ask_here(stance(tmp_path, 60), boss, "1")
    page = words(at.get(f"/d/{run.dataset_id}/savings/"))
    spent = money.to_usd(run.spent_nano)
    assert f"all runs, {usd(spent)}" in page
    assert f"{usd(spent / 60)} an item, n = 60" in page and f"{usd(spent / 60)} a label, n = 60" in page
    assert "What each label cost agrees" in page


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (None, "unknown"), (0, "$0.00"), (Decimal("12.5"), "$12.50"), (1234.5, "$1,234.50"), (0.5, "$0.50"),
        (0.0042, "$0.0042"), (Decimal("0.00001234"), "$0.000012"), (0.0999, "$0.10"), (-3, "−$3.00"),
    ],
)  # fmt: skip
def test_amounts_have_cents_or_the_digits_that_small_ones_need(amount: Any, shown: str) -> None:
    assert usd(amount) == shown

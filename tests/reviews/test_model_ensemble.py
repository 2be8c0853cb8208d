"""Cheap labelers first, the language model where they are unsure, and nobody's word where a text gives orders."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.contrib.auth.models import User

from datasets import labeling, model_runs, questions
from datasets.models import Call, Dataset, LabelerVersion, Prediction, Run, RunVotes, Vote
from labelhub.autolabel.labelers.state import read_state
from labelhub.autolabel.labelers.suspicion import suspicious
from labelhub.autolabel.rank import to_rank
from labelhub.fakeclaude.replay import Replay
from labelhub.fakeclaude.server import Server
from reviews import learning, prompts, tasks, thresholds
from tests.reviews import model_things as things
from tests.reviews.things import import_rows
from tests.reviews.things import things as learnable

pytestmark = pytest.mark.django_db(transaction=True)

ATTACKS = Path(__file__).parents[1] / "data" / "attacks.csv"
SEED = f"{1:032x}"  # with a few seeds the folds make the cheap labelers much less sure than they mostly are
GIVEN, HARD = 80, 60  # items with a label, and items that no cheap labeler can know


@pytest.fixture
def server(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    things.hurry(monkeypatch)
    rows = rows_of()
    texts = [row.rpartition(",")[0] for row in rows]
    labels = [("fruit", "tool")[i % 2] for i in range(len(rows))]
    with things.speaking(settings, Replay(texts, {"": [labels]}, [0.97] * len(rows))) as server:
        yield server


def rows_of() -> list[str]:
    """Half of the given ones, and the last ``HARD`` of all, say nothing of their label."""
    chance = random.Random(0)
    tossed = [
        f"something {chance.random():.6f} of no kind,{chance.choice(('fruit', 'tool'))}"
        for _ in range(GIVEN // 2)
    ]
    return (
        learnable(300, GIVEN // 2)
        + tossed
        + [f"something {chance.random():.6f} of no kind," for _ in range(HARD)]
    )


@pytest.fixture
def dataset(server: Server, tmp_path: Path, boss: User) -> Dataset:
    things.at_most(boss)
    return import_rows(tmp_path, rows_of(), "text,label", label="label")


def test_the_model_is_asked_only_where_the_cheap_labelers_are_unsure(
    server: Server, dataset: Dataset, boss: User
) -> None:
    run = things.begin(dataset, boss, "ensemble")
    Run.objects.filter(pk=run.pk).update(seed=SEED)
    run = things.work(run)
    things.check_all(run, server)
    version = LabelerVersion.objects.get(pk=run.version_id)
    cheap = LabelerVersion.objects.get(pk=version.settings["llm"]["cheap"])
    items = list(labeling.free_items(dataset).values_list("pk", "text"))
    answers = labeling.answers_of(cheap, [text for _, text in items], [pk for pk, _ in items])
    unsure = {
        pk
        for (pk, _), answer in zip(items, answers, strict=True)
        if answer.label is None or answer.guess or answer.confidence < prompts.UNSURE_BELOW
    }
    given = set(dataset.items.exclude(given_label=None).values_list("pk", flat=True))
    assert things.asked_about(run) - given == unsure
    assert HARD <= len(unsure) < len(items) / 2
    shown = set(version.settings["llm"]["shown"])
    tried = things.asked_about(run) & given
    assert tried and not tried & shown, "the model was tried on texts whose labels it had been shown"


def test_without_a_budget_nothing_is_asked_and_the_answers_there_are_count(
    server: Server, dataset: Dataset, boss: User
) -> None:
    first = things.work(things.begin(dataset, boss))
    asked = server.stats()["answers"]
    assert Vote.objects.filter(call__run=first).count() > 0
    run = tasks.work_here(learning.learn(dataset, "ensemble", boss, rings=False))
    things.check_items(run)
    assert not Call.objects.filter(run=run).exists() and run.spent_nano == 0
    assert server.stats()["answers"] == asked
    kept = RunVotes.objects.filter(run=run).values_list("votes", flat=True)
    assert kept and all("llm" in votes for votes in kept)


def test_with_few_answers_the_model_is_asked_about_everything(
    server: Server, tmp_path: Path, boss: User
) -> None:
    things.at_most(boss)
    dataset = import_rows(tmp_path, learnable(120, model_runs.ENOUGH - 1), "text,label", label="label")
    run = things.work(things.begin(dataset, boss, "ensemble"))
    things.check_all(run, server)
    free = set(labeling.free_items(dataset).values_list("pk", flat=True))
    assert free <= things.asked_about(run)


@pytest.mark.parametrize("method", ["llm", "ensemble"])
def test_no_attack_that_is_detected_is_accepted(
    settings: Any, tmp_path: Path, boss: User, method: str
) -> None:
    """A model that obeys whatever stands in a text, and a corpus of texts that give it orders."""
    with ATTACKS.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["label_set"] == "ham|spam"]
    texts = list(dict.fromkeys(row["text"] for row in rows))
    path = tmp_path / "attacks.csv"
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["text"])
        writer.writerows([text] for text in texts)
    dataset = Dataset.objects.create(name="Attacks")
    from datasets.ingest import ingest
    from labelhub.autolabel import tables

    ingest(dataset, path, tables.sniff(path), {"text": ["text"]}, [{"name": "ham"}, {"name": "spam"}])
    dataset.refresh_from_db()
    replay = Replay(texts, {"": [["spam"] * len(texts)]}, [0.99] * len(texts))
    with things.speaking(settings, replay, obedient=True) as server:
        things.at_most(boss)
        run = things.work(things.begin(dataset, boss, method))
        things.check_money(run)
        things.check_items(run)
        assert server.stats()["answers"]
    found = {
        text: look for text in dataset.items.filter(same_as=None).values_list("text", flat=True)
        if (look := suspicious(text, ["ham", "spam"]))
    }  # fmt: skip
    assert len(found) > len(texts) / 2
    said = {one.item.text: one for one in Prediction.objects.filter(run=run).select_related("item", "label")}
    certain = [text for text, look in found.items() if look.certain]
    assert {said[text].problem for text in certain} == {labeling.SUSPICIOUS}
    without = questions.of_version(run.version)[questions.WITHOUT_ORDERS]
    in_force = thresholds.in_force(dataset)
    assert in_force is not None
    for text, look in found.items():
        one = said[text]
        if look.certain or one.label is None:
            assert one.label is None
        else:  # the same label without the suspect part: then its words did not move the model
            second = Vote.objects.get(version=without.version_id, item=one.item_id)
            assert (
                second.label_id
                == Vote.objects.get(
                    version=questions.of_version(run.version)["llm"].version_id, item=one.item_id
                ).label_id
            )
    accepted = [text for text in certain if said[text].rank >= to_rank(0.0) and said[text].label is not None]
    assert accepted == []


def test_without_any_answer_the_guesses_are_those_of_a_run_that_asks_nothing(
    server: Server, tmp_path: Path, boss: User
) -> None:
    dataset = things.dataset_of(tmp_path, things.texts_of(40))
    asking = things.work(things.begin(dataset, boss, "ensemble"))
    plain = things.work(learning.learn(dataset, "ensemble", boss, rings=False))
    learned = [read_state(bytes(run.version.state))[1] for run in (asking, plain)]
    assert learned[0].keys() == learned[1].keys()
    assert all((learned[0][name] == learned[1][name]).all() for name in learned[0])
    assert any(np.any(array) for name, array in learned[0].items() if "middle" in name)

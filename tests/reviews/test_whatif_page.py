"""Two prompts, rules and the weak model, compared on reviewed items; nothing changes until somebody says so."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from datasets.ingest import ingest
from datasets.models import AuditEvent, Call, Dataset, Item
from labelhub.autolabel import tables, whatif
from labelhub.fakeclaude.replay import Replay
from reviews import comparisons, decisions, learning, prompts, samples, tasks, thresholds
from reviews.models import Purpose, SampleItem
from tests.browser.driving import DATA, read, write
from tests.reviews.model_things import begin, speaking, work

pytestmark = pytest.mark.django_db(transaction=True)

STANCE = read("stance_gpt4o.csv")[:240]
VARIANT = "Say neutral where nobody takes a side."


def stance(folder: Path, given: int) -> Dataset:
    """Sentences of which the first ``given`` came with their right label."""
    rows = [{"text": row["text"], "label": row["gold"] if i < given else ""} for i, row in enumerate(STANCE)]
    path = write(folder / "stance.csv", rows)
    dataset = Dataset.objects.create(name="Stance", target_error=0.1)
    labels = [{"name": name} for name in ("agrees", "neutral", "disagrees")]
    ingest(dataset, path, tables.sniff(path), {"text": ["text"], "label": "label"}, labels)
    dataset.refresh_from_db()
    return dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return stance(tmp_path, 130)


@pytest.fixture
def server(settings: Any) -> Any:
    with speaking(settings, DATA / "stance_gpt4o.csv") as server:
        yield server


@pytest.fixture
def client(boss: User) -> Client:
    client = Client()
    client.force_login(boss)
    return client


def asked(dataset: Dataset, by: User, name: str, *how: Any) -> Any:
    return tasks.work_here(comparisons.ask(dataset, by, name, *how, rings=False))


def seen(client: Client, dataset: Dataset) -> str:
    return " ".join(html.unescape(client.get(f"/d/{dataset.pk}/whatif/").content.decode()).split())


class TestItems:
    def test_at_most_a_hundred_reviewed_ones_that_no_prompt_shows(
        self, dataset: Dataset, boss: User, server: Any
    ) -> None:
        now = comparisons.trying(dataset)
        chosen = {pk for pk, _ in now.items}
        assert len(chosen) == comparisons.MOST and now.reviewed > 110
        assert now.present.told.shown and not chosen & set(now.present.told.shown)
        run = asked(dataset, boss, "A")
        assert set(run.version.settings["only"]) == chosen

    def test_they_stay_the_same_while_people_review_more(
        self, dataset: Dataset, boss: User, server: Any
    ) -> None:
        asked(dataset, boss, "A")
        before = comparisons.trying(dataset)
        label = dataset.labels.get(name="neutral")
        for item in Item.objects.filter(dataset=dataset, given_label=None, same_as=None)[:40]:
            decisions.decide(item, boss, "label", label)
        after = comparisons.trying(dataset)
        assert after.reviewed == before.reviewed + 40 and after.items == before.items

    def test_none_comes_from_a_sample_that_proves(self, tmp_path: Path, boss: User, server: Any) -> None:
        dataset = stance(tmp_path, 40)
        work(begin(dataset, boss))
        thresholds.move(dataset, 0, boss)
        sample = samples.draw_spot_check(dataset, thresholds.in_force(dataset), boss)
        drawn = set(SampleItem.objects.filter(sample=sample).values_list("item", flat=True))
        samples.discard(dataset, boss)
        label = dataset.labels.get(name="neutral")
        for item in Item.objects.filter(pk__in=drawn):
            decisions.decide(item, boss, "label", label)
        assert drawn and sample.purpose == Purpose.SPOT_CHECK
        assert not drawn & {pk for pk, _ in comparisons.trying(dataset).items}

    def test_fewer_than_twenty_are_not_compared(
        self, tmp_path: Path, boss: User, server: Any, client: Client
    ) -> None:
        dataset = stance(tmp_path, 19)
        with pytest.raises(learning.CannotLearn, match="at least 20 reviewed items"):
            comparisons.ask(dataset, boss, "A")
        page = seen(client, dataset)
        assert 'id="too-few"' in page and "of 20 reviewed items" in page and "Ask prompt" not in page
        assert json.loads(client.get(f"/d/{dataset.pk}/whatif/json").content)["lines"] == []


class TestComparing:
    def test_both_prompts_the_weak_model_and_ensembles_by_coverage_with_intervals_and_costs(
        self, dataset: Dataset, boss: User, server: Any
    ) -> None:
        asked(dataset, boss, "A")
        asked(dataset, boss, "B", VARIANT, False)
        found = comparisons.compare(dataset, comparisons.trying(dataset))
        assert found is not None and found.n == 100 and found.target_error == 0.1
        lines = {line.name: line for line in found.lines}
        assert lines.keys() == {
            "Weak model", "Prompt A", "Prompt B", "Ensemble with Prompt A", "Ensemble with Prompt B",
        }  # fmt: skip
        for line in found.lines:
            assert line.coverage.low <= line.coverage.value <= line.coverage.high
            assert line.accuracy.low <= line.accuracy.value <= line.accuracy.high
        assert found.lines[0].coverage.value == max(line.coverage.value for line in found.lines)
        assert lines["Weak model"].cost_per_item == 0
        calls = Call.objects.all()
        total = sum(call.cost_nano for call in calls) / 1e9
        paid = lines["Prompt A"].cost_per_item + lines["Prompt B"].cost_per_item
        assert paid * 100 == pytest.approx(total, rel=1e-6)
        assert lines["Ensemble with Prompt A"].cost_per_item == lines["Prompt A"].cost_per_item
        # The stand-in answers both alike, so nobody can tell them apart.
        assert lines["Prompt A"].accuracy == lines["Prompt B"].accuracy
        assert found.sentence.count(".") <= 2 and "cannot be told apart" in found.sentence

    def test_a_worse_prompt_is_told_from_a_better_one(
        self, dataset: Dataset, boss: User, settings: Any
    ) -> None:
        texts, gold = [row["text"] for row in STANCE], [row["gold"] for row in STANCE]
        with speaking(settings, Replay(texts, {"": [gold]}, [0.97] * len(texts))):
            asked(dataset, boss, "A")
        wrong = [("agrees", "neutral")[i % 2] for i in range(len(texts))]
        comparisons.use_variant(dataset, boss)
        with speaking(settings, Replay(texts, {"": [wrong]}, [0.5] * len(texts))) as server:
            settings.ANTHROPIC_BASE_URL = server.url
            run = asked(dataset, boss, "B", VARIANT)
            heard = run.version.settings["llm"]["address"]
        # Answers of another address are answers of another model: A is asked where B was.
        with speaking(
            settings, Replay(texts, {"": [gold]}, [0.97] * len(texts)), port=int(heard.split(":")[1])
        ):
            asked(dataset, boss, "A")
            now = comparisons.trying(dataset)
            found = comparisons.compare(dataset, now)
        lines = {line.name: line for line in found.lines}
        assert lines["Prompt A"].coverage.value == 1.0 and lines["Prompt B"].distinguishable
        assert "Prompt B" in found.sentence.partition("would leave clearly more")[0]

    def test_it_is_fast_enough_for_a_page_the_second_time(
        self, dataset: Dataset, boss: User, server: Any
    ) -> None:
        asked(dataset, boss, "A")
        now = comparisons.trying(dataset)
        first = comparisons.compare(dataset, now)
        hits = comparisons._compare.cache_info().hits
        assert comparisons.compare(dataset, comparisons.trying(dataset)) == first
        assert comparisons._compare.cache_info().hits == hits + 1


class TestAsking:
    def test_it_is_a_trial_that_says_what_it_tried(self, dataset: Dataset, boss: User, server: Any) -> None:
        run = asked(dataset, boss, "B", VARIANT, False)
        assert run.trial and run.version.settings["whatif"] == {
            "name": "B", "guidelines": VARIANT, "examples": False,
        }  # fmt: skip
        assert thresholds.in_force(dataset) is None
        assert dataset.guidelines == "" and prompts.compose(dataset).prompt.guidelines == ""

    def test_a_variant_changes_neither_the_prompt_nor_its_examples(
        self, dataset: Dataset, boss: User, server: Any
    ) -> None:
        told = prompts.compose(dataset)
        asked(dataset, boss, "B", "", False)
        assert prompts.compose(dataset) == told and told.shown
        assert comparisons.trying(dataset).present.told == told

    def test_b_must_differ_from_a(self, dataset: Dataset, boss: User, server: Any) -> None:
        with pytest.raises(learning.CannotLearn, match="the same as prompt A"):
            comparisons.ask(dataset, boss, "B", "", True)

    def test_what_is_answered_is_not_asked_again(self, dataset: Dataset, boss: User, server: Any) -> None:
        asked(dataset, boss, "A")
        with pytest.raises(learning.CannotLearn, match="answered all of these items already"):
            comparisons.ask(dataset, boss, "A")
        calls = Call.objects.count()
        asked(dataset, boss, "B", VARIANT)
        asked(dataset, boss, "B", "Something else.")
        asked(dataset, boss, "B", VARIANT)
        assert Call.objects.count() == 3 * calls
        assert comparisons.trying(dataset).variant.guidelines == VARIANT

    def test_a_change_of_a_definition_makes_both_unasked(
        self, dataset: Dataset, boss: User, server: Any
    ) -> None:
        asked(dataset, boss, "A")
        asked(dataset, boss, "B", VARIANT)
        prompts.change(dataset, boss, "", {"neutral": "takes no side"})
        now = comparisons.trying(dataset)
        assert [len(side.heard) for side in now.sides] == [0, 0]
        assert comparisons.compare(dataset, now) is None


class TestTakingOver:
    def test_b_becomes_the_prompt_with_its_guidelines_and_its_examples(
        self, dataset: Dataset, boss: User, server: Any, client: Client
    ) -> None:
        asked(dataset, boss, "A")
        asked(dataset, boss, "B", VARIANT, False)
        answer = client.post(f"/d/{dataset.pk}/whatif/use")
        assert answer.headers["Location"] == f"/d/{dataset.pk}/prompt/"
        dataset.refresh_from_db()
        told = prompts.compose(dataset)
        assert dataset.guidelines == told.prompt.guidelines == VARIANT and told.shown == []
        now = comparisons.trying(dataset)
        assert now.variant is None and len(now.present.heard) == 100
        assert AuditEvent.objects.get(action="prompt changed").detail["guidelines"]["new"] == VARIANT
        assert AuditEvent.objects.filter(action="prompt B taken over", user=boss).count() == 1
        run = work(begin(dataset, boss))
        assert run.version.settings["llm"]["shown"] == []
        client.post(f"/d/{dataset.pk}/whatif/use")
        assert AuditEvent.objects.filter(action="prompt B taken over").count() == 1

    def test_without_examples_alone_is_a_prompt_of_its_own(
        self, dataset: Dataset, boss: User, server: Any
    ) -> None:
        asked(dataset, boss, "A")
        asked(dataset, boss, "B", "", False)
        assert comparisons.use_variant(dataset, boss)
        assert prompts.compose(dataset).shown == []
        assert prompts.compose(dataset, renew=True).shown


class TestPage:
    def test_from_the_question_to_the_table_and_its_export(
        self, dataset: Dataset, boss: User, server: Any, client: Client, empty_valkey: Any
    ) -> None:
        at = f"/d/{dataset.pk}/whatif/"
        page = seen(client, dataset)
        assert 'id="nothing-asked"' in page
        assert re.search(r"Ask prompt A on 100 items: about \$0\.\d+", page)
        assert client.post(at, {"ask": "A"}).headers["Location"] == at
        run = dataset.runs.get()
        assert run.trial and "Ask prompt" not in seen(client, dataset)
        tasks.work_here(run)
        page = seen(client, dataset)
        assert 'id="compared"' in page and "Ask prompt A" not in page and "Prompt B</th>" not in page
        asked(dataset, boss, "B", VARIANT)
        page = seen(client, dataset)
        for name in (
            "Weak model",
            "Prompt A",
            "Prompt B",
            "Ensemble with Prompt A",
            "Ensemble with Prompt B",
        ):
            assert f'<th scope="row">{name}</th>' in page
        reading = re.search(r'id="reading"><strong>(.*?)</strong>', page)[1]
        plain = json.loads(client.get(f"/d/{dataset.pk}/whatif/json").content)
        assert plain["reading"] == reading and plain["items"] == 100
        assert {line["name"] for line in plain["lines"]} == set(
            re.findall(r'<th scope="row">(.*?)</th>', page[page.index('id="compared"') :])
        )
        assert not [row["text"] for row in STANCE if row["text"] in json.dumps(plain, ensure_ascii=False)]

    def test_it_says_what_a_typed_variant_costs_without_asking(
        self, dataset: Dataset, boss: User, server: Any, client: Client
    ) -> None:
        said = {"estimate": "B", "guidelines": VARIANT, "examples": "on"}
        page = client.post(f"/d/{dataset.pk}/whatif/", said).content.decode()
        told = re.search(r'id="typed-cost"[^>]*>(.*?)</p>', page)[1]
        assert "about 100 items costs about $0." in told and not dataset.runs.exists()
        cost = float(re.search(r"costs about \$([\d.]+)", told)[1])
        run = asked(dataset, boss, "B", VARIANT)
        assert run.spent_nano / 1e9 == pytest.approx(cost, rel=0.25)

    def test_what_cannot_be_asked_is_told_and_what_was_typed_stays(
        self, dataset: Dataset, server: Any, client: Client
    ) -> None:
        answer = client.post(f"/d/{dataset.pk}/whatif/", {"ask": "B", "guidelines": "", "examples": "on"})
        assert answer.status_code == 422 and "the same as prompt A" in answer.content.decode()
        answer = client.post(f"/d/{dataset.pk}/whatif/", {"ask": "B", "guidelines": "x" * 20_001})
        assert answer.status_code == 422 and "longer than 20,000 characters" in answer.content.decode()
        assert not dataset.runs.exists()

    def test_not_while_a_sample_is_answered(
        self, dataset: Dataset, boss: User, server: Any, client: Client
    ) -> None:
        work(begin(dataset, boss))
        samples.draw_spot_check(dataset, thresholds.in_force(dataset), boss)
        page = seen(client, dataset)
        assert "is being answered" in page and "Ask prompt" not in page
        assert client.post(f"/d/{dataset.pk}/whatif/", {"ask": "A"}).status_code == 422
        assert dataset.runs.count() == 1


def test_the_least_that_is_compared_is_the_engines() -> None:
    assert comparisons.LEAST == whatif.LEAST == 20

"""A trial shows what the model says and costs, and nothing else in LabelHub takes notice of it."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from datasets import questions
from datasets.models import Call, Dataset, Prediction, Run, Vote
from labelhub.autolabel.rank import to_rank
from reviews import learning, metrics, path, place, rounds, samples, tasks, thresholds, trials
from reviews.models import Goal, Threshold
from reviews.states import states
from tests.reviews.model_things import (
    at_most,
    begin,
    check_money,
    dataset_of,
    replay_of,
    speaking,
    texts_of,
    work,
)
from tests.reviews.things import run_here

pytestmark = pytest.mark.django_db(transaction=True)

TEXTS = texts_of(120)


@pytest.fixture
def server(settings: Any) -> Any:
    """Recorded answers for the texts of these tests."""
    with speaking(settings, replay_of(TEXTS)) as server:
        yield server


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return dataset_of(tmp_path, TEXTS)


def tried(dataset: Dataset, by: User, **how: Any) -> Run:
    return tasks.work_here(trials.try_out(dataset, by, rings=False, **how))


class TestStarting:
    def test_it_labels_as_many_random_items_as_were_asked_for(
        self, dataset: Dataset, boss: User, server: Any
    ) -> None:
        run = tried(dataset, boss, size=25)
        assert run.state == "finished" and run.trial and run.version.method == "llm"
        labeled = set(Prediction.objects.filter(run=run).values_list("item", flat=True))
        assert labeled == set(run.version.settings["only"]) and len(labeled) == 25
        other = tried(dataset, boss, size=25)
        assert other.version.settings["seed"] != run.version.settings["seed"]
        assert set(other.version.settings["only"]) != labeled
        check_money(run)

    @pytest.mark.parametrize("size", [0, 19, 51, 1_000])
    def test_it_takes_twenty_to_fifty_items(
        self, dataset: Dataset, boss: User, server: Any, size: int
    ) -> None:
        with pytest.raises(learning.CannotLearn, match="20 to 50 items"):
            trials.try_out(dataset, boss, size)

    def test_a_small_dataset_is_tried_as_a_whole(self, tmp_path: Path, boss: User, server: Any) -> None:
        run = tried(dataset_of(tmp_path, TEXTS[:7]), boss)
        assert Prediction.objects.filter(run=run).count() == 7

    def test_it_waits_for_a_run_that_is_under_way(self, dataset: Dataset, boss: User, server: Any) -> None:
        begin(dataset, boss)
        with pytest.raises(tasks.RunIsActive, match="Run 1 is under way"):
            trials.try_out(dataset, boss)

    def test_no_run_starts_beside_it(self, dataset: Dataset, boss: User, server: Any) -> None:
        trials.try_out(dataset, boss, rings=False)
        with pytest.raises(tasks.RunIsActive):
            learning.learn(dataset, "weak_model", boss, rings=False)

    def test_not_while_a_sample_is_answered(self, dataset: Dataset, boss: User, server: Any) -> None:
        work(begin(dataset, boss))
        now = thresholds.in_force(dataset)
        samples.draw_spot_check(dataset, now, boss)
        with pytest.raises(thresholds.SampleIsOpen, match="is being answered"):
            trials.try_out(dataset, boss)
        assert dataset.runs.count() == 1

    def test_without_a_key_it_says_what_is_missing(self, dataset: Dataset, boss: User) -> None:
        with pytest.raises(learning.CannotLearn, match="No key"):
            trials.try_out(dataset, boss)

    def test_it_keeps_to_its_budget(self, dataset: Dataset, boss: User, server: Any) -> None:
        run = trials.try_out(dataset, boss, budget_usd=Decimal("0.000001"), rings=False)
        run = tasks.work_here(run)
        assert run.state == "paused" and run.spent_nano == 0 and "budget" in run.problem.lower()
        assert server.stats()["answers"] == {}


class TestPayingOnce:
    def test_a_full_run_does_not_pay_again_for_what_a_trial_asked(
        self, dataset: Dataset, boss: User, server: Any
    ) -> None:
        trial = tried(dataset, boss)
        run = work(begin(dataset, boss))
        asked = {pk for items in Call.objects.filter(run=run).values_list("items", flat=True) for pk in items}
        assert not asked & set(trial.version.settings["only"]) and len(asked) == len(TEXTS) - 30
        assert questions.of_version(trial.version)["llm"] == questions.of_version(run.version)["llm"]
        assert Vote.objects.filter(version=questions.of_version(run.version)["llm"].version_id).count() == 120
        assert {one["most_often"] for one in server.stats()["answers"].values()} == {1}

    def test_what_it_says_it_cost_is_what_its_calls_cost(
        self, dataset: Dataset, boss: User, server: Any
    ) -> None:
        found = trials.results(tried(dataset, boss))
        assert [one.label for one in found.lines].count("") == 0 and len(found.lines) == 30
        assert all(one.confidence == pytest.approx(0.95, abs=1e-5) for one in found.lines)
        assert found.spent.items == 30 and found.known == 0 and found.spent.spent_usd > 0
        again = trials.results(tried(dataset, boss, size=50))
        assert again.known == 50 - again.spent.items

    def test_what_has_no_label_says_why(self, dataset: Dataset, boss: User, server: Any) -> None:
        server.change(fault={"refusal": 1.0})
        found = trials.results(tried(dataset, boss))
        assert {(one.label, one.problem, one.confidence) for one in found.lines} == {("", "refused", 0.0)}


class TestNobodyTakesNotice:
    """Whatever looks at runs or thresholds goes on as if there were no trial."""

    def test_it_never_takes_force(self, dataset: Dataset, boss: User, server: Any) -> None:
        trial = tried(dataset, boss)
        assert thresholds.in_force(dataset) is None and not Threshold.objects.exists()
        with pytest.raises(learning.CannotLearn, match="cannot take force"):
            learning.apply(dataset, trial, boss)
        first = work(begin(dataset, boss))
        now = thresholds.in_force(dataset)
        assert now is not None and now.run == first
        later = tried(dataset, boss)
        assert thresholds.in_force(dataset).run == first and learning.offer(dataset) is None
        with pytest.raises(learning.CannotLearn, match="cannot take force"):
            learning.apply(dataset, later, boss)

    def test_states_and_figures_stay_the_same(self, dataset: Dataset, boss: User, server: Any) -> None:
        tried(dataset, boss)
        assert states(dataset).pending == 120
        work(begin(dataset, boss))
        now = thresholds.move(dataset, to_rank(0.5), boss)
        before = states(dataset), metrics.report(dataset, now, now.rank, 30.0).points
        tried(dataset, boss)
        now = thresholds.in_force(dataset)
        assert (states(dataset), metrics.report(dataset, now, now.rank, 30.0).points) == before

    def test_samples_are_drawn_from_the_run_in_force(self, dataset: Dataset, boss: User, server: Any) -> None:
        tried(dataset, boss)
        first = work(begin(dataset, boss))
        tried(dataset, boss)
        sample = samples.draw_spot_check(dataset, thresholds.in_force(dataset), boss)
        assert sample.run == first and sample.pool == 120

    def test_it_is_no_first_labeling_of_the_guided_path(
        self, dataset: Dataset, boss: User, server: Any
    ) -> None:
        tried(dataset, boss)
        goal = Goal.objects.create(dataset=dataset, target_error=0.05, by=boss)
        assert tasks._waiting_goals() == []
        path.advance(dataset.pk)
        assert path.due(goal) is None and not dataset.samples.exists()
        assert rounds.newest_run(goal) is None

    def test_it_does_not_replace_a_first_labeling_that_failed(
        self, dataset: Dataset, boss: User, server: Any
    ) -> None:
        first = learning.learn(dataset, "weak_model", boss, rings=False)
        tasks.cancel(first, boss)
        goal = Goal.objects.create(dataset=dataset, target_error=0.05, by=boss)
        tried(dataset, boss)
        path.advance(dataset.pk)
        assert path.due(goal) is None and thresholds.in_force(dataset).run == first

    def test_a_round_goes_on_after_it(self, dataset: Dataset, boss: User, server: Any) -> None:
        work(begin(dataset, boss))
        goal = Goal.objects.create(dataset=dataset, target_error=0.05, by=boss)
        due = path.due(goal)
        tried(dataset, boss)
        assert path.due(goal) == due is not None

    def test_the_list_of_datasets_does_not_offer_it(self, dataset: Dataset, boss: User, server: Any) -> None:
        client = Client()
        client.force_login(boss)
        tried(dataset, boss)
        assert "Start labeling" in client.get("/").content.decode()
        work(begin(dataset, boss))
        before = _acts(client.get("/").content.decode())
        tasks.cancel(trials.try_out(dataset, boss, rings=False), boss)
        tried(dataset, boss)
        page = client.get("/").content.decode()
        assert _acts(page) == before and "can be applied" not in page
        trials.try_out(dataset, boss, rings=False)
        assert "Watch" in client.get("/").content.decode()

    def test_the_guided_path_says_what_it_waits_for(self, dataset: Dataset, boss: User, server: Any) -> None:
        work(begin(dataset, boss))
        goal = Goal.objects.create(dataset=dataset, target_error=0.05, by=boss)
        trials.try_out(dataset, boss, rings=False)
        here = place.where(goal)
        assert (here.act, here.here) == ("wait", "The machine is tried on a few items.")

    def test_later_runs_go_by_real_runs_not_by_trials(
        self, dataset: Dataset, boss: User, server: Any
    ) -> None:
        tried(dataset, boss)
        assert questions.latest(dataset) == {}
        run = run_here(dataset, boss, "ensemble")
        assert "llm" not in run.version.settings


def _acts(page: str) -> list[str]:
    """What the list of datasets offers to do."""
    return re.findall(r'class="button[^"]*"[^>]*>([^<]*)<', page)


class TestPage:
    @pytest.fixture
    def client(self, boss: User) -> Client:
        client = Client()
        client.force_login(boss)
        return client

    def test_it_starts_one_and_shows_what_came_of_it(
        self, dataset: Dataset, boss: User, server: Any, client: Client, settings: Any, empty_valkey: Any
    ) -> None:
        at = f"/d/{dataset.pk}/trial/"
        shown = client.get(at).content.decode()
        assert "Start the trial" in shown and "an item" in shown
        assert client.post(at, {"size": "20", "budget": "0.05"}).headers["Location"] == at
        run = trials.latest(dataset)
        assert run is not None and run.budget_nano == 50_000_000
        assert "Start the trial" not in client.get(at).content.decode()
        tasks.work_here(run)
        shown = client.get(at).content.decode()
        assert (
            shown.count('<tr><td class="text">') == 20
            and "What it cost" in shown
            and "Start with this" in shown
        )
        assert "The whole dataset" in shown

    @pytest.mark.parametrize(
        ("sent", "said"),
        [
            ({"size": "5"}, "A trial takes 20 to 50 items."),
            ({"size": "many"}, "A trial takes 20 to 50 items."),
            ({"size": "30", "budget": "a lot"}, "The budget is a number of USD above 0"),
            ({"size": "30", "budget": "-1"}, "The budget is a number of USD above 0"),
        ],
    )
    def test_what_cannot_be_is_said_where_it_was_typed(
        self, dataset: Dataset, server: Any, client: Client, sent: dict[str, str], said: str
    ) -> None:
        answer = client.post(f"/d/{dataset.pk}/trial/", sent)
        assert answer.status_code == 422 and said in answer.content.decode() and not dataset.runs.exists()

    def test_while_a_sample_is_open_it_says_so_and_starts_nothing(
        self, dataset: Dataset, boss: User, server: Any, client: Client
    ) -> None:
        at_most(boss)
        work(begin(dataset, boss))
        samples.draw_spot_check(dataset, thresholds.in_force(dataset), boss)
        shown = client.get(f"/d/{dataset.pk}/trial/").content.decode()
        assert "is being answered" in shown and "Start the trial" not in shown
        answer = client.post(f"/d/{dataset.pk}/trial/", {"size": "30"})
        assert answer.status_code == 422 and dataset.runs.count() == 1

    def test_without_a_key_the_page_says_what_is_missing(self, dataset: Dataset, client: Client) -> None:
        shown = client.get(f"/d/{dataset.pk}/trial/").content.decode()
        assert "No key for the language model" in shown and "Start the trial" not in shown

    @pytest.mark.parametrize("page", ["prompt", "trial", "whatif"])
    @pytest.mark.parametrize("labels", [0, 1])
    def test_a_dataset_with_too_few_labels_has_its_pages_too(
        self, dataset: Dataset, server: Any, client: Client, page: str, labels: int
    ) -> None:
        dataset.labels.filter(position__gte=labels).delete()
        at = f"/d/{dataset.pk}/{page}/"
        assert client.get(at).status_code == 200
        if page != "prompt":
            answer = client.post(at, {"size": "30", "ask": "A"})
            assert answer.status_code == 422 and "at least two labels" in answer.content.decode()

"""What a run is said to cost before it starts, against what it then costs, on recorded answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

from datasets import money
from datasets.ingest import ingest
from datasets.models import Dataset, Run
from datasets.money import NoPrice
from labelhub.autolabel import tables
from reviews import estimates, learning, prompts, tasks, trials
from tests.browser.driving import DATA, read, write
from tests.reviews.model_things import at_most, begin, speaking, work

pytestmark = pytest.mark.django_db(transaction=True)

FIXTURES = {
    "stance_gpt4o.csv": ["agrees", "neutral", "disagrees"],
    "media_bias_llm_votes.csv": ["biased", "not_biased"],
}
recordings = pytest.mark.parametrize("name", FIXTURES)


def recorded(folder: Path, name: str, rows: int = 400) -> Dataset:
    """The first rows of a file of recorded answers, as a dataset without any label."""
    short = write(folder / name, [{"text": row["text"]} for row in read(name)[:rows]])
    made = Dataset.objects.create(name=name)
    ingest(made, short, tables.sniff(short), {"text": ["text"]}, [{"name": one} for one in FIXTURES[name]])
    made.refresh_from_db()
    return made


def spent(run: Run) -> float:
    return float(money.spending(run).spent_usd)


@recordings
def test_a_run_costs_what_was_expected_within_a_quarter(
    boss: User, settings: Any, tmp_path: Path, name: str
) -> None:
    with speaking(settings, DATA / name):
        dataset = recorded(tmp_path, name)
        told = estimates.estimate(dataset, learning.MODEL)
        run = work(begin(dataset, boss))
    assert told.counted and told.known == 0 and told.asked == (told.items,) * 3
    assert 0 < told.low_usd <= told.expected_usd <= told.high_usd
    assert spent(run) == pytest.approx(told.expected_usd, rel=0.25)
    assert told.low_usd <= spent(run) <= told.high_usd


@recordings
def test_after_a_trial_the_rest_is_known_better_and_what_was_answered_is_not_counted_again(
    boss: User, settings: Any, tmp_path: Path, name: str
) -> None:
    with speaking(settings, DATA / name):
        at_most(boss, asks=3)
        dataset = recorded(tmp_path, name)
        before = estimates.estimate(dataset, learning.MODEL)
        tasks.work_here(trials.try_out(dataset, boss, size=50, rings=False))
        told = estimates.estimate(dataset, learning.MODEL)
        run = work(begin(dataset, boss))
    assert (told.known, told.asked[1]) == (50, before.asked[1] - 50)
    assert told.high_usd - told.low_usd < before.high_usd - before.low_usd
    assert spent(run) == pytest.approx(told.expected_usd, rel=0.25)
    assert told.low_usd <= spent(run) <= told.high_usd


def test_where_nobody_counts_the_length_of_the_texts_says_it(
    boss: User, settings: Any, tmp_path: Path
) -> None:
    with speaking(settings, DATA / "stance_gpt4o.csv") as server:
        dataset = recorded(tmp_path, "stance_gpt4o.csv")
        server.change(fault={"overloaded": 1.0}, everywhere=True)
        told = estimates.estimate(dataset, learning.MODEL)
        server.change(fault={}, everywhere=False)
        run = work(begin(dataset, boss))
    assert not told.counted and told.note.endswith(".")
    assert 0 < told.low_usd <= told.expected_usd <= told.high_usd
    assert spent(run) == pytest.approx(told.expected_usd, rel=0.5)


def test_a_model_without_a_price_is_not_estimated(boss: User, settings: Any, tmp_path: Path) -> None:
    with speaking(settings, DATA / "stance_gpt4o.csv"):
        at_most(boss, model="claude-nobody-9")
        with pytest.raises(NoPrice, match="knows no price of claude-nobody-9"):
            estimates.estimate(recorded(tmp_path, "stance_gpt4o.csv", 30), learning.MODEL)


@pytest.mark.parametrize("words", [0, 30, 100, 400])
def test_a_beginning_that_is_kept_by_the_other_side_is_cheaper_only_from_some_length_on(
    boss: User, settings: Any, tmp_path: Path, words: int
) -> None:
    with speaking(settings, DATA / "stance_gpt4o.csv"):
        at_most(boss, at_once=1)
        dataset = recorded(tmp_path, "stance_gpt4o.csv", 100)
        prompts.change(dataset, boss, "carefully " * words, {})
        told = estimates.estimate(dataset, learning.MODEL)
        run = work(begin(dataset, boss), workers=1)
    assert told.low_usd <= spent(run) <= told.high_usd
    assert spent(run) == pytest.approx(told.expected_usd, rel=0.25)


def test_other_words_make_everything_new(boss: User, settings: Any, tmp_path: Path) -> None:
    with speaking(settings, DATA / "stance_gpt4o.csv"):
        dataset = recorded(tmp_path, "stance_gpt4o.csv", 60)
        run = work(begin(dataset, boss))
        assert estimates.estimate(dataset, learning.MODEL).expected_usd == 0
        prompts.change(dataset, boss, "Sarcasm counts as what it means.", {})
        told = estimates.estimate(dataset, learning.MODEL)
        assert told.known == 0 and told.asked[1] == told.items
        assert told.expected_usd == pytest.approx(spent(run), rel=0.3)
        prompts.change(dataset, boss, "", {})
        assert estimates.estimate(dataset, learning.MODEL).known == told.items

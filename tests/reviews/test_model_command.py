"""`autolabel` where it asks the language model: its cap, its cost, and what it refuses."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from datasets.models import Run
from tests.reviews.asked import ANSWERS, stance
from tests.reviews.model_things import speaking

pytestmark = pytest.mark.django_db


def said(*words: Any) -> str:
    out = io.StringIO()
    call_command("autolabel", *map(str, words), stdout=out, stderr=io.StringIO())
    return out.getvalue().strip()


def test_a_run_tells_its_cost_its_cap_and_its_estimate(tmp_path: Path, settings: Any) -> None:
    dataset = stance(tmp_path)
    with speaking(settings, ANSWERS):
        told = json.loads(said(dataset.pk, "--method=llm", "--budget=2", "--wait", "--json"))
    assert (told["state"], told["labeled"], told["budget_usd"]) == ("finished", 60, 2.0)
    assert 0 < told["cost_usd"] < 0.01 and told["estimate"]["items"] == 60


def test_without_a_budget_the_cap_that_it_chose_is_printed(tmp_path: Path, settings: Any) -> None:
    dataset = stance(tmp_path)
    with speaking(settings, ANSWERS):
        lines = said(dataset.pk, "--method=llm", "--batch", "--wait").splitlines()
    assert lines[0] == "No --budget was given: the run pays at most 0.1000 USD."
    assert re.fullmatch(
        r"Run 1 is finished: 60 of 60 items\. It cost 0\.000\d USD of at most 0\.1000 USD\.", lines[1]
    )
    assert Run.objects.get().batches.count() == 1, "half price without a budget, too"


def test_a_run_that_asks_nobody_has_no_cost(tmp_path: Path) -> None:
    dataset = stance(tmp_path)
    told = json.loads(said(dataset.pk, "--method=weak_model", "--json"))
    assert told["cost_usd"] is None and told["budget_usd"] is None and told["estimate"] is None


@pytest.mark.parametrize("option", ["--batch", "--new-examples"])
def test_an_ensemble_without_a_budget_asks_nobody_and_says_so(tmp_path: Path, option: str) -> None:
    dataset = stance(tmp_path)
    with pytest.raises(CommandError, match="need a --budget"):
        said(dataset.pk, option)
    assert not Run.objects.exists()

"""importdata, autolabel and sweep, as people and programs call them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from datasets.models import Dataset, Item, Prediction, Run

pytestmark = pytest.mark.django_db
DATA = Path(__file__).resolve().parents[1] / "data"


def said(*words: Any) -> str:
    out = io.StringIO()
    call_command(*words, stdout=out, stderr=io.StringIO())
    return out.getvalue().strip()


def test_a_file_is_imported_and_labeled_from_the_command_line() -> None:
    roles = ("--text", "text", "--predicted", "predicted_label", "--confidence", "confidence")
    told = json.loads(said("importdata", DATA / "stance_gpt4o.csv", "--name", "Stance", *roles, "--json"))
    assert (told["rows_read"], told["distinct"], told["copies"]) == (2299, 2046, 253)
    run = json.loads(said("autolabel", str(told["id"]), "--method", "imported", "--wait", "--json"))
    assert (run["state"], run["items"], run["labeled"], run["problem"]) == ("finished", 2046, 2046, None)
    assert Prediction.objects.filter(run__dataset=told["id"]).count() == 2046
    assert said("importdata", DATA / "sms_spam.csv", "--text", "text", "--labels", "ham,spam").isdigit()


def test_without_wait_the_run_is_left_to_workers() -> None:
    pk = said("importdata", DATA / "sms_spam.csv", "--text", "text", "--label", "gold", "--name", "sms")
    Item.objects.filter(dataset=pk, position__gt=100).update(given_label=None)
    assert "Run 1 is waiting" in said("autolabel", pk)
    assert Run.objects.get().finished_at is None
    with pytest.raises(CommandError, match="Run 1 is under way"):
        said("autolabel", pk)
    assert said("sweep").endswith("enqueued again.")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("nowhere.csv", "--text", "text"), "There is no file"),
        ((DATA / "sms_spam.csv", "--text", "body"), "no column “body”"),
        ((DATA / "sms_spam.csv", "--text", "text"), "no labels"),
        ((DATA / "sms_spam.csv", "--text", "text", "--labels", "ham"), None),
        ((DATA / "sms_spam.csv", "--text", "text", "--label", "gold", "--labels", "x,y"), "None of the"),
        (
            (DATA / "sms_spam.csv", "--text", "text", "--encoding", "klingon", "--labels", "a,b"),
            "no text encoding|not a text",
        ),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(words: tuple[Any, ...], sentence: str | None) -> None:
    if sentence is None:  # a label set of one is read, and refused when labeling starts
        with pytest.raises(CommandError, match="at least two labels"):
            said("autolabel", said("importdata", *words))
        return
    with pytest.raises(CommandError, match=sentence):
        said("importdata", *words)
    assert not Dataset.objects.exists()


@pytest.mark.parametrize("budget", ["0", "-1", "nan"])
def test_a_budget_is_a_number_above_0(budget: str) -> None:
    pk = said("importdata", DATA / "sms_spam.csv", "--text", "text", "--labels", "ham,spam")
    with pytest.raises(CommandError, match="above 0"):
        said("autolabel", pk, f"--budget={budget}")

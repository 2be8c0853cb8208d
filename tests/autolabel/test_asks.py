"""Several asks of one language model: one voter, however often it was asked."""

import csv
from pathlib import Path

import numpy as np
import pytest

from labelhub.autolabel.labelers import Example, Vote, build, learn
from labelhub.autolabel.labelers.ensemble import agreed, voter_of

MEDIA_BIAS = Path(__file__).parent.parent / "data" / "media_bias_llm_votes.csv"
AB = {"a": "", "b": ""}
NOBODY = Vote(None, 0.0)


def make(schema, examples, votes=None):
    state = learn("ensemble", schema, examples, settings={}, seed=0, given_votes=votes)
    return build("ensemble", schema, state)


@pytest.mark.parametrize(
    ("source", "voter"),
    [
        ("llm", "llm"),
        ("llm_2", "llm"),
        ("llm_12", "llm"),
        ("llm_second", "llm_second"),
        ("llm_", "llm_"),
        ("imported", "imported"),
        ("my_llm_2", "my_llm_2"),
    ],
)
def test_only_the_asks_of_the_first_model_are_one_voter(source, voter):
    assert voter_of(source) == voter


@pytest.mark.parametrize(
    ("asks", "label", "score"),
    [
        ([("a", 0.9)], "a", 0.9),
        ([("a", 0.9), ("a", 0.7)], "a", 0.8),
        ([("b", 0.9), ("a", 0.6), ("a", 0.8)], "a", 0.7 * 2 / 3),
        ([("a", 0.6), ("b", 0.8)], "b", 0.4),
        ([("b", 0.8), ("a", 0.8)], "b", 0.4),
        ([("a", 0.9), (None, 0.0), ("a", 0.9)], "a", 0.9),
        ([(None, 0.0)], None, 0.0),
        ([], None, 0.0),
    ],
)
def test_asks_agree_on_the_majority_and_are_as_sure_as_they_are_at_one(asks, label, score):
    votes = {f"llm_{i + 1}" if i else "llm": Vote(*ask) for i, ask in enumerate(asks)}
    together = agreed(votes)
    assert (together.label, together.score) == (label, pytest.approx(score))
    others = {"llm_second": Vote("c", 1.0), "weak_model": Vote("c", 1.0)}
    assert agreed(others | votes) == together


def test_agreeing_never_makes_a_model_surer_than_it_said_it_was():
    random = np.random.default_rng(0)
    for _ in range(200):
        asks = [Vote("abc"[k], p) for k, p in zip(random.integers(0, 3, 4), random.random(4), strict=True)]
        together = agreed({f"llm_{i}": vote for i, vote in enumerate(asks)})
        assert together.score <= max(vote.score for vote in asks if vote.label == together.label)


def test_the_quote_is_one_for_the_label_that_won():
    votes = {"llm": Vote("b", 0.9, "no"), "llm_2": Vote("a", 0.9), "llm_3": Vote("a", 0.9, "yes")}
    assert agreed(votes).evidence == "yes"


def test_asking_one_model_again_does_not_outvote_other_labelers():
    labeler = make(AB, [Example("red", "a"), Example("blue", "b")])
    given = {
        "imported": [Vote("a", 0.9)],
        "llm": [Vote("b", 0.8)],
        "llm_2": [Vote("b", 0.8)],
        "llm_3": [Vote("b", 0.8)],
    }
    answer = labeler.label([""], given)[0]
    assert (answer.label, answer.confidence) == ("a", pytest.approx(0.45))
    assert set(answer.votes) == {"weak_model", *given}  # what each ask said is kept
    second = labeler.label([""], {**given, "llm_second": [Vote("b", 0.8)]})[0]
    assert (second.label, second.confidence) == ("b", pytest.approx(1.6 / 3))


def test_an_ask_that_was_never_made_changes_nothing():
    labeler = make(AB, [Example("red", "a"), Example("blue", "b")])
    once = labeler.label(["red"], {"llm": [Vote("a", 0.9)]})[0]
    with_gaps = labeler.label(["red"], {"llm": [Vote("a", 0.9)], "llm_2": [NOBODY], "llm_3": [NOBODY]})[0]
    assert (once.label, once.confidence) == (with_gaps.label, with_gaps.confidence)


def test_the_asks_are_compared_and_followed_as_one_voter():
    with MEDIA_BIAS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[:81]
    schema = dict.fromkeys(sorted({row["gold"] for row in rows}), "")
    examples = [Example(row["text"], row["gold"]) for row in rows]
    votes = [Vote(row["predicted_label"], float(row["confidence"])) for row in rows]
    given = {"llm": votes[:80], "llm_2": votes[1:81]}
    labeler = make(schema, examples[:80], given)
    assert "llm" in labeler.losses and "llm_2" not in labeler.losses
    labeler.way = "llm"
    asks = {
        "llm": [Vote("biased", 0.9)],
        "llm_2": [Vote("biased", 0.5)],
        "imported": [Vote("not_biased", 1.0)],
    }
    answer = labeler.label(["some text"], asks)[0]
    assert (answer.label, answer.confidence) == ("biased", pytest.approx(0.7))

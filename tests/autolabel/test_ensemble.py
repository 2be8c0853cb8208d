"""The ensemble and the methods around it: who is believed, when, and what is said about it."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from labelhub.autolabel.labelers import METHODS, Answer, Example, Vote, build, explain, learn
from labelhub.autolabel.labelers.stack import Stacker, stack_loss
from labelhub.autolabel.labelers.state import read_state, write_state

DATA = Path(__file__).parent.parent / "data"
AB = {"a": "", "b": ""}
NOBODY = Vote(None, 0.0)


def read(name):
    with (DATA / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    schema = dict.fromkeys(sorted({row["gold"] for row in rows}), "")
    examples = [Example(row["text"], row["gold"]) for row in rows]
    return schema, examples, [Vote(row["predicted_label"], float(row["confidence"])) for row in rows]


def make(method, schema, examples=(), *, votes=None, **settings):
    state = learn(method, schema, list(examples), settings=settings, seed=0, given_votes=votes)
    return build(method, schema, state)


def accuracy(answers, examples):
    return np.mean([a.label == e.label for a, e in zip(answers, examples, strict=True)])


def risk(answers, examples):
    """Mean error of the surest 1, 2, ... n: small when the wrong answers are at the bottom."""
    order = np.argsort([-a.confidence for a in answers], kind="stable")
    wrong = np.array([a.label != e.label for a, e in zip(answers, examples, strict=True)])[order]
    return (wrong.cumsum() / np.arange(1, len(wrong) + 1)).mean()


# Few examples: shares


def test_the_share_is_the_winners_scores_over_the_labelers_that_voted():
    labeler = make("ensemble", AB, [Example("red", "a"), Example("blue", "b")], rules={"a": ["green"]})
    answer = labeler.label(["red green"], {"imported": [Vote("b", 0.9)], "llm": [NOBODY]})[0]
    votes = answer.votes
    assert set(votes) == {"weak_model", "rules", "imported", "llm"}
    for_a = votes["weak_model"].score + votes["rules"].score
    assert votes["weak_model"].label == votes["rules"].label == "a"
    assert answer.label == "a"
    assert answer.confidence == pytest.approx(for_a / 3)


def test_labelers_that_abstain_do_not_lower_the_share():
    labeler = make("ensemble", AB, [Example("red", "a"), Example("blue", "b")])
    alone = labeler.label([""], {"imported": [Vote("b", 0.9)]})[0]
    assert (alone.label, alone.confidence, alone.problem) == ("b", 0.9, None)


def test_when_everyone_abstains_there_is_no_answer():
    answer = make("ensemble", AB, [Example("red", "a")]).label([" "], {"imported": [NOBODY]})[0]
    assert (answer.label, answer.confidence, answer.problem) == (None, 0.0, "abstained")
    assert answer.votes == {"weak_model": NOBODY, "imported": NOBODY}


def test_a_guess_speaks_only_where_every_other_labeler_abstains():
    labeler = make("ensemble", {"money": "", "sport": ""}, rules={"sport": ["goal"]})
    assert labeler.guess
    ruled, guessed = labeler.label(["money goal", "bank account and money"])
    assert (ruled.label, ruled.confidence, ruled.guess) == ("sport", pytest.approx(2 / 3), False)
    assert ruled.votes["weak_model"].label is not None
    assert (guessed.label, guessed.guess) == ("money", True)
    given = labeler.label(["bank account"], {"imported": [Vote("sport", 0.4)]})[0]
    assert (given.label, given.confidence, given.guess) == ("sport", 0.4, False)


# Enough examples: the best way is chosen out of fold


@pytest.mark.parametrize(
    ("name", "n", "gain"), [("stance_gpt4o", 460, 0.01), ("media_bias_llm_votes", 600, 0.005)]
)
def test_it_beats_the_votes_and_the_weak_model_that_it_is_made_of(name, n, gain):
    schema, examples, votes = read(name)
    order = np.random.default_rng(0).permutation(len(examples)).tolist()
    train, rest = order[:n], order[n:]
    labeler = make(
        "ensemble", schema, [examples[i] for i in train], votes={"imported": [votes[i] for i in train]}
    )
    asked, given = [examples[i] for i in rest], {"imported": [votes[i] for i in rest]}
    texts = [e.text for e in asked]
    ours = labeler.label(texts, given)
    stated = make("imported", schema).label(texts, given)
    weak = make("weak_model", schema, [examples[i] for i in train]).label(texts)
    assert labeler.way == "stack"
    assert labeler.losses["stack"] < min(loss for way, loss in labeler.losses.items() if way != "stack")
    assert accuracy(ours, asked) > accuracy(stated, asked) + gain
    assert accuracy(ours, asked) > accuracy(weak, asked) + 0.05
    assert risk(ours, asked) < min(risk(stated, asked), risk(weak, asked))
    sure = np.mean([a.confidence for a in ours])
    assert sure == pytest.approx(accuracy(ours, asked), abs=0.05)


def test_votes_that_say_nothing_are_not_believed():
    schema, examples, _ = _sms()
    random = np.random.default_rng(0)
    noise = [Vote(["ham", "spam"][k], 0.99) for k in random.integers(0, 2, len(examples)).tolist()]
    labeler = make("ensemble", schema, examples[:400], votes={"imported": noise[:400]})
    texts, given = [e.text for e in examples[400:1400]], {"imported": noise[400:1400]}
    weak = make("weak_model", schema, examples[:400]).label(texts)
    assert labeler.way in ("weak_model", "stack")
    assert (
        accuracy(labeler.label(texts, given), examples[400:1400]) >= accuracy(weak, examples[400:1400]) - 0.01
    )


def test_votes_that_are_always_wrong_are_turned_round():
    schema, examples, _ = _sms()
    opposite = [Vote("ham" if e.label == "spam" else "spam", 0.9) for e in examples]
    labeler = make("ensemble", schema, examples[:300], votes={"imported": opposite[:300]})
    answers = labeler.label([e.text for e in examples[300:800]], {"imported": opposite[300:800]})
    assert labeler.way == "stack"
    assert accuracy(answers, examples[300:800]) > 0.99


def test_a_good_source_is_followed_while_there_is_too_little_to_stack():
    schema, examples, votes = read("media_bias_llm_votes")
    labeler = make("ensemble", schema, examples[:60], votes={"imported": votes[:60]})
    answers = labeler.label([e.text for e in examples[60:]], {"imported": votes[60:]})
    assert accuracy(answers, examples[60:]) > 0.8


def test_where_the_followed_source_is_silent_the_others_share():
    schema, examples, _ = _sms()
    labeler = make("ensemble", schema, examples[:100])
    labeler.way = "imported"
    followed, shared = labeler.label(["call now to win"] * 2, {"imported": [Vote("ham", 0.7), NOBODY]})
    assert (followed.label, followed.confidence) == ("ham", 0.7)
    assert (shared.label, shared.confidence) == shared.votes["weak_model"][:2]


def test_without_other_voters_it_is_the_weak_model():
    schema, examples, _ = _sms()
    labeler = make("ensemble", schema, examples[:100])
    texts = [e.text for e in examples[100:200]]
    weak = make("weak_model", schema, examples[:100]).label(texts)
    assert labeler.way == "weak_model"
    assert [(a.label, a.confidence) for a in labeler.label(texts)] == [(a.label, a.confidence) for a in weak]


def test_votes_may_be_missing_later_although_it_learned_with_them():
    schema, examples, votes = read("stance_gpt4o")
    labeler = make("ensemble", schema, examples[:400], votes={"imported": votes[:400]})
    answers = labeler.label([e.text for e in examples[400:600]])
    assert labeler.way == "stack"
    weak = make("weak_model", schema, examples[:400]).label([e.text for e in examples[400:600]])
    assert [(a.label, a.confidence) for a in answers] == [(a.label, a.confidence) for a in weak]
    blank = labeler.label([""], {"imported": [votes[0]]})[0]
    assert blank.label is not None and blank.votes["weak_model"] == NOBODY


def test_a_stated_confidence_helps_from_fifty_examples_on():
    schema, examples, votes = read("stance_gpt4o")
    flat = [Vote(vote.label, 1.0) for vote in votes]
    gains = []
    for seed in range(6):
        order = np.random.default_rng(seed).permutation(len(examples)).tolist()
        train, rest = order[:60], order[60:1060]
        asked = [examples[i] for i in rest]

        def risk_with(cast, train=train, rest=rest, asked=asked):
            labeler = make(
                "ensemble", schema, [examples[i] for i in train], votes={"llm": [cast[i] for i in train]}
            )
            return risk(labeler.label([e.text for e in asked], {"llm": [cast[i] for i in rest]}), asked)

        gains.append(risk_with(flat) - risk_with(votes))
    assert np.mean(gains) > 0.02


def test_a_stacker_learned_before_scores_were_read_as_log_odds_answers_as_it_did():
    old = {"sources": ["llm"], "scales": {"llm": [0.8, 0.1]}}
    weights = np.zeros((2 * 4, 2), np.float32)
    weights[4, 0] = weights[5, 1] = 1.0  # the standardised score of a vote for either label
    stacker = Stacker.load(["a", "b"], old, {"stack.weights": weights, "stack.bias": np.zeros(2, np.float32)})
    flat = np.full((2, 2), np.log(0.5))
    log_p = stacker.log_probabilities(flat, {"llm": [Vote("a", 0.9), Vote("b", 0.1)]})
    assert log_p[0, 0] - log_p[0, 1] == pytest.approx(1.0, abs=1e-5)
    assert log_p[1, 1] - log_p[1, 0] == pytest.approx(-3.0, abs=1e-5)  # cut at three standard deviations
    assert Stacker.load(["a", "b"], stacker.facts(), stacker.arrays()).scales == stacker.scales


def test_scores_of_zero_and_one_are_read_without_trouble():
    votes = {"llm": [Vote("a", 0.0), Vote("a", 1.0), NOBODY, Vote("b", 1.0)] * 5}
    log_p = np.full((20, 2), np.log(0.5))
    stacker = Stacker.learn(["a", "b"], log_p, votes, np.array([1, 0, 0, 1] * 5))
    assert np.isfinite(stacker.log_probabilities(log_p, votes)).all()
    assert stacker.scales == {"llm": None}


def test_with_many_labels_all_share_the_weights_and_it_still_helps():
    random = np.random.default_rng(0)
    labels = [f"label {k}" for k in range(30)]
    truth = random.integers(0, 30, 400)
    log_p = random.normal(0, 1, (400, 30))
    log_p[np.arange(400), truth] += 1.5
    log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
    right = random.random(400) < 0.7
    said = np.where(right, truth, random.integers(0, 30, 400)).tolist()
    votes = {"imported": [Vote(labels[k], 0.9 if r else 0.6) for k, r in zip(said, right, strict=True)]}
    folds = np.arange(400) % 4
    weak_loss = -log_p[np.arange(400), truth].mean()
    assert stack_loss(labels, folds, log_p, votes, truth) < weak_loss / 2
    stacker = Stacker.learn(labels, log_p, votes, truth)
    assert stacker.head.weights.shape == (4, 1)
    votes_right = (np.array(said) == truth).mean()
    assert (stacker.log_probabilities(log_p, votes).argmax(1) == truth).mean() > votes_right + 0.05


# All methods


def test_there_are_four_methods_and_no_other():
    assert METHODS == ("rules", "weak_model", "imported", "ensemble")
    with pytest.raises(ValueError, match="no method “magic”"):
        learn("magic", AB, [], settings={}, seed=0)
    with pytest.raises(ValueError, match="no method “magic”"):
        build("magic", AB, b"")


def test_imported_answers_are_given_back_as_stated():
    votes = [
        Vote("a", 0.85, "because"),
        NOBODY,
        Vote("c", 0.9),
        Vote("b", 7.0),
        Vote("b", -1.0),
        Vote("a", float("nan")),
    ]
    answers = make("imported", AB).label(["t"] * 6, {"imported": votes})
    assert [(a.label, a.confidence) for a in answers] == [
        ("a", 0.85),
        (None, 0.0),
        (None, 0.0),
        ("b", 1.0),
        ("b", 0.0),
        ("a", 0.0),
    ]
    assert answers[0].votes == {"imported": votes[0]} and answers[1].problem == "abstained"
    assert [a.problem for a in make("imported", AB).label(["t", "u"])] == ["abstained", "abstained"]
    assert explain(make("imported", AB), "t", "a") == []


@pytest.mark.parametrize("method", METHODS)
def test_a_state_answers_the_same_after_a_round_trip_and_is_the_same_for_the_same_seed(method):
    schema, examples, votes = read("stance_gpt4o")
    schema |= {"disagrees": 'denies it: "hoax", /myth|scam/'}
    train, given = examples[:200], {"imported": votes[:200]}
    states = [learn(method, schema, train, settings={}, seed=3, given_votes=given) for _ in range(2)]
    assert states[0] == states[1]
    texts, asked = [e.text for e in examples[200:400]], {"imported": votes[200:400]}
    first = build(method, schema, states[0])
    assert first.label(texts, asked) == build(method, schema, states[0]).label(texts, asked)
    assert all(isinstance(a, Answer) for a in first.label(texts, asked))
    assert first.label([], {}) == []


@pytest.mark.parametrize("method", METHODS)
def test_a_state_is_refused_when_it_does_not_fit(method):
    state = learn(method, AB, [Example("red", "a")], settings={}, seed=0)
    other = next(m for m in METHODS if m != method)
    with pytest.raises(ValueError, match=f"learned as {method}, not as {other}"):
        build(other, AB, state)
    with pytest.raises(ValueError, match="“b”, which is gone"):
        build(method, {"a": ""}, state)
    assert build(method, {**AB, "new": ""}, state).label(["red"])[0].label != "new"
    for damaged in (b"", b"not a state", state[:100]):
        with pytest.raises(ValueError, match="not a learned labeler"):
            build(method, AB, damaged)


def test_a_state_never_runs_code(capsys):
    class Evil:
        def __reduce__(self):
            return (print, ("code ran",))

    file = io.BytesIO()
    np.savez(file, facts=np.array([Evil()], dtype=object))
    with pytest.raises(ValueError, match="not a learned labeler"):
        read_state(file.getvalue())
    assert capsys.readouterr().out == ""


def test_a_state_of_another_format_is_refused():
    state = write_state({"method": "rules", "labels": [], "format": 99}, {})
    with pytest.raises(ValueError, match="another version"):
        read_state(state)


@pytest.mark.parametrize("method", METHODS)
def test_bad_input_is_refused_in_one_sentence(method):
    with pytest.raises(ValueError, match="no labels"):
        learn(method, {}, [], settings={}, seed=0)
    with pytest.raises(ValueError, match="needs a name"):
        learn(method, {" ": ""}, [], settings={}, seed=0)
    with pytest.raises(ValueError, match="“c”, which is not one of the labels"):
        learn(method, AB, [Example("x", "c")], settings={}, seed=0)


def test_votes_that_do_not_match_in_number_are_refused():
    with pytest.raises(ValueError, match="imported has 1 votes for 2 texts"):
        make("ensemble", AB, [Example("x", "a")] * 2, votes={"imported": [NOBODY]})
    for method in ("imported", "ensemble"):
        with pytest.raises(ValueError, match="imported has 1 votes for 2 texts"):
            make(method, AB).label(["x", "y"], {"imported": [NOBODY]})


def test_explain_puts_what_rules_match_before_the_words():
    schema, examples, _ = _sms()
    labeler = make("ensemble", schema, examples[:300], rules={"spam": ["claim your prize"]})
    found = explain(labeler, "Urgent! claim your prize, call now", "spam")
    assert found[0] == "claim your prize" and len(found) > 1


def _sms():
    with (DATA / "sms_spam.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {"ham": "", "spam": ""}, [Example(row["text"], row["gold"]) for row in rows], None

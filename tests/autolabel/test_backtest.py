"""The backtest: its promises hold as often as it says, on real data and on data made to break them."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from django.core.management import CommandError, call_command

from labelhub.autolabel.backtest import THRESHOLDS, backtest, prepare
from labelhub.autolabel.certify import allowed_errors, attempt_alpha, level
from labelhub.autolabel.onelook import promise_for, simple
from labelhub.autolabel.playing import Known, People, Promise, shares
from labelhub.autolabel.replay import Course, replay, seeds_of

DATA = Path(__file__).parent.parent / "data"
SUMMARY = {
    "coverage", "manual_share", "certified", "true_error_dataset", "true_error_accepted", "violations",
}  # fmt: skip


def columns(name):
    with (DATA / name).open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    return {key: [row[key] for row in rows] for key in rows[0]}


def recorded(name, method="imported", **changes):
    table = columns(name)
    stated = [float(value) for value in table["confidence"]]
    return prepare(
        table["text"], table["gold"], predicted=table["predicted_label"], confidence=stated, method=method, **changes
    )  # fmt: skip


@pytest.fixture(scope="module")
def stance():
    return recorded("stance_gpt4o.csv")


@pytest.fixture(scope="module")
def media_bias():
    return recorded("media_bias_llm_votes.csv")


def made(wrong, confidence, count=3, seed=0):
    """Data with given labels that are wrong where said; nothing is learned."""
    items = len(wrong)
    gold = np.random.default_rng(seed).integers(0, count, items)
    given = np.where(wrong, (gold + 1) % count, gold)
    return Known(
        [str(i) for i in range(items)], gold, count, None, given, np.asarray(confidence, float), False
    )


def beyond(share, n, alpha):
    """Whether a share of n replays is more than chance allows above alpha."""
    return share > alpha + 2 * math.sqrt(alpha * (1 - alpha) / n)


class TestOneLook:
    @pytest.mark.parametrize("sample", [150, 500, 900])
    @pytest.mark.parametrize("error", [0.05, 0.10])
    @pytest.mark.parametrize("data", ["stance", "media_bias"])
    def test_the_promise_about_the_dataset_is_kept(self, data, error, sample, request):
        known = request.getfixturevalue(data)
        result = backtest(known, target=1 - error, floor=None, reps=2000, sample=sample)
        assert not beyond(result["summary"]["violations"], 2000, 0.05)
        assert result["summary"]["certified"] > 0.9
        assert len(result["repetitions"]) == 2000

    @pytest.mark.parametrize("data", ["stance", "media_bias"])
    def test_the_floor_is_kept_too(self, data, request):
        known = request.getfixturevalue(data)
        result = backtest(known, reps=2000, sample=500)
        assert not beyond(result["summary"]["violations"], 2000, 0.05)
        for row in result["repetitions"]:
            if row["certified"] and not row["violation"]:
                assert row["true_error_accepted"] <= 0.10 + 1e-9

    @pytest.mark.parametrize("data", ["stance", "media_bias"])
    @pytest.mark.parametrize("target", [0.90, 0.95])
    def test_the_promise_about_the_accepted_is_kept(self, data, target, request):
        known = request.getfixturevalue(data)
        result = backtest(known, target=target, promise="accepted", reps=2000, sample=500)
        assert not beyond(result["summary"]["violations"], 2000, 0.05)

    def test_the_promise_about_the_accepted_is_of_use(self, media_bias):
        assert (
            backtest(media_bias, target=0.90, promise="accepted", reps=100, sample=500)["summary"]["coverage"]
            > 0.4
        )

    def test_the_level_is_reached_where_the_proof_says_so(self):
        budget, sample, items = 50, 200, 1000
        c = allowed_errors(items, sample, budget, 0.05)
        wrong = np.zeros(items, bool)
        wrong[: budget + 1 + c] = True  # the surest are the wrong ones
        known = made(wrong, np.linspace(1, 0.5, items))
        result = backtest(known, floor=None, reps=6000, sample=sample)
        exact = level(c, items, sample, budget)
        spread = math.sqrt(exact * (1 - exact) / 6000)
        assert exact > 0.02
        assert abs(result["summary"]["violations"] - exact) < 3.5 * spread

    @pytest.mark.parametrize("confidence", ["constant", "reversed"])
    def test_confidence_that_says_nothing_gets_nothing_accepted(self, confidence):
        random = np.random.default_rng(5)
        wrong = random.random(2000) < 0.4
        stated = np.full(2000, 0.99) if confidence == "constant" else np.where(wrong, 0.99, 0.6)
        result = backtest(made(wrong, stated), reps=500, sample=400)
        assert not beyond(result["summary"]["violations"], 500, 0.05)
        assert result["summary"]["coverage"] < 0.01

    def test_everything_right_is_accepted_but_the_sample(self):
        result = backtest(made(np.zeros(1000, bool), np.full(1000, 0.9)), reps=3, sample=100)
        assert result["summary"]["coverage"] == pytest.approx(0.9)
        assert result["summary"]["true_error_dataset"] == 0.0

    def test_items_without_a_machine_label_are_never_accepted(self):
        known = made(np.zeros(600, bool), np.full(600, 0.9))
        known.given[:200] = -1
        promise = Promise(floor_error=None)
        course = Course(known, People(known, 0.0, 0), seeds_of(0))
        for outcome in (simple(known, promise, 150, 1), replay(course, promise, seeds_of(1))):
            assert len(outcome.accepted) > 0
            assert (known.given[outcome.accepted] >= 0).all()

    def test_what_is_promised_is_fixed_without_a_look_at_the_answers(self, media_bias):
        other = Known(
            media_bias.texts, media_bias.given, media_bias.count, None, media_bias.given, media_bias.confidence, False
        )  # fmt: skip
        assert promise_for(other, Promise(), 500) == promise_for(media_bias, Promise(), 500)

    def test_accepted_and_answered_make_the_whole(self, media_bias):
        promise = Promise()
        outcome = simple(media_bias, promise, 500, 3)
        row = shares(media_bias, promise, outcome)
        assert row["coverage"] + row["manual_share"] == pytest.approx(1)
        wrong = outcome.labels != media_bias.gold
        assert not wrong[np.setdiff1d(np.arange(len(wrong)), outcome.accepted)].any()  # people are right
        assert row["true_error_dataset"] == pytest.approx(wrong[outcome.accepted].sum() / len(wrong))


class TestReviewerError:
    def test_slips_are_counted_against_the_promise_and_it_is_kept(self, media_bias):
        result = backtest(media_bias, floor=None, reps=1000, sample=500, reviewer_error=0.02)
        assert not beyond(result["summary"]["violations"], 1000, 0.05)
        clean = backtest(media_bias, floor=None, reps=100, sample=500)
        assert result["summary"]["true_error_dataset"] > 0
        assert result["summary"]["coverage"] < clean["summary"]["coverage"]

    def test_a_disagreement_is_settled_by_three_readings(self):
        gold = np.zeros(40_000, np.int64)
        known = Known([""] * len(gold), gold, 2, None, gold, np.ones(len(gold)), False)
        people = People(known, 0.1, 7)
        items = np.arange(len(gold))
        unconfirmed, _ = people.check(items, np.zeros(len(gold), np.int64))
        assert unconfirmed.mean() == pytest.approx(0.1 * (1 - 0.9**2), rel=0.1)  # one slip alone is overruled
        unconfirmed, final = people.check(items, np.ones(len(gold), np.int64))
        assert 1 - unconfirmed.mean() == pytest.approx(0.1 + 0.9 * 0.01, rel=0.1)  # overlooked
        assert (final == 0).mean() == pytest.approx(unconfirmed.mean())

    def test_slips_are_spread_over_the_other_classes(self):
        gold = np.full(30_000, 2)
        people = People(Known([""] * len(gold), gold, 4), 0.3, 1)
        share = np.bincount(people.answers, minlength=4) / len(gold)
        assert share == pytest.approx([0.1, 0.1, 0.7, 0.1], abs=0.01)


class TestLoop:
    def test_the_loop_keeps_its_promise_over_many_draws(self, media_bias):
        result = backtest(media_bias, floor=None, reps=4, draws=300)
        assert not beyond(result["summary"]["violations"], 1200, 0.05)
        assert result["summary"]["certified"] > 0.9
        assert 0.2 < result["summary"]["manual_share"] < 0.7

    def test_the_promise_about_the_accepted_is_kept_by_the_loop(self, media_bias):
        result = backtest(media_bias, target=0.90, promise="accepted", reps=3, draws=200)
        assert not beyond(result["summary"]["violations"], 600, 0.05)
        assert result["summary"]["certified"] > 0.5

    def test_it_learns_whom_to_believe_and_keeps_its_promise(self):
        table = columns("media_bias_llm_votes.csv")
        votes = {name: table[name] for name in table if name.startswith("pred_")}
        known = prepare(table["text"], table["gold"], votes=votes)
        result = backtest(known, reps=2, draws=200)
        assert not beyond(result["summary"]["violations"], 400, 0.05)
        assert result["summary"]["manual_share"] < 0.40

    def test_adversarial_errors_do_not_break_it(self):
        random = np.random.default_rng(2)
        stated = np.sort(random.random(1500))[::-1] * 0.4 + 0.6
        wrong = np.zeros(1500, bool)
        wrong[random.permutation(300)[:80]] = True  # among the surest, just above the budget
        result = backtest(made(wrong, stated), floor=None, reps=10, draws=200)
        assert not beyond(result["summary"]["violations"], 2000, 0.05)

    def test_a_second_attempt_uses_a_fresh_sample_and_its_own_alpha(self, media_bias):
        people = People(media_bias, 0.0, 0)
        course, promise = Course(media_bias, people, seeds_of(0)), Promise(target_error=0.1, floor_error=0.07)
        twice = [
            o for o in (replay(course, promise, seeds_of(draw)) for draw in range(100)) if o.attempts == 2
        ]
        assert twice
        for outcome in twice:
            if len(outcome.accepted):
                pool = len(media_bias.gold) - outcome.answered_at_freeze
                c = allowed_errors(pool, outcome.plan.sample, outcome.plan.budget, attempt_alpha(0.05, 2))
                assert outcome.errors_found >= 0
                assert c == outcome.plan.errors

    def test_learning_from_text_alone_pays(self):
        table = columns("sms_spam.csv")
        known = prepare(table["text"][:2000], table["gold"][:2000])
        assert len(known.texts) == len(set(known.texts)) < 2000
        result = backtest(known, reps=1, draws=100)
        assert result["summary"]["certified"] == 1
        assert result["summary"]["manual_share"] < 0.25
        assert not beyond(result["summary"]["violations"], 100, 0.05)
        assert all(0 < row["auto_accept_rate"] < 1 for row in result["table"])

    def test_the_same_seed_gives_the_same_figures(self, stance):
        one, two = (backtest(stance, reps=2, draws=3, seed=11, floor=None) for _ in range(2))
        assert one == two
        assert backtest(stance, reps=2, draws=3, seed=12, floor=None) != one


class TestFigures:
    def test_it_has_the_keys_that_others_read(self, media_bias):
        result = backtest(media_bias, reps=2, sample=300)
        assert set(result) == {"summary", "table", "repetitions"}
        assert set(result["summary"]) == SUMMARY
        assert [row["threshold"] for row in result["table"]] == list(THRESHOLDS)
        json.dumps(result)

    def test_the_table_says_what_a_threshold_by_hand_would_do(self, stance):
        table = columns("stance_gpt4o.csv")
        kept = {text: i for i, text in reversed(list(enumerate(table["text"])))}.values()
        sure = [i for i in kept if float(table["confidence"][i]) >= 0.85]
        row = backtest(stance, reps=1, sample=300)["table"][2]
        assert row["auto_accept_rate"] == pytest.approx(len(sure) / len(kept))
        right = sum(table["predicted_label"][i] == table["gold"][i] for i in sure)
        assert row["accuracy"] == pytest.approx(right / len(sure))
        assert row["accuracy"] < 0.85  # the stated confidence is too sure of itself
        assert row["manual_work"] == pytest.approx(1 - row["auto_accept_rate"])

    def test_shares_are_of_the_repetitions(self, media_bias):
        result = backtest(media_bias, reps=50, sample=300)
        rows = result["repetitions"]
        assert result["summary"]["certified"] == pytest.approx(sum(row["certified"] for row in rows) / 50)
        assert result["summary"]["violations"] == pytest.approx(sum(row["violation"] for row in rows) / 50)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"target": 1.0}, "target"), ({"alpha": 0}, "alpha"), ({"floor": -1}, "floor"),
            ({"promise": "both"}, "promise"), ({"reps": 0}, "repetition"), ({"sample": 0}, "sample"),
            ({"sample": 10**6}, "sample"), ({"reviewer_error": 1.0}, "reviewer error"), ({"seed": -1}, "seed"),
        ],
    )  # fmt: skip
    def test_it_refuses_what_it_cannot_do(self, media_bias, changes, message):
        with pytest.raises(ValueError, match=message):
            backtest(media_bias, **changes)

    def test_it_refuses_data_it_cannot_use(self):
        with pytest.raises(ValueError, match="too few"):
            prepare(["a"] * 100, ["x"] * 100)
        texts = [str(i) for i in range(50)]
        with pytest.raises(ValueError, match="imported"):
            prepare(texts, ["x", "y"] * 25, method="imported")
        with pytest.raises(ValueError, match="from 0 to 1"):
            prepare(texts, ["x", "y"] * 25, predicted=["x"] * 50, confidence=[float("nan")] * 50)
        with pytest.raises(ValueError, match="no method"):
            prepare(texts, ["x", "y"] * 25, method="magic")
        plain = prepare(texts, ["x", "y"] * 25)
        with pytest.raises(ValueError, match="predicted labels"):
            backtest(plain, sample=10)


class TestCommand:
    FILE = str(DATA / "stance_gpt4o.csv")
    GIVEN = (
        "--text",
        "text",
        "--gold",
        "gold",
        "--predicted",
        "predicted_label",
        "--confidence",
        "confidence",
    )

    def test_it_prints_json(self, capsys):
        call_command(
            "backtest", self.FILE, *self.GIVEN, "--simple", "--sample", "400", "--reps", "5", "--floor", "0"
        )
        result = json.loads(capsys.readouterr().out)
        assert set(result["summary"]) == SUMMARY
        assert len(result["repetitions"]) == 5
        assert result["summary"]["certified"] == 1

    def test_votes_are_named_by_a_pattern(self, capsys):
        file = str(DATA / "media_bias_llm_votes.csv")
        call_command(
            "backtest", file, "--text", "text", "--gold", "gold", "--votes", "pred_*_8shot",
            "--simple", "--sample", "300", "--reps", "2",
        )  # fmt: skip
        assert len(json.loads(capsys.readouterr().out)["repetitions"]) == 2

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (("--text", "nope", "--gold", "gold"), "no column “nope”"),
            ((*GIVEN, "--simple"), "belong together"),
            (("--text", "text", "--gold", "gold", "--predicted", "gold"), "belong together"),
            (("--text", "text", "--gold", "gold", "--votes", "zz*"), "No column is named like"),
            (
                ("--text", "text", "--gold", "gold", "--predicted", "gold", "--confidence", "text"),
                "from 0 to 1",
            ),
            ((*GIVEN, "--target", "2"), "between 0 and 1"),
            ((*GIVEN, "--method", "llm"), "no method"),
            ((*GIVEN, "--votes", "g*"), "not both"),
        ],
    )
    def test_a_users_error_is_one_sentence(self, arguments, sentence):
        with pytest.raises(CommandError, match=sentence):
            call_command("backtest", self.FILE, *arguments)

    def test_a_missing_file_is_one_sentence(self):
        with pytest.raises(CommandError, match="nowhere"):
            call_command("backtest", "/nowhere.csv", "--text", "a", "--gold", "b")

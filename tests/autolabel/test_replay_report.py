"""What a replay came to, in words: every figure with its n, and no promise where there was none."""

from typing import Any

from labelhub.autolabel.replay_report import Asked, report, share


def play(
    manual: float | None, wrong: float = 0.01, problem: str | None = None, broke: bool = False
) -> dict[str, Any]:
    """One replay that took so much work, or proved nothing."""
    held = manual is not None
    return {
        "certified": held, "manual_share": manual if held else 1.0, "true_error_dataset": wrong if held else 0.0,
        "true_error_accepted": 2 * wrong if held else None, "violation": broke, "problem": problem,
    }  # fmt: skip


def told(*plays: dict[str, Any], items: int = 5160, **asked: Any) -> Any:
    table = [
        {"threshold": 0.95, "auto_accept_rate": 0.5, "accuracy": 0.99, "manual_work": 0.5},
        {"threshold": 0.7, "auto_accept_rate": 0.0, "accuracy": None, "manual_work": 1.0},
    ]
    said = report({"repetitions": plays, "table": table}, Asked(items, **asked))
    plain = said.sentence.replace("\N{NO-BREAK SPACE}", " ")
    return said, plain, {name: value.replace("\N{NO-BREAK SPACE}", " ") for name, value in said.facts}


def test_one_replay_that_held_is_one_sentence():
    said, sentence, facts = told(play(0.09, 0.009))
    assert said.promised
    assert sentence == (
        "To promise that 95 % of 5,160 labels are right, people would have answered 9 %, 464 items; LabelHub would "
        "have labeled the other 91 %; 0.9 % of all labels would have been wrong."
    )
    assert facts == {
        "Certified": "yes: at least 95 % of 5,160 labels are right, and at least 90 % of the accepted ones, with "
        "95 % confidence",
        "Manual share": "9 % (464 of 5,160 items)",
        "True errors": "0.9 % of all labels, 1.8 % of the accepted ones (n = 1 replay)",
        "Violations": "0 of 1 replay broke the promise",
    }


def test_where_nothing_could_be_promised_it_says_so_and_why():
    said, sentence, facts = told(play(None, problem="not ready"), play(None, problem="floor"))
    assert not said.promised and sentence.startswith("LabelHub could not have promised that 95 %")
    assert "too small, for a check to save answers, or too few labels would have been accepted" in sentence
    assert sentence.endswith("People would have had to answer all 5,160 items.")
    assert facts["Certified"].startswith("in 0 of 2 replays: ")
    assert facts["True errors"] == "0 % of all labels (n = 2 replays)"


def test_where_it_depends_on_luck_both_ends_are_told():
    said, sentence, facts = told(play(0.2), play(0.3), play(None, problem="errors"), floor=None)
    assert said.promised and sentence.startswith("In 2 of 3 replays LabelHub could have promised that 95 %")
    assert "there people would have answered 25 %, 1,290 items" in sentence
    assert sentence.endswith(
        "In the other 1 nothing could be promised, and people would have answered everything."
    )
    assert (
        facts["Certified"]
        == "in 2 of 3 replays: at least 95 % of 5,160 labels are right, with 95 % confidence"
    )
    assert facts["Manual share"] == "50 % (mean of 3 replays, from 20 % to 100 %)"
    assert facts["True errors"] == "0.7 % of all labels (n = 3 replays), 2 % of the accepted ones (n = 2)"


def test_a_broken_promise_is_counted():
    _, sentence, facts = told(play(0.1, 0.06, broke=True), play(0.1, 0.02))
    assert facts["Violations"] == "1 of 2 replays broke the promise"
    assert "(means of 2 replays)" in sentence and "4 % of all labels would have been wrong" in sentence


def test_a_row_has_its_n_and_nothing_accepted_is_unknown():
    said, _, _ = told(play(0.1))
    (first, rate, accuracy, work), (_, none, unknown, every) = said.table
    assert (first, rate.n, accuracy.n, work.n) == ("≥ 0.95", "2,580 of 5,160", "n = 2,580", "2,580 items")
    assert (str(unknown), none.n, every.n) == ("unknown", "0 of 5,160", "5,160 items")


def test_a_promise_about_the_accepted_says_whom_it_is_about():
    _, sentence, facts = told(play(0.1), of_accepted=True, target=0.999)
    assert "99.9 % of the accepted ones among 5,160 labels are right" in sentence
    assert facts["Certified"] == "yes: at least 99.9 % of the accepted labels are right, with 95 % confidence"


def test_a_small_share_keeps_its_decimal():
    assert [share(part)[:-2] for part in (0.009, 0.95, 0.0004, 1.0)] == ["0.9", "95", "0.0", "100"]

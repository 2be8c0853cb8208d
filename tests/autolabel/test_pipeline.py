"""The library's face: texts in, results out, and nothing accepted that nobody can vouch for."""

import csv
import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelhub.autolabel import AutoLabelingPipeline, AutoLabelResult
from labelhub.autolabel.labelers import LabelerUnavailable

DATA = Path(__file__).parent.parent / "data"
SCHEMA = {"spam": 'advertising and prizes: "free entry"', "ham": "an ordinary message"}


def sms():
    with (DATA / "sms_spam.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row["text"] for row in rows], [row["gold"] for row in rows]


@pytest.fixture(scope="module")
def fitted():
    texts, labels = sms()
    return AutoLabelingPipeline(seed=1).fit(texts[:600], labels[:600])


def test_it_returns_one_result_per_text_in_order(fitted):
    texts = sms()[0][600:650]
    results = fitted.label_batch(texts, SCHEMA)
    assert [r.text for r in results] == texts
    for result in results:
        assert isinstance(result, AutoLabelResult)
        assert result.predicted_label in SCHEMA and 0 <= result.confidence <= 1
        assert result.method == "ensemble"
        assert result.auto_accepted == (round(result.confidence * 1e6) >= 850_000)


def test_what_it_accepts_is_mostly_right():
    texts, labels = sms()
    pipeline = AutoLabelingPipeline(confidence_threshold=0.95).fit(texts[:600], labels[:600])
    results = pipeline.label_batch(texts[600:], ["ham", "spam"], method="weak_model")
    accepted = [
        (r.predicted_label, gold) for r, gold in zip(results, labels[600:], strict=True) if r.auto_accepted
    ]
    assert len(accepted) > 0.7 * len(results)
    assert sum(label == gold for label, gold in accepted) / len(accepted) > 0.98


def test_stats_count_over_calls():
    texts, labels = sms()
    pipeline = AutoLabelingPipeline().fit(texts[:300], labels[:300])
    assert pipeline.stats == {"auto_accepted": 0, "sent_to_review": 0}
    first = pipeline.label_batch(texts[300:400], SCHEMA)
    second = pipeline.label_batch(["", *texts[400:450]], SCHEMA, method="rules")
    accepted = sum(r.auto_accepted for r in first + second)
    assert pipeline.stats == {"auto_accepted": accepted, "sent_to_review": 151 - accepted}


def test_a_guess_is_never_accepted_even_at_threshold_zero():
    pipeline = AutoLabelingPipeline(confidence_threshold=0.0)
    for method in ("weak_model", "ensemble"):
        results = pipeline.label_batch(["You won a prize", "see you at home"], ["spam", "ham"], method=method)
        assert all(r.predicted_label in ("spam", "ham") for r in results)
        assert not any(r.auto_accepted for r in results)
    assert pipeline.stats == {"auto_accepted": 0, "sent_to_review": 4}


def test_a_label_without_examples_is_a_guess_after_fitting_too():
    pipeline = AutoLabelingPipeline(confidence_threshold=0.0)
    pipeline.fit(["what is the exchange rate"], ["exchange_rate"])
    lost, rate = pipeline.label_batch(["I lost my card", "the exchange rate"], ["card_lost", "exchange_rate"])
    assert (lost.predicted_label, lost.auto_accepted) == ("card_lost", False)
    assert (rate.predicted_label, rate.auto_accepted) == ("exchange_rate", True)


def test_a_rule_may_be_accepted_without_examples_where_its_score_reaches_the_threshold():
    texts = ["Free entry in a weekly draw", "hello"]
    low = AutoLabelingPipeline(confidence_threshold=0.6).label_batch(texts, SCHEMA, method="ensemble")
    assert (low[0].predicted_label, low[0].auto_accepted) == ("spam", True)
    assert not low[1].auto_accepted
    high = AutoLabelingPipeline().label_batch(texts, SCHEMA, method="rules")
    assert not high[0].auto_accepted


def test_an_abstention_is_unknown_with_confidence_zero_and_never_accepted():
    pipeline = AutoLabelingPipeline(confidence_threshold=0.0)
    assert pipeline.label_batch(["hello"], SCHEMA, method="rules") == [
        AutoLabelResult("hello", "unknown", 0.0, False, "rules")
    ]
    assert pipeline.label_batch(["   "], SCHEMA) == [
        AutoLabelResult("   ", "unknown", 0.0, False, "ensemble")
    ]


def test_a_confidence_equal_to_the_threshold_is_accepted(fitted):
    text = sms()[0][700]
    stated = fitted.label_batch([text], SCHEMA)[0].confidence
    texts, labels = sms()
    exact = AutoLabelingPipeline(confidence_threshold=stated, seed=1).fit(texts[:600], labels[:600])
    assert exact.label_batch([text], SCHEMA)[0].auto_accepted


def test_an_empty_list_gives_an_empty_list():
    pipeline = AutoLabelingPipeline()
    assert pipeline.label_batch([], SCHEMA) == []
    assert pipeline.stats == {"auto_accepted": 0, "sent_to_review": 0}


def test_the_same_seed_gives_the_same_results(fitted):
    texts, labels = sms()
    again = AutoLabelingPipeline(seed=1).fit(texts[:600], labels[:600])
    assert again.label_batch(texts[600:700], SCHEMA) == fitted.label_batch(texts[600:700], SCHEMA)


def test_fitting_again_forgets_what_was_learned_before():
    pipeline = AutoLabelingPipeline().fit(["red", "blue"], ["warm", "cold"])
    assert pipeline.label_batch(["red"], ["warm", "cold"])[0].predicted_label == "warm"
    pipeline.fit(["red", "blue"], ["cold", "warm"])
    assert pipeline.label_batch(["red"], ["warm", "cold"])[0].predicted_label == "cold"


def test_another_schema_is_learned_anew():
    pipeline = AutoLabelingPipeline().fit(["red", "blue"], ["warm", "cold"])
    assert pipeline.label_batch(["red"], ["warm", "cold"])[0].predicted_label == "warm"
    narrower = pipeline.label_batch(["xyzzy"], {"warm": "", "cold": "", "other": '"xyzzy"'}, method="rules")
    assert narrower[0].predicted_label == "other"


def test_labels_listed_twice_count_once():
    twice = AutoLabelingPipeline().label_batch(["good"], ["good", "bad", "good"])
    assert twice == AutoLabelingPipeline().label_batch(["good"], ["good", "bad"])


def test_a_list_and_a_mapping_without_definitions_are_the_same():
    texts = ["a fine film", "a dull film"]
    assert AutoLabelingPipeline().label_batch(texts, ["fine", "dull"]) == AutoLabelingPipeline().label_batch(
        texts, {"fine": "", "dull": ""}
    )


def test_results_cannot_be_changed(fitted):
    result = fitted.label_batch(["hello"], SCHEMA)[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.auto_accepted = True


@pytest.mark.parametrize("key", [None, "", "  "])
def test_the_language_model_says_that_it_needs_a_key(key):
    with pytest.raises(LabelerUnavailable, match="set ANTHROPIC_API_KEY, or give api_key"):
        AutoLabelingPipeline(api_key=key).label_batch(["hello"], SCHEMA, method="llm")


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: AutoLabelingPipeline(task_type="spans"), "no task type “spans”"),
        (lambda: AutoLabelingPipeline(confidence_threshold=1.5), "between 0 and 1"),
        (lambda: AutoLabelingPipeline(confidence_threshold=float("nan")), "between 0 and 1"),
        (lambda: AutoLabelingPipeline(seed=-1), "not be negative"),
        (lambda: AutoLabelingPipeline().label_batch(["x"], SCHEMA, method="magic"), "no method “magic”"),
        (
            lambda: AutoLabelingPipeline().label_batch(["x"], SCHEMA, method="imported"),
            "no method “imported”",
        ),
        (lambda: AutoLabelingPipeline().label_batch(["x"], []), "no labels"),
        (lambda: AutoLabelingPipeline().label_batch(["x"], ["a", ""]), "needs a name"),
        (lambda: AutoLabelingPipeline().label_batch(["x"], "ab"), "must be a list of labels"),
        (lambda: AutoLabelingPipeline().label_batch(["x"], {"a": None}), "must be a text"),
        (lambda: AutoLabelingPipeline().label_batch(["x"], {"a": "/(/"}), "cannot be used"),
        (lambda: AutoLabelingPipeline().label_batch("x", SCHEMA), "must be a list, not one text"),
        (
            lambda: AutoLabelingPipeline().label_batch(["x", None], SCHEMA),
            "Number 1 of the texts is not a text",
        ),
        (lambda: AutoLabelingPipeline().fit(["x"], ["a", "b"]), "1 texts but 2 labels"),
        (lambda: AutoLabelingPipeline().fit(["x"], [1]), "Number 0 of the labels is not a text"),
        (
            lambda: AutoLabelingPipeline().fit(["x"], ["c"]).label_batch(["x"], SCHEMA),
            "“c”, which is not one of the labels",
        ),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.text(max_size=40), max_size=6),
    st.lists(st.tuples(st.text(max_size=20), st.sampled_from(["one", "two", "three"])), max_size=6),
    st.sampled_from(["rules", "weak_model", "ensemble"]),
)
def test_any_texts_and_any_few_examples_give_sound_results(texts, examples, method):
    pipeline = AutoLabelingPipeline(confidence_threshold=0.5)
    pipeline.fit([text for text, _ in examples], [label for _, label in examples])
    results = pipeline.label_batch(texts, {"one": '"uno"', "two": "", "three": "/tres?/"}, method=method)
    assert [r.text for r in results] == texts
    for result in results:
        assert result.predicted_label in ("one", "two", "three", "unknown")
        assert 0 <= result.confidence <= 1
        if result.predicted_label == "unknown":
            assert result.confidence == 0 and not result.auto_accepted
    assert sum(pipeline.stats.values()) == len(texts)


def test_importing_it_needs_no_django_and_no_heavy_library():
    code = (
        "import sys; from labelhub.autolabel import AutoLabelingPipeline; "
        "print([m for m in ('django', 'sklearn', 'scipy', 'pandas', 'anthropic', 'redis', 'tokenizers') "
        "if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=DATA.parent.parent
    )
    assert found.stdout.strip() == "[]", found.stderr


def test_labeling_needs_no_django_either():
    code = (
        "import sys; from labelhub.autolabel import AutoLabelingPipeline; "
        "p = AutoLabelingPipeline().fit(['red', 'blue'], ['warm', 'cold']); "
        "print(p.label_batch(['red'], ['warm', 'cold'])[0].predicted_label, 'django' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=DATA.parent.parent
    )
    assert found.stdout.strip() == "warm False", found.stderr


def test_the_snippet_of_the_readme_runs_as_printed(capsys: pytest.CaptureFixture[str]) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    snippet = readme.split("```python\n")[1].split("```")[0]
    exec(compile(snippet, "README.md", "exec"), {})
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("my card is still not here -> card")
    assert said[1].startswith("pin blocked -> pin")
    assert "sent_to_review" in said[2]

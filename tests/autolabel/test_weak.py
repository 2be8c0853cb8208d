"""The weak model: right often enough, honest about it, quick, robust, and the same every time."""

import csv
import time
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from labelhub.autolabel.labelers import Example, build, explain, learn
from labelhub.autolabel.labelers.heads import FOLDS, draw_folds, fit_head, log_softmax, margins, out_of_fold
from labelhub.autolabel.labelers.views import (
    CharacterView,
    Pieces,
    WordView,
    piece_vectors,
    readable,
    see_meaning,
    static_table,
    words,
)
from labelhub.autolabel.labelers.weak import ALL, CLOSE, WeakLabeler, learn_weak

DATA = Path(__file__).parent.parent / "data"
ODD_TEXTS = [
    "",
    "   \n",
    "hello",
    "x",
    "你好世界，我的银行卡丢了",
    "שלום עולם",
    "สวัสดีครับ",
    "नमस्ते दुनिया",
    "🙂🙃",
    "\ud800 half a pair",
    "nul\x00byte",
    "x" * 300_000,
    "word " * 20_000,
]


def read(name):
    with (DATA / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["gold"]) for row in csv.DictReader(file)]


def split(name, share, seed=0):
    rows = read(name)
    order = np.random.default_rng(seed).permutation(len(rows)).tolist()
    n = round(share * len(rows))
    schema = dict.fromkeys(sorted({gold for _, gold in rows}), "")
    return schema, [Example(*rows[i]) for i in order[:n]], [rows[i] for i in order[n:]]


def trained(schema, examples, **settings):
    return build("weak_model", schema, learn("weak_model", schema, examples, settings=settings, seed=0))


def score(labeler, rows):
    answers = labeler.label([text for text, _ in rows])
    right = np.array([a.label == gold for a, (_, gold) in zip(answers, rows, strict=True)])
    return right, np.array([a.confidence for a in answers])


@pytest.fixture(scope="module")
def banking():
    schema, examples, rest = split("banking77", 0.10)
    started = time.process_time()
    state = learn("weak_model", schema, examples, settings={}, seed=0)
    return schema, examples, rest, state, time.process_time() - started


@pytest.fixture(scope="module")
def sms():
    schema, examples, rest = split("sms_spam", 0.10)
    return schema, examples, rest, trained(schema, examples)


# How right


def test_a_tenth_of_banking77_teaches_it_77_intents(banking):
    schema, _, rest, state, _ = banking
    right, sure = score(build("weak_model", schema, state), rest)
    assert right.mean() >= 0.80
    surest = np.argsort(-sure)[: len(sure) // 2]
    assert right[surest].mean() >= 0.95


def test_a_tenth_of_sms_spam_teaches_it_spam(sms):
    _, _, rest, labeler = sms
    right, _ = score(labeler, rest)
    assert right.mean() >= 0.97


def test_confidences_are_close_to_the_share_that_is_right(sms, banking):
    _, _, rest, labeler = sms
    right, sure = score(labeler, rest)
    assert sure.mean() == pytest.approx(right.mean(), abs=0.03)
    schema, _, rest, state, _ = banking
    right, sure = score(build("weak_model", schema, state), rest)
    assert sure.mean() == pytest.approx(right.mean(), abs=0.06)


def test_without_examples_it_guesses_far_better_than_chance(banking):
    schema, _, rest, _, _ = banking
    state = learn("weak_model", schema, [], settings={}, seed=0, texts=[text for text, _ in rest[:500]])
    labeler = build("weak_model", schema, state)
    right, _ = score(labeler, rest[:3000])
    assert labeler.guess
    assert right.mean() >= 0.5  # 77 labels: chance is 0.013


def test_definitions_help_guesses():
    rows = [
        ("I won a huge cash prize, call now", "x1"),
        ("The goalkeeper saved a penalty in the match", "x2"),
    ]
    schema = {"x1": "money, prize, cash, winning", "x2": "football, sport, match, player"}
    right, _ = score(trained(schema, []), rows)
    assert right.all()


def test_names_of_the_labels_count_as_examples():
    schema = {"card_lost": "", "exchange_rate": "", "top_up_failed": ""}
    labeler = trained(schema, [Example("what is the exchange rate for euros", "exchange_rate")])
    answer = labeler.label(["I lost my card"])[0]
    assert answer.label == "card_lost"
    assert answer.guess, "no example had that label"
    assert not labeler.guess
    assert not labeler.label(["what is the exchange rate today"])[0].guess


def test_it_chooses_the_views_by_what_held_up_out_of_fold(sms, banking):
    assert sms[3].model.views == ALL
    schema, _, _, state, _ = banking
    assert build("weak_model", schema, state).model.views == CLOSE


# How quick


def test_it_learns_77_classes_within_seconds_and_stays_small(banking):
    _, _, _, state, seconds = banking
    assert seconds < 20  # processor time; 4 s on a quiet machine
    assert len(state) < 20e6


def test_it_labels_thousands_of_texts_a_second(sms):
    _, _, rest, labeler = sms
    texts = [text for text, _ in rest]
    labeler.label(texts[:10])
    started = time.process_time()
    labeler.label(texts)
    assert len(texts) / (time.process_time() - started) > 1_200


def test_the_word_view_reads_twenty_thousand_texts_a_second_and_fast_mode_uses_it(sms):
    schema, examples, rest, _ = sms
    texts = [text for text, _ in rest]
    fast = trained(schema, examples, fast=True)
    model = fast.model
    best = 0.0
    for _ in range(3):
        started = time.process_time()
        model.heads["word"].log_probabilities(model.word.see(Pieces(texts)))
        best = max(best, len(texts) / (time.process_time() - started))
    assert best > 20_000
    right, _ = score(fast, rest)
    assert right.mean() >= 0.97
    assert model.platt_word is not None


def test_fast_mode_without_enough_examples_is_the_usual_mode():
    schema = {"a": "", "b": ""}
    examples = [Example("red apple", "a"), Example("blue sky", "b")]
    assert trained(schema, examples, fast=True).label(["red"]) == trained(schema, examples).label(["red"])


# The same every time


def test_the_same_examples_and_seed_give_the_same_bytes():
    schema, examples, _ = split("sms_spam", 0.03)
    first = learn("weak_model", schema, examples, settings={}, seed=7)
    assert learn("weak_model", schema, examples, settings={}, seed=7) == first


def test_answers_do_not_depend_on_how_texts_are_cut_into_calls(sms):
    _, _, rest, labeler = sms
    texts = [text for text, _ in rest[:200]]
    one = [labeler.label([text])[0] for text in texts]
    together = labeler.label(texts)
    assert [a.label for a in one] == [a.label for a in together]
    assert [a.confidence for a in one] == pytest.approx([a.confidence for a in together], abs=1e-5)


def test_what_was_stored_answers_as_what_was_learned(sms):
    schema, examples, rest, labeler = sms
    texts = [text for text, _ in rest[:300]]
    copy = WeakLabeler.from_state(labeler.to_state())
    assert copy.label(texts) == labeler.label(texts)
    fitted, _ = learn_weak(schema, examples)
    assert [a.label for a in WeakLabeler(fitted).label(texts)] == [a.label for a in copy.label(texts)]


# Odd input


@pytest.mark.parametrize(
    "examples",
    [
        [],
        [Example("only one", "a")],
        [Example("same class", "a")] * 12,
        [Example(f"same class {i}", "a") for i in range(80)],
        [Example("red", "a"), Example("blue", "b")],
        [Example("", "a"), Example("", "b"), Example(" ", "c")],
        [Example("same", "a")] * 40 + [Example("same", "b")] * 40,
        [Example(text, label) for text in ODD_TEXTS[2:] for label in "abc"],
        [Example(f"红色 {i} 苹果", "a") for i in range(40)]
        + [Example(f"蓝色 {i} 天空", "b") for i in range(40)],
    ],
)
def test_any_few_examples_and_any_texts_give_an_answer(examples):
    answers = trained({"a": "", "b": "b", "c": "“quoted” /pat+ern/"}, examples).label(ODD_TEXTS)
    assert [a.label for a in answers[:2]] == [None, None]
    assert all(a.problem == "abstained" and a.confidence == 0 for a in answers[:2])
    assert all(a.label in ("a", "b", "c") and 0 <= a.confidence <= 1 for a in answers[2:])


def test_a_script_without_spaces_is_learned():
    examples = [Example(f"我的银行卡丢了 {i}", "lost") for i in range(5)]
    examples += [Example(f"今天的汇率是多少 {i}", "rate") for i in range(5)]
    answers = trained({"lost": "", "rate": ""}, examples).label(["银行卡丢在路上", "欧元汇率"])
    assert [a.label for a in answers] == ["lost", "rate"]


def test_one_label_is_always_the_answer():
    answers = trained({"only": ""}, [Example(f"text {i}", "only") for i in range(60)]).label(["anything"])
    assert answers[0].label == "only" and answers[0].confidence == 1.0


def test_five_hundred_labels_work():
    schema = {f"label {i}": f"number {i}" for i in range(500)}
    examples = [Example(f"this is about number {i}", f"label {i}") for i in range(40)]
    labeler = trained(schema, examples)
    assert labeler.label(["this is about number 7"])[0].label == "label 7"
    assert len(labeler.to_state()) < 20e6


def test_no_texts_give_no_answers(sms):
    assert sms[3].label([]) == []


def test_repeated_examples_do_not_pass_for_many():
    schema = {"spam": "", "ham": ""}
    examples = [Example("free money", "spam"), Example("hi mum", "ham")] * 50
    labeler = trained(schema, examples)
    assert labeler.model.platt is None, "two different texts cannot calibrate anything"
    assert labeler.label(["free money"])[0].label == "spam"


# Why


def test_explain_names_the_words_that_speak_for_the_label(sms):
    _, _, _, labeler = sms
    found = explain(labeler, "URGENT! Call now to claim your prize, mum", "spam")
    assert {"claim", "prize"} & {word for phrase in found for word in phrase.split()}
    assert "mum" not in found
    assert len(found) <= 5
    assert explain(labeler, "", "spam") == [] and explain(labeler, "hello", "no such label") == []


def test_explain_works_for_guesses():
    labeler = trained({"sport": "football match", "money": "bank account"}, [])
    assert explain(labeler, "the football on the table", "sport")[0] == "football"


# The views


def test_the_character_view_is_scikit_learns():
    texts = [text for text, _ in read("banking77")[:400]]
    pieces = Pieces(texts)
    view, seen = CharacterView.fit(pieces, 100_000, 1)
    reference = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5))
    wanted = reference.fit_transform(texts)
    shared = [reference.vocabulary_[gram] for gram in view.grams]
    # scikit-learn counts a padded word shorter than a size once for each such size; we count it for its own
    assert len(shared) == wanted.shape[1]
    ours, theirs = seen.toarray(), wanted.toarray()[:, shared]
    assert np.mean((ours * theirs).sum(axis=1)) > 0.98


def test_the_word_view_is_scikit_learns():
    texts = [text for text, _ in read("sms_spam")[:400]]
    view, seen = WordView.fit(Pieces(texts), 10**6, 1)
    reference = TfidfVectorizer(tokenizer=words, token_pattern=None, lowercase=False, ngram_range=(1, 2))
    wanted = reference.fit_transform(texts)
    columns = [reference.vocabulary_[name] for name in view.names()]
    assert len(columns) == wanted.shape[1]
    np.testing.assert_allclose(seen.toarray(), wanted.toarray()[:, columns], atol=1e-5)
    np.testing.assert_allclose(view.see(Pieces(texts)).toarray(), seen.toarray(), atol=1e-6)


def test_a_limit_keeps_the_most_frequent_features():
    texts = ["a b", "a b", "a c", "d e"]
    view, _ = WordView.fit(Pieces(texts), 4, 1)
    assert set(view.words) == {"a", "b"}
    assert view.names()[2:] == ["a b"]


def test_word_pairs_do_not_reach_from_one_text_into_the_next():
    view, _ = WordView.fit(Pieces(["one two", "", "three four"]), 100, 1)
    assert sorted(view.names()[4:]) == ["one two", "three four"]


def test_meaning_by_pieces_equals_meaning_by_whole_texts():
    texts = [text for text, _ in read("banking77")[:200] + read("sms_spam")[:200]]
    table = static_table()[1]
    import importlib.util

    from tokenizers import Tokenizer

    root = Path(importlib.util.find_spec("wordllama").origin).parent
    tokenizer = Tokenizer.from_file(str(root / "tokenizers/l2_supercat_tokenizer_config.json"))
    tokenizer.no_padding()
    whole = np.array(
        [table[tokenizer.encode(" ".join(t.split()), add_special_tokens=False).ids].sum(0) for t in texts]
    )
    whole /= np.linalg.norm(whole, axis=1, keepdims=True)
    np.testing.assert_allclose((see_meaning(Pieces(texts)) * whole).sum(1), 1, atol=1e-4)


def test_a_text_without_tokens_has_no_meaning():
    assert not see_meaning(Pieces(["", "  "])).any()
    assert piece_vectors([]).shape == (0, 256)


def test_readable_unifies_spellings_and_survives_half_characters():
    assert readable("cafe\u0301 ｆｕｌｌ \ud800") == "café full ?"
    assert len(readable("x" * 10**6)) == 20_000


# Folds and heads


def test_folds_keep_equal_texts_together_and_labels_even():
    texts = [f"text {i % 60}" for i in range(120)]
    classes = np.array([i % 60 % 3 for i in range(120)])
    folds = draw_folds(texts, classes, 0)
    assert (folds[:60] == folds[60:]).all()
    for k in range(3):
        assert np.ptp(np.bincount(folds[:60][classes[:60] == k], minlength=FOLDS)) <= 1
    assert (draw_folds(texts, classes, 0) == folds).all()
    assert (draw_folds(texts, classes, 1) != folds).any()


def test_out_of_fold_scores_know_nothing_of_random_labels():
    random = np.random.default_rng(0)
    features, classes = random.normal(size=(300, 50)), random.integers(0, 2, 300)
    inside = fit_head(features, classes, 2).log_probabilities(features).argmax(1) == classes
    rows, log_p = out_of_fold({"x": features}, classes, 2, np.arange(300) % FOLDS)
    outside = log_p["x"].argmax(1) == classes[rows]
    assert inside.mean() > 0.65 and outside.mean() < 0.6


def test_rows_outside_the_folds_always_train_and_are_never_scored():
    classes = np.array([0, 1] * 10 + [2])
    rows, log_p = out_of_fold({"x": np.eye(21)}, classes, 3, np.array([0, 1, 2, 3] * 5 + [-1]))
    assert sorted(rows.tolist()) == list(range(20))
    assert log_p["x"].shape == (20, 3)


def test_a_margin_tells_apart_what_rounds_to_certainty():
    log_p = log_softmax(np.array([[60.0, 0, 0], [61.0, 0, 0]]))
    low, high = margins(log_p)
    assert np.exp(log_p.max(1)).tolist() == [1.0, 1.0]
    assert low == pytest.approx(60 - np.log(2)) and high - low == pytest.approx(1)

"""A certificate about a whole dataset and its file agree, until one answer or label of either is changed."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest

from labelhub.autolabel import certify, sampling
from labelhub.autolabel.fingerprint import answers_hash, content_hash, figures_hash
from labelhub.autolabel.rank import to_rank
from labelhub.autolabel.verify import FORMAT, NotACertificate, verify
from labelhub.autolabel.verify_dataset import statement_of

RUN, SEED, POOL, SIZE, BUDGET = 3, 2**126 + 77, 300, 90, 20
BEFORE, AFTER = "2026-02-27T10:00:00Z", "2026-02-28T10:00:00Z"
AS_OF, LATER = "2026-03-01T12:00:00+00:00", "2026-03-02T08:00:00.5Z"
NAMES = ("spam", "ham", "tab\tund Ümlaut")
Made = tuple[dict[str, Any], list[dict[str, Any]]]


def row(
    item: int, said: str | None = None, rank: int | None = None, run: int | None = None, **other: Any
) -> dict:
    """A row of an export that nobody answers for, but for what is given."""
    return {
        "id": item, "label": None, "source": "none", "outcome": None, "predicted_label": said, "rank": rank, "run": run,
        "threshold": 0.5, "decided_at": None, "same_as": None, "certified": False,
    } | other  # fmt: skip


def by_person(label: str | None, at: str = AFTER, outcome: str = "label") -> dict[str, Any]:
    return {
        "label": label, "source": "person" if label else "none", "outcome": outcome, "decided_at": at,
        "certified": label is not None,
    }  # fmt: skip


def make() -> Made:
    """A pool of 300 of which 90 are drawn, people's answers to the rest below the threshold, and rows of every kind."""
    dice = random.Random(5)
    ids = [10 + 3 * n for n in range(POOL)]
    ranks = {item: to_rank(0.2 + n / 400, n) for n, item in enumerate(ids)}
    said = {item: NAMES[n % 3] for n, item in enumerate(ids)}
    truth = {item: said[item] if dice.random() < 0.4 + ranks[item] / 10**12 else NAMES[n % 3 - 1]
             for n, item in enumerate(ids)}  # fmt: skip
    drawn = sampling.draw(SEED, ids, SIZE)
    told = {item: by_person(truth[item]) for item in drawn}
    told[drawn[4]] = by_person(None, outcome="cant_tell")
    wrong = [ranks[item] for item in drawn if told[item]["label"] != said[item]]
    allowed = certify.allowed_errors(POOL, SIZE, BUDGET, 0.04)
    threshold = certify.certified_threshold(wrong, allowed)
    rows = []
    for item in ids:
        if item in told or ranks[item] < threshold:
            rest = told.get(item) or by_person(truth[item])
        else:
            rest = {"label": said[item], "source": "machine", "certified": True}
        rows.append(row(item, said[item], ranks[item], RUN, **rest))
    by_id = {one["id"]: one for one in rows}
    above = [item for item in ids if item not in told and ranks[item] >= threshold]
    by_id[above[0]].update(by_person("ham"))  # read all the same
    by_id[above[1]].update(by_person(None, outcome="exclude"))
    high = to_rank(0.99)
    rows += [by_id[above[2]] | {"id": 5000 + n, "same_as": above[2]} for n in range(3)]  # copies
    rows += [by_id[drawn[0]] | {"id": 5010, "same_as": drawn[0]}]
    rows += [row(6000 + n, "ham", high + n, RUN, **by_person("spam", BEFORE)) for n in range(20)]
    rows += [row(6100 + n, "ham", high + n, RUN - 1, **by_person("ham", BEFORE)) for n in range(60)]
    rows += [row(6200, "ham", high, RUN, **by_person("spam")), row(6201, **by_person("spam", BEFORE))]
    rows += [row(6300, "ham", high, RUN, label="ham", source="machine")]  # taken back after the draw
    rows += [row(6400, "ham", high, RUN, **by_person(None, BEFORE, "cant_tell"))]
    rows += [row(7000 + n, label="spam", source="given") for n in range(9)]
    rows += [row(7100, **by_person("ham") | {"certified": False}), row(7200, outcome="exclude")]
    dice.shuffle(rows)
    firsts = [one for one in rows if one["same_as"] is None]
    people = sum(one["certified"] and one["source"] == "person" for one in firsts)
    accepted = sum(one["certified"] and one["source"] == "machine" for one in firsts)
    left = [{"id": one["id"], "outcome": one["outcome"]} for one in firsts if one["outcome"] in ("cant_tell", "exclude")
            and one["decided_at"]]  # fmt: skip
    certified = sorted((one for one in rows if one["certified"]), key=lambda one: one["id"])
    digest, count = content_hash((r["id"], r["label"], r["source"], r["outcome"]) for r in certified)
    answers = [{key: by_id[item][key] for key in ("id", "rank", "predicted_label", "outcome", "label")}
               for item in drawn]  # fmt: skip
    evidence = {
        "promise": "dataset", "run": RUN, "threshold_rank": threshold, "pool": POOL,
        "pool_hash": sampling.pool_hash(ids, ranks.values(), said.values()), "seed": f"{SEED:032x}", "size": SIZE,
        "errors": len(wrong), "cant_tell": 1, "target_error": 0.06, "floor_error": 0.25, "alpha": 0.05,
        "alpha_of_this_attempt": 0.04, "attempt": 1, "earlier_attempts": [], "budget": BUDGET,
        "allowed_errors": allowed, "level": certify.level(allowed, POOL, SIZE, BUDGET), "answers": answers,
        "answers_hash": answers_hash(answers), "as_of": AS_OF, "rows": count, "content_hash": digest,
        "file_rows": len(rows), "labels": people + accepted, "people": people, "accepted": accepted, "uncovered": 1,
        "items": people + accepted + len(left) + 1, "left_out": left, "above_threshold": len(above),
        "outside_pool": [*range(6000, 6020), 6200, 6300, 6400],
    }  # fmt: skip
    return signed({"format": FORMAT, "evidence": evidence}), rows


def signed(certificate: dict[str, Any]) -> dict[str, Any]:
    """With the statement and the digest that its evidence gives, as somebody would who can write the whole file."""
    found = certificate["evidence"]
    words = statement_of(
        found["labels"], found["budget"], found["accepted"], found["floor_error"], found["alpha"]
    )
    found["figures_hash"] = figures_hash(words, found)
    return certificate | {"statement": words}


@pytest.fixture(scope="module")
def made() -> Made:
    return make()


def whats(certificate: dict[str, Any], rows: list[dict[str, Any]]) -> set[str]:
    """The names of all differences; a file that cannot be read is one too."""
    try:
        return {difference.what for difference in verify(certificate, rows)}
    except NotACertificate:
        return {"unreadable"}


def test_it_finds_nothing_in_an_unchanged_file_in_any_order(made: Made) -> None:
    certificate, rows = made
    found = certificate["evidence"]
    assert 0 < found["allowed_errors"] < found["errors"] and found["threshold_rank"] > to_rank(0.25)
    assert verify(certificate, rows) == []
    assert verify(json.loads(json.dumps(certificate)), reversed(rows)) == []


OTHER: dict[str, list[Any]] = {
    "label": ["another", None, "spam", "ham"], "source": ["given", "none", "person", "machine", "person\tlabel"],
    "outcome": ["exclude", "cant_tell", None, "label"], "certified": [True, False], "same_as": [None, 10],
    "predicted_label": ["another", None, "spam", "ham"], "run": [RUN, RUN - 1, None], "id": [77_777, 10],
    "rank": [0, None, to_rank(0.999), to_rank(0.5)],
}  # fmt: skip
# What a row of each kind has to hold: what is not certified may change, as long as it stays so.
KEPT = {
    "certified": ("label", "source", "outcome", "certified", "id", "same_as"),
    "pool": ("predicted_label", "rank", "run", "id", "same_as"),
    "left_out": ("label", "outcome", "id"),
}


def test_no_single_change_of_the_file_goes_unnoticed(made: Made) -> None:
    """Random flips of one value, and every row dropped or repeated."""
    certificate, rows = made
    dice, outside = random.Random(6), set(certificate["evidence"]["outside_pool"])
    left_out = {entry["id"] for entry in certificate["evidence"]["left_out"]}
    tried = 0
    while tried < 700:
        n = dice.randrange(len(rows))
        before = rows[n]
        kinds = {
            "certified": before["certified"],
            "pool": before["run"] == RUN and before["same_as"] is None and before["id"] not in outside,
            "left_out": before["id"] in left_out,
        }
        fields = [field for kind, holds in kinds.items() if holds for field in KEPT[kind]]
        if not fields:
            continue
        field = dice.choice(fields)
        value = dice.choice([other for other in OTHER[field] if other != before[field]])
        if field == "same_as":  # a copy becomes a first, and a first a copy
            value = 10 if before[field] is None else None
        changed = [*rows[:n], before | {field: value}, *rows[n + 1 :]]
        assert whats(certificate, changed), (before, field, value)
        tried += 1
    for n in range(0, len(rows), 3):
        assert "file_rows" in whats(certificate, rows[:n] + rows[n + 1 :])
        assert "file_rows" in whats(certificate, [*rows, rows[n]])


@pytest.mark.parametrize(
    "more",
    [
        row(9000, "ham", to_rank(0.99), RUN, label="ham", source="machine", certified=True),
        row(9000, **by_person("ham")),
        row(9000, label="ham", source="given"),
    ],
)
def test_a_row_more_is_noticed(made: Made, more: dict[str, Any]) -> None:
    assert "file_rows" in whats(made[0], [*made[1], more])


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("seed", f"{SEED + 1:032x}", "seed"),
        ("errors", 0, "errors"),
        ("cant_tell", 0, "cant_tell"),
        ("alpha", 0.1, "alpha"),
        ("alpha_of_this_attempt", 0.05, "alpha"),
        ("attempt", 2, "attempt"),
        ("budget", BUDGET - 1, "allowed_errors"),
        ("budget", 40, "budget"),
        ("target_error", 0.04, "budget"),
        ("allowed_errors", 9, "allowed_errors"),
        ("allowed_errors", -1, "threshold_rank"),
        ("level", 0.01, "level"),
        ("size", SIZE - 1, "size"),
        ("pool", POOL + 1, "pool_hash"),
        ("pool_hash", "0" * 64, "pool_hash"),
        ("outside_pool", [], "pool_hash"),
        ("run", RUN - 1, "pool_hash"),
        ("threshold_rank", to_rank(0.3), "threshold_rank"),
        ("above_threshold", 999, "above_threshold"),
        ("floor_error", 0.1, "floor_error"),
        ("rows", 3, "rows"),
        ("file_rows", 3, "file_rows"),
        ("items", 3, "items"),
        ("labels", 10**6, "labels"),
        ("people", 3, "people"),
        ("accepted", 3, "accepted"),
        ("uncovered", 3, "uncovered"),
        ("left_out", [], "items"),
        ("content_hash", "0" * 64, "content_hash"),
        ("answers_hash", "0" * 64, "answers_hash"),
    ],
)  # fmt: skip
def test_any_change_of_the_certificate_is_found_by_name(made: Made, key: str, value: Any, what: str) -> None:
    certificate, rows = copy.deepcopy(made[0]), made[1]
    assert certificate["evidence"][key] != value
    certificate["evidence"][key] = value
    assert {what, "figures_hash"} <= whats(certificate, rows)
    assert what in whats(signed(certificate), rows), "and not by its own digest alone"


def test_a_better_statement_or_answer_is_found(made: Made) -> None:
    certificate, rows = made
    words = certificate["statement"]
    assert "statement" in whats(certificate | {"statement": words.replace("at most 20", "at most 2")}, rows)
    for n, answer in enumerate(made[0]["evidence"]["answers"]):
        forged = copy.deepcopy(certificate)
        better = {"outcome": "label", "label": "ham" if answer["label"] == "spam" else "spam"}
        forged["evidence"]["answers"][n].update(better)
        forged["evidence"]["answers_hash"] = answers_hash(forged["evidence"]["answers"])
        assert "sample" in whats(signed(forged), rows)


def test_a_label_below_the_threshold_is_not_the_machines_to_give(made: Made) -> None:
    """Even where somebody wrote the digests anew."""
    certificate, rows = copy.deepcopy(made[0]), copy.deepcopy(made[1])
    drawn = {answer["id"] for answer in certificate["evidence"]["answers"]}
    low = next(
        one for one in rows
        if one["run"] == RUN and one["rank"] < certificate["evidence"]["threshold_rank"] and one["id"] not in drawn
    )  # fmt: skip
    for one in (low, next(one for one in rows if one["id"] == 6300)):
        one.update(
            label=one["predicted_label"], source="machine", outcome=None, decided_at=None, certified=True
        )
        every = sorted((r for r in rows if r["certified"]), key=lambda r: r["id"])
        digest, count = content_hash((r["id"], r["label"], r["source"], r["outcome"]) for r in every)
        certificate["evidence"].update(content_hash=digest, rows=count)
        assert "threshold_rank" in whats(signed(certificate), rows)
        one.update(by_person("ham"))


def test_too_few_labels_for_the_budget_are_refused(made: Made) -> None:
    """What people left out makes the share that may be wrong larger than was promised."""
    certificate = copy.deepcopy(made[0])
    certificate["evidence"]["labels"] = 333
    assert "labels" in whats(signed(certificate), made[1])
    assert certify.tolerated(333, 0.06) < BUDGET <= certify.tolerated(334, 0.06)


def test_it_says_how_many_answers_changed_since_and_nothing_else(made: Made) -> None:
    certificate, rows = made
    drawn = {answer["id"] for answer in certificate["evidence"]["answers"]}
    changed, left = [], 12
    for one in rows:
        if left and one["certified"] and one["id"] not in drawn and one["same_as"] is None:
            left -= 1
            one = one | by_person(
                None if left % 3 == 0 else "x", LATER, "cant_tell" if left % 3 == 0 else "label"
            )
        changed.append(one)
    found = verify(certificate, changed)
    assert [d.what for d in found] == ["rows", "content_hash"]
    assert "12 answers changed since" in found[1].sentence


def test_it_says_when_the_threshold_was_raised(made: Made) -> None:
    certificate, rows = made
    lost = {"label": None, "source": "none", "certified": False}
    raised = [
        one | {"threshold": 0.8} | (lost if one["source"] == "machine" and one["rank"] < to_rank(0.8) else {})
        for one in rows
    ]
    found = verify(certificate, raised)
    assert {d.what for d in found} == {"rows", "content_hash"}
    assert "since the threshold was raised" in found[1].sentence


def test_the_promise_is_a_sentence_that_is_rounded_down() -> None:
    assert statement_of(5160, 247, 4757, None, 0.05) == (
        "With 95% confidence at least 95.2% of the 5,160 labels of this dataset agree with what your reviewers answer: "
        "at most 247 differ."
    )
    assert statement_of(5160, 247, 4757, 0.1, 0.05) == (
        "With 95% confidence at least 95.2% of the 5,160 labels of this dataset, and at least 94.8% of the 4,757 accepted "
        "unseen, agree with what your reviewers answer: at most 247 differ."
    )
    few = statement_of(99, 1, 1, 0.1, 0.05)
    assert "98.9% of the 99 labels of this dataset agree" in few and few.endswith("at most 1 differs.")


@pytest.mark.parametrize("broken", [{"labels": 0}, {"promise": "much"}, {"answers": None}, {"size": 10**9}])
def test_what_cannot_be_computed_is_said_in_one_sentence(made: Made, broken: dict[str, Any]) -> None:
    certificate = copy.deepcopy(made[0])
    certificate["evidence"] |= broken
    with pytest.raises(NotACertificate, match="cannot be read"):
        verify(certificate, made[1])

"""A certificate and its file agree, until one character of either is changed."""

from __future__ import annotations

import copy
import hashlib
import json
import random
from typing import Any

import pytest

from labelhub.autolabel import certify, sampling
from labelhub.autolabel.fingerprint import answers_hash, content_hash, figures_hash
from labelhub.autolabel.rank import to_rank
from labelhub.autolabel.verify import FORMAT, NotACertificate, statement_of, verify

POOL, SIZE, SEED = 400, 90, 2**127 + 12345
AS_OF, LATER = "2026-03-01T12:00:00+00:00", "2026-03-02T08:00:00.5Z"
UNSURE = 7  # place in the draw of the item nobody could tell
NAMES = ("spam", "ham", "tab\tund Ümlaut")


def make() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """400 accepted items, 90 drawn, one error (nobody could tell), a copy, and rows that are not certified."""
    ids = [10 + 3 * n for n in range(POOL)]
    ranks = [to_rank(0.85 + n / 4000, n) for n in range(POOL)]
    said = [NAMES[n % 3] for n in range(POOL)]
    drawn = sampling.draw(SEED, ids, SIZE)
    rows = []
    for item, rank, label in zip(ids, ranks, said, strict=True):
        place = drawn.index(item) if item in drawn else None
        unsure = place == UNSURE
        rows.append(
            {
                "id": item, "label": None if unsure else label,
                "source": "machine" if place is None else "none" if unsure else "person",
                "outcome": None if place is None else "cant_tell" if unsure else "label",
                "predicted_label": label, "rank": rank, "run": 1, "threshold": 0.85, "same_as": None,
                "decided_at": None if place is None else "2026-02-28T10:00:00Z", "certified": not unsure,
            }
        )  # fmt: skip
    rows.append(rows[3] | {"id": 5, "same_as": rows[3]["id"]})  # a copy, from another place of the file
    rows.append(
        rows[4] | {"id": 9001, "rank": to_rank(0.3), "label": None, "source": "none", "certified": False}
    )
    rows.append(rows[4] | {"id": 9002, "label": None, "source": "none", "certified": False})  # asked before
    random.Random(1).shuffle(rows)
    by_id = {row["id"]: row for row in rows}
    answers = [{key: by_id[item][key] for key in ("id", "rank", "predicted_label", "outcome", "label")}
               for item in drawn]  # fmt: skip
    certified = sorted((row for row in rows if row["certified"]), key=lambda row: row["id"])
    digest, count = content_hash((r["id"], r["label"], r["source"], r["outcome"]) for r in certified)
    left = by_id[drawn[UNSURE]]
    budget, alpha = 20, 0.04
    evidence = {
        "run": 1, "threshold_rank": to_rank(0.85), "pool": POOL, "pool_hash": sampling.pool_hash(ids, ranks, said),
        "seed": f"{SEED:032x}", "size": SIZE, "errors": 1, "cant_tell": 1, "target_error": 0.05, "alpha": 0.05,
        "alpha_of_this_attempt": alpha, "budget": budget, "attempt": 1, "earlier_attempts": [],
        "allowed_errors": certify.most_errors_allowed(POOL, budget, SIZE, alpha),
        "answers": answers, "answers_hash": answers_hash(answers), "as_of": AS_OF, "rows": count,
        "content_hash": digest, "asked_before": [9002],
        "left_out": [{key: left[key] for key in ("id", "rank", "predicted_label", "outcome")}],
    }  # fmt: skip
    statement = statement_of(POOL, budget, to_rank(0.85), 0.05)
    evidence["figures_hash"] = figures_hash(statement, evidence)
    return {"format": FORMAT, "statement": statement, "evidence": evidence}, rows


@pytest.fixture(scope="module")
def made() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    return make()


def whats(certificate: dict[str, Any], rows: list[dict[str, Any]]) -> set[str]:
    return {difference.what for difference in verify(certificate, rows)}


def test_it_finds_nothing_in_an_unchanged_file_in_any_order(made) -> None:
    certificate, rows = made
    assert certificate["evidence"]["errors"] <= certificate["evidence"]["allowed_errors"]
    assert verify(certificate, rows) == []
    assert verify(json.loads(json.dumps(certificate)), reversed(rows)) == []


def test_the_digest_of_the_file_is_that_of_the_lines_anybody_can_write(made) -> None:
    certificate, rows = made
    lines = [
        f"{r['id']}\t{json.dumps(r['label'])}\t{r['source']}\t{r['outcome'] or ''}\n"
        for r in sorted(rows, key=lambda r: r["id"])
        if r["certified"]
    ]
    assert hashlib.sha256("".join(lines).encode()).hexdigest() == certificate["evidence"]["content_hash"]
    many = [(n, "ä", "machine", None) for n in range(25_001)]
    text = "".join(f'{n}\t"\\u00e4"\tmachine\t\n' for n in range(25_001))
    assert content_hash(iter(many)) == (hashlib.sha256(text.encode()).hexdigest(), 25_001)
    with pytest.raises(ValueError, match="ascending"):
        content_hash([(2, "a", "machine", None), (1, "a", "machine", None)])


@pytest.mark.parametrize(
    "field", ["label", "source", "outcome", "rank", "predicted_label", "id", "certified"]
)
@pytest.mark.parametrize("which", range(0, POOL, 23))
def test_any_change_of_a_certified_row_is_found(made, field: str, which: int) -> None:
    certificate, rows = made
    certified = [n for n, row in enumerate(rows) if row["certified"] and row["same_as"] is None]
    n = certified[which % len(certified)]
    other = {
        "label": "another", "source": "given", "outcome": "exclude", "rank": rows[n]["rank"] + 1,
        "predicted_label": "another", "id": 77_777, "certified": False,
    }[field]  # fmt: skip
    assert verify(certificate, [*rows[:n], rows[n] | {field: other}, *rows[n + 1 :]])


def test_a_row_removed_or_repeated_is_found(made) -> None:
    certificate, rows = made
    for n, row in enumerate(rows):
        if row["certified"]:
            assert "rows" in whats(certificate, rows[:n] + rows[n + 1 :])
    row = next(row for row in rows if row["certified"])
    assert any("more than once" in d.sentence for d in verify(certificate, [*rows, row]))
    assert any("No row of the file" in d.sentence for d in verify(certificate, []))


def test_what_is_not_certified_may_change(made) -> None:
    certificate, rows = made
    changed = [row | {"label": "x", "source": "person"} if row["id"] == 9001 else row for row in rows]
    assert verify(certificate, changed) == []


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("seed", f"{SEED + 1:032x}", "seed"),
        ("errors", 0, "errors"),
        ("cant_tell", 0, "cant_tell"),
        ("alpha", 0.1, "alpha"),
        ("alpha_of_this_attempt", 0.2, "alpha"),
        ("attempt", 2, "attempt"),
        ("budget", 21, "budget"),
        ("target_error", 0.06, "budget"),
        ("allowed_errors", 9, "allowed_errors"),
        ("size", SIZE - 1, "size"),
        ("pool", POOL + 1, "pool_hash"),
        ("pool_hash", "0" * 64, "pool_hash"),
        ("threshold_rank", to_rank(0.9), "threshold_rank"),
        ("rows", 3, "rows"),
        ("content_hash", "0" * 64, "content_hash"),
        ("answers_hash", "0" * 64, "answers_hash"),
    ],
)
def test_any_change_of_the_certificate_is_found_by_name(made, key: str, value: Any, what: str) -> None:
    certificate, rows = made
    forged = copy.deepcopy(certificate)
    forged["evidence"][key] = value
    assert {what, "figures_hash"} <= whats(forged, rows)
    forged["evidence"]["figures_hash"] = figures_hash(forged["statement"], forged["evidence"])
    assert what in whats(forged, rows), "and not by its own digest alone"


def test_a_better_statement_or_answer_is_found(made) -> None:
    certificate, rows = made
    forged = certificate | {"statement": certificate["statement"].replace("95.0%", "99.0%")}
    assert "statement" in whats(forged, rows)
    forged = copy.deepcopy(certificate)
    answer = forged["evidence"]["answers"][UNSURE]
    answer.update(outcome="label", label=answer["predicted_label"])
    forged["evidence"]["errors"] = forged["evidence"]["cant_tell"] = 0
    assert {"answers_hash", "sample", "errors"} <= whats(forged, rows)


def test_more_errors_than_allowed_prove_nothing(made) -> None:
    certificate, rows = made
    forged = copy.deepcopy(certificate)
    forged["evidence"]["errors"] = 5
    assert any("prove nothing" in d.sentence for d in verify(forged, rows))


def test_it_says_how_many_answers_changed_since_and_nothing_else(made) -> None:
    certificate, rows = made
    drawn = {answer["id"] for answer in certificate["evidence"]["answers"]}
    changed, left = [], 12
    for row in rows:
        if left and row["certified"] and row["id"] not in drawn and row["same_as"] is None:
            left -= 1
            row = row | {"label": "x", "source": "person", "outcome": "label", "decided_at": LATER}
            if left % 3 == 0:  # out of the certified file altogether
                row |= {"label": None, "source": "none", "outcome": "cant_tell", "certified": False}
        changed.append(row)
    found = verify(certificate, changed)
    assert [d.what for d in found] == ["rows", "content_hash"]
    assert "12 answers changed since" in found[1].sentence


def test_it_says_when_the_threshold_was_raised(made) -> None:
    certificate, rows = made
    raised = []
    for row in rows:
        out = row["source"] == "machine" and row["rank"] < to_rank(0.87)
        lost = {"label": None, "source": "none", "certified": False} if out else {}
        raised.append(row | {"threshold": 0.87} | lost)
    found = verify(certificate, raised)
    assert {d.what for d in found} == {"rows", "content_hash"}
    assert "since the threshold was raised" in found[1].sentence


def test_a_promise_is_rounded_down() -> None:
    assert "at least 95.9% of the 99 labels" in statement_of(99, 4, to_rank(0.9), 0.05)
    assert "at least 95.0% of the 1,000 labels accepted at 0.9 " in statement_of(1000, 50, to_rank(0.9), 0.05)


@pytest.mark.parametrize(
    "certificate", [[], {}, {"format": "x"}, {"format": FORMAT, "evidence": {}, "statement": ""}]
)
def test_what_is_no_certificate_is_said_in_one_sentence(certificate: Any) -> None:
    with pytest.raises(NotACertificate):
        verify(certificate, [])


def test_a_row_of_another_file_is_said_with_its_number(made) -> None:
    certificate, rows = made
    with pytest.raises(NotACertificate, match="Row 2 of the file"):
        verify(certificate, [rows[0], {"text": "hello"}])

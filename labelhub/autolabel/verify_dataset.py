"""The promise about a whole dataset, recomputed from its certificate and the exported rows.

The pool of the draw is every row of the certified run that is the first of its copies, but for those that the
certificate lists as outside of it, because they were answered, or a manager was asked about them, before the draw.
Its SHA-256 decides whether it is the pool. From pool and answers follow the draw, the errors and the threshold.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from labelhub.autolabel import certify
from labelhub.autolabel.rank import confidence_of
from labelhub.autolabel.verify_read import (
    Difference,
    File,
    Row,
    check_attempt,
    check_content,
    check_draw,
    check_sample,
    check_statement,
    count_of,
    differs,
    is_error,
    is_pool,
    other_pool,
    percent_right,
    read_rows,
)


def statement_of(labels: int, budget: int, accepted: int, floor_error: float | None, alpha: float) -> str:
    """Return the promise about a whole dataset, as one sentence.

    Args:
        labels: distinct texts with a label, given ones not among them; at least 1.
        budget: labels that may be wrong, in [0, labels].
        accepted: of the labels those that no person has read.
        floor_error: share of those that may be wrong, or None where none was set.
        alpha: chance that any certificate of the dataset is false.
    Source: docs/statistics.md, "Certificate by target" and "Floor".
    """
    unseen = ""
    if floor_error is not None and accepted > budget:
        unseen = f", and at least {percent_right(accepted, budget)} of the {accepted:,} accepted unseen,"
    return (
        f"With {1 - alpha:.0%} confidence at least {percent_right(labels, budget)} of the {labels:,} labels of this "
        f"dataset{unseen} agree with what your reviewers answer: at most {budget:,} differ{'s' if budget == 1 else ''}."
    )


@dataclass(slots=True)
class Labels:
    """Distinct texts of a file by who answers for their label; given labels are not among them."""

    people: int = 0
    accepted: int = 0  # by the machine, and certified
    uncovered: int = (
        0  # by the machine, but never in the pool: answered before the draw and taken back after it
    )

    def count(self, source: str, certified: bool) -> None:
        """Count one row that is the first of its copies."""
        if source == "machine":
            self.accepted += certified
            self.uncovered += not certified
        else:
            self.people += certified


@dataclass(slots=True)
class _Whole(File):
    rows: int = 0  # of the file, certified or not
    labels: Labels = field(default_factory=Labels)
    left_out: dict[int, Row] = field(default_factory=dict)
    unproven: int = 0  # machine's labels below the certified threshold, or from outside the pool


def check(
    statement: str, evidence: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]
) -> Iterator[Difference]:
    """Yield every difference between a certificate about a whole dataset and the rows of an export.

    Args:
        statement, evidence: of the certificate.
        rows: of the JSONL export, in any order.
    Raises: KeyError, TypeError, ValueError or AttributeError where something is missing or of another kind.
    """
    file = _read(evidence, rows)
    yield from _terms(evidence)
    words = statement_of(
        evidence["labels"], evidence["budget"], evidence["accepted"], evidence["floor_error"], evidence["alpha"]
    )  # fmt: skip
    yield from check_statement(statement, words, evidence)
    yield from check_sample(evidence, file.drawn)
    yield from _threshold(evidence)
    yield from _pool(evidence, file)
    yield from _labels(evidence, file)


def _read(evidence: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> _Whole:
    file = _Whole()
    drawn = {answer["id"] for answer in evidence["answers"]}
    outside, left_out = set(evidence["outside_pool"]), {entry["id"] for entry in evidence["left_out"]}
    run, threshold = evidence["run"], evidence["threshold_rank"]
    for row in read_rows(evidence, rows):
        file.rows += 1
        if row.id in drawn:
            file.drawn[row.id] = row
        if row.id in left_out:
            file.left_out[row.id] = row
        if row.is_first:
            file.labels.count(row.source, row.certified)
            file.changed += row.since
        frozen = row.frozen if row.run == run and row.id not in outside else None
        if frozen:
            file.pool.append(frozen)
        if row.certified:
            file.certify(row)
            proven = row.run == run and isinstance(row.rank, int) and row.rank >= threshold
            file.unproven += row.source == "machine" and not (proven and (frozen or not row.is_first))
        elif frozen and frozen[1] >= threshold and row.outcome is None:
            file.raised += row.threshold is None or confidence_of(frozen[1]) <= row.threshold
    return file


def _terms(evidence: Mapping[str, Any]) -> Iterator[Difference]:
    """The figures that were fixed before the draw: alpha, budget, allowed errors and their level."""
    pool, size, budget = evidence["pool"], evidence["size"], evidence["budget"]
    yield from check_attempt(evidence)
    most = certify.tolerated(evidence["items"], evidence["target_error"])
    if budget > most:
        yield Difference(
            "budget", f"{count_of(budget, 'wrong label')} promised at most, and the target tolerates {most:,}."
        )  # fmt: skip
    if budget > certify.tolerated(evidence["labels"], evidence["target_error"]):
        yield Difference(
            "labels",
            f"{budget:,} wrong labels in a file of {evidence['labels']:,} are more than the target tolerates.",
        )
    allowed = certify.allowed_errors(pool, size, budget, evidence["alpha_of_this_attempt"])
    if evidence["allowed_errors"] != allowed or allowed < 0:
        yield differs("allowed_errors", "number of errors allowed", evidence["allowed_errors"], allowed)
    level = certify.level(allowed, pool, size, budget)
    if not math.isclose(evidence["level"], level, rel_tol=1e-9, abs_tol=1e-15):
        yield differs("level", "level of the test", evidence["level"], level)


def _threshold(evidence: Mapping[str, Any]) -> Iterator[Difference]:
    """The threshold that the answers prove; what the file says about them is compared by ``check_sample``."""
    if evidence["allowed_errors"] < 0:
        yield Difference("threshold_rank", "A sample that allows no error count proves no threshold.")
        return
    wrong = [answer["rank"] for answer in evidence["answers"] if is_error(answer)]
    proven = certify.certified_threshold(wrong, evidence["allowed_errors"])
    if evidence["threshold_rank"] != proven:
        yield differs("threshold_rank", "certified threshold", evidence["threshold_rank"], proven)


def _pool(evidence: Mapping[str, Any], file: _Whole) -> Iterator[Difference]:
    """The frozen pool, the sample that its seed draws from it, and what stands above the threshold."""
    threshold, floor = evidence["threshold_rank"], evidence["floor_error"]
    if is_pool(evidence, file.pool):
        yield from check_draw(evidence, file.pool)
        drawn = {answer["id"] for answer in evidence["answers"]}
        above = sum(rank >= threshold and item not in drawn for item, rank, _ in file.pool)
        if evidence["above_threshold"] != above:
            yield differs(
                "above_threshold", "number of labels accepted by the sample", evidence["above_threshold"], above
            )  # fmt: skip
    else:
        yield other_pool(evidence, len(file.pool))
    if floor is not None and evidence["above_threshold"] < certify.least_accepted(evidence["budget"], floor):
        yield Difference("floor_error", "Too few labels were accepted to promise how many of them are right.")
    if file.unproven:
        yield Difference(
            "threshold_rank",
            f"{count_of(file.unproven, 'label')} certified that no person gave and the sample did not prove.",
        )


def _labels(evidence: Mapping[str, Any], file: _Whole) -> Iterator[Difference]:
    """The digest of the certified rows, what was left out, and how many labels there are."""
    if file.rows != evidence["file_rows"]:
        yield differs("file_rows", "number of rows in the file", evidence["file_rows"], file.rows)
    other = [
        entry["id"]
        for entry in evidence["left_out"]
        if (row := file.left_out.get(entry["id"])) is None
        or (not row.since and (row.outcome != entry["outcome"] or row.label is not None))
    ]
    if other:
        yield Difference(
            "left_out", f"{count_of(len(other), 'row')} left out otherwise than the certificate says."
        )
    labels, items = evidence["labels"], evidence["items"]
    if labels != evidence["people"] + evidence["accepted"]:
        yield differs("labels", "number of labels", labels, evidence["people"] + evidence["accepted"])
    if items != labels + len(evidence["left_out"]) + evidence["uncovered"]:
        found = labels + len(evidence["left_out"]) + evidence["uncovered"]
        yield differs("items", "number of distinct texts", items, found)
    differences = list(check_content(evidence, file))
    yield from differences
    if differences:  # what else is counted differs with it
        return
    for key, name in (("people", "people's labels"), ("accepted", "labels accepted unseen"),
                      ("uncovered", "labels that are not certified")):  # fmt: skip
        if evidence[key] != getattr(file.labels, key):
            yield differs(key, f"number of {name}", evidence[key], getattr(file.labels, key))

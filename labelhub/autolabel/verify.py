"""A certificate recomputed from two files: its JSON and the exported rows. Nothing else is asked or trusted.

This file has the door, and the promise about labels that were accepted by hand; the promise about a whole dataset is
in ``verify_dataset``. The pool of the draw is put together again from the file: every certified row that is the first
of its copies, what the certificate lists as left out, and what the file says left since. Its SHA-256 decides whether
it is the pool.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from labelhub.autolabel import certify, verify_dataset
from labelhub.autolabel.rank import confidence_of
from labelhub.autolabel.verify_read import (
    Difference,
    File,
    NotACertificate,
    check_attempt,
    check_content,
    check_draw,
    check_sample,
    check_statement,
    differs,
    is_pool,
    other_pool,
    percent_right,
    read_rows,
)

FORMAT = "labelhub certificate 1"

__all__ = ["FORMAT", "Difference", "NotACertificate", "statement_of", "verify"]


def statement_of(pool: int, budget: int, threshold: int, alpha: float) -> str:
    """Return the promise about labels that were accepted by hand, as one sentence.

    Args:
        pool: labels that the sample was drawn from.
        budget: wrong ones that the exact test could not exclude.
        threshold: the rank from which they were accepted.
        alpha: chance that any certificate of the dataset is false.
    """
    return (
        f"With {1 - alpha:.0%} confidence at least {percent_right(pool, budget)} of the {pool:,} labels accepted at "
        f"{confidence_of(threshold):g} agree with what your reviewers answer."
    )


def verify(certificate: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> list[Difference]:
    """Recompute a certificate from the rows of an export, and return every difference; none means it agrees.

    Args:
        certificate: the certificate as downloaded, a JSON object.
        rows: the rows of the JSONL export, one mapping a line, in any order.
    Raises: NotACertificate when one of them is something else.
    Source: docs/statistics.md, "Verifying a certificate".
    """
    try:
        if certificate["format"] != FORMAT:
            raise NotACertificate(
                f"This certificate has the format {certificate['format']!r}, not {FORMAT!r}."
            )
        evidence, statement = certificate["evidence"], certificate["statement"]
        check = {"accepted": _check, "dataset": verify_dataset.check}[evidence.get("promise", "accepted")]
        return list(check(statement, evidence, rows))
    except NotACertificate:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise NotACertificate(f"The certificate cannot be read: {type(error).__name__} {error}.") from error


@dataclass(slots=True)
class _Accepted(File):
    left: list[tuple[int, int, str]] = field(default_factory=list)  # since the certificate was issued


def _check(
    statement: str, evidence: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]
) -> Iterator[Difference]:
    file = _read(evidence, rows)
    yield from _test(evidence)
    words = statement_of(evidence["pool"], evidence["budget"], evidence["threshold_rank"], evidence["alpha"])
    yield from check_statement(statement, words, evidence)
    yield from check_sample(evidence, file.drawn)
    yield from _pool(evidence, file)
    yield from check_content(evidence, file)


def _read(evidence: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> _Accepted:
    file = _Accepted()
    drawn = {answer["id"] for answer in evidence["answers"]}
    known = {entry["id"] for entry in evidence["left_out"]} | set(evidence["asked_before"])
    run, threshold = evidence["run"], evidence["threshold_rank"]
    for row in read_rows(evidence, rows):
        if row.id in drawn:
            file.drawn[row.id] = row
        frozen = row.frozen
        if row.certified:
            file.certify(row)
            file.changed += row.since and row.is_first
            if frozen:
                file.pool.append(frozen)
        elif frozen and row.id not in known and row.run == run and frozen[1] >= threshold:
            undecided = row.outcome is None and row.label is None
            if row.since or undecided:
                file.left.append(frozen)
                file.changed += row.since
                file.raised += undecided and (
                    row.threshold is None or frozen[1] < round(row.threshold * 10**6) * 10**6
                )
    return file


def _test(evidence: Mapping[str, Any]) -> Iterator[Difference]:
    """The figures that follow from others: alpha, budget and allowed errors."""
    pool, size = evidence["pool"], evidence["size"]
    yield from check_attempt(evidence)
    budget = certify.tolerated(pool, evidence["target_error"])
    if evidence["budget"] != budget:
        yield differs(
            "budget", "number of wrong labels that the target tolerates", evidence["budget"], budget
        )
    allowed = certify.most_errors_allowed(pool, evidence["budget"], size, evidence["alpha_of_this_attempt"])
    if evidence["allowed_errors"] != allowed:
        yield differs("allowed_errors", "number of errors allowed", evidence["allowed_errors"], allowed)
    if evidence["errors"] > allowed:
        yield Difference("errors", f"{evidence['errors']} errors prove nothing: {allowed} are allowed.")


def _pool(evidence: Mapping[str, Any], file: _Accepted) -> Iterator[Difference]:
    """The frozen pool, and the sample that its seed draws from it."""
    listed = [(one["id"], one["rank"], one["predicted_label"]) for one in evidence["left_out"]]
    there = {item for item, _, _ in file.pool}
    listed = [one for one in listed if one[0] not in there]  # decided with a label since
    for candidates in ([*file.pool, *listed], [*file.pool, *listed, *file.left]):
        if is_pool(evidence, candidates):
            yield from check_draw(evidence, candidates)
            break
    else:
        yield other_pool(evidence, len(candidates))
    if any(rank < evidence["threshold_rank"] for _, rank, _ in file.pool):
        yield Difference("threshold_rank", "Rows below the certified threshold are marked as certified.")

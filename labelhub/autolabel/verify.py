r"""A certificate recomputed from two files: its JSON and the exported rows. Nothing else is asked or trusted.

Fingerprints are SHA-256 over lines of ASCII that anybody can write: fields separated by one tab, closed by one
line feed, labels as JSON strings (non-ASCII as ``\uXXXX``, so that no label can pass for another line).

The pool of the draw is put together again from the file: every certified row that is the first of its copies,
what the certificate lists as left out, and what the file says left since. Its SHA-256 decides whether it is the pool.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from labelhub.autolabel import certify, sampling
from labelhub.autolabel.rank import confidence_of

FORMAT = "labelhub certificate 1"
LINES_AT_ONCE = 10_000
ROW_KEYS = (
    "id", "label", "source", "outcome", "predicted_label", "rank", "run", "threshold", "decided_at", "same_as",
    "certified",
)  # fmt: skip


class NotACertificate(ValueError):
    """A file that cannot be read as what it should be; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure or fingerprint that is not what the files give: its name, and a sentence about it."""

    what: str
    sentence: str

    def __str__(self) -> str:
        return self.sentence


@dataclass(slots=True)
class _File:
    """What is kept of an export: certified rows, those that may have been in the pool, and the drawn ones."""

    certified: list[tuple[int, str | None, str, str | None]] = field(default_factory=list)
    pool: list[tuple[int, int, str]] = field(default_factory=list)
    left: list[tuple[int, int, str]] = field(default_factory=list)  # since the certificate was issued
    drawn: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    changed: int = 0  # pool rows that say they were answered since
    raised: int = 0  # rows below a threshold that was raised since


def content_hash(rows: Iterable[tuple[int, str | None, str, str | None]]) -> tuple[str, int]:
    """Return the fingerprint of certified rows and their number: 64 hex digits, and a count.

    One line per row, ascending by id: ``id TAB label TAB source TAB outcome LF``; the outcome is empty where
    nobody answered. Reads its argument once; memory does not grow with it.

    Args:
        rows: (id, label, source, outcome), strictly ascending by id.
    Raises: ValueError when ids do not ascend.
    """
    digest, quoted, lines = hashlib.sha256(), _Quoted(), []
    count, previous = 0, None
    for item, label, source, outcome in rows:
        if previous is not None and item <= previous:
            raise ValueError("rows must come in ascending order of id, without repeats")
        previous = item
        lines.append(f"{item}\t{quoted[label]}\t{source}\t{outcome or ''}\n")
        count += 1
        if len(lines) == LINES_AT_ONCE:
            digest.update("".join(lines).encode("ascii"))
            lines.clear()
    digest.update("".join(lines).encode("ascii"))
    return digest.hexdigest(), count


def answers_hash(answers: Iterable[Mapping[str, Any]]) -> str:
    """Return the fingerprint of a sample's answers in the order of the draw, as 64 hex digits.

    One line per answer: ``id TAB rank TAB predicted_label TAB outcome TAB label LF``.
    """
    digest, quoted = hashlib.sha256(), _Quoted()
    for a in answers:
        digest.update(
            f"{a['id']}\t{a['rank']}\t{quoted[a['predicted_label']]}\t{a['outcome']}\t{quoted[a['label']]}\n".encode()
        )
    return digest.hexdigest()


def figures_hash(statement: str, evidence: Mapping[str, Any]) -> str:
    """Return the fingerprint of a certificate itself: of its statement and all of its evidence but this hash."""
    rest = {key: value for key, value in evidence.items() if key != "figures_hash"}
    text = json.dumps([statement, rest], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def statement_of(pool: int, budget: int, threshold: int, alpha: float) -> str:
    """Return the promise about labels that were accepted by hand, as one sentence.

    Args:
        pool: labels that the sample was drawn from.
        budget: wrong ones that the exact test could not exclude.
        threshold: the rank from which they were accepted.
        alpha: chance that any certificate of the dataset is false.
    """
    lowest = math.floor(1000 * (1 - budget / pool) + certify.UNIT) / 10  # a promise is rounded down
    return (
        f"With {1 - alpha:.0%} confidence at least {lowest:.1f}% of the {pool:,} labels accepted at "
        f"{confidence_of(threshold):g} agree with what your reviewers answer."
    )


def is_error(answer: Mapping[str, Any]) -> bool:
    """Whether an answer counts against the machine: another label, or none ("can't tell")."""
    return bool(answer["outcome"] != "label" or answer["label"] != answer["predicted_label"])


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
        read = _read(evidence, rows)
        return [*_test(statement, evidence), *_sample(evidence, read), *_pool(evidence, read),
                *_content(evidence, read)]  # fmt: skip
    except NotACertificate:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NotACertificate(f"The certificate cannot be read: {type(error).__name__} {error}.") from error


def _read(evidence: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> _File:
    file, as_of = _File(), _moment(evidence["as_of"])
    drawn = {answer["id"] for answer in evidence["answers"]}
    known = {entry["id"] for entry in evidence["left_out"]} | set(evidence["asked_before"])
    run, threshold = evidence["run"], evidence["threshold_rank"]
    words: dict[Any, Any] = {}  # one string per label, not one per row
    for number, row in enumerate(rows, 1):
        try:
            item, label, source, outcome, said, rank, its_run, typed, decided_at, same_as, certified = (
                row[key] for key in ROW_KEYS
            )
            item = int(item)
            since = decided_at is not None and _moment(decided_at) > as_of
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise NotACertificate(
                f"Row {number} of the file is not a row of a JSONL export: {error!r}."
            ) from error
        label, source, outcome, said = (
            words.setdefault(word, word) for word in (label, source, outcome, said)
        )
        if item in drawn:
            file.drawn[item] = {key: row[key] for key in ROW_KEYS} | {"since": since}
        first = same_as is None and isinstance(rank, int) and said is not None
        if certified:
            file.certified.append((item, label, source, outcome))
            file.changed += since and same_as is None
            if first:
                file.pool.append((item, rank, said))
        elif first and item not in known and its_run == run and rank >= threshold:
            undecided = outcome is None and label is None
            if since or undecided:
                file.left.append((item, rank, said))
                file.changed += since
                file.raised += undecided and (typed is None or rank < round(typed * 10**6) * 10**6)
    file.certified.sort(key=lambda one: one[0])
    return file


def _test(statement: str, evidence: Mapping[str, Any]) -> Iterator[Difference]:
    """The figures that follow from others: alpha, budget, allowed errors and the statement."""
    pool, size, attempt = evidence["pool"], evidence["size"], evidence["attempt"]
    alpha, share = evidence["alpha_of_this_attempt"], evidence["alpha"]
    if attempt != 1 + len(evidence["earlier_attempts"]):
        yield _differs("attempt", "number of the attempt", attempt, 1 + len(evidence["earlier_attempts"]))
    expected = certify.attempt_alpha(share, attempt)
    if not math.isclose(alpha, expected, rel_tol=1e-12):
        yield _differs("alpha", f"alpha of attempt {attempt}", alpha, expected)
    budget = certify.tolerated(pool, evidence["target_error"])
    if evidence["budget"] != budget:
        yield _differs(
            "budget", "number of wrong labels that the target tolerates", evidence["budget"], budget
        )
    allowed = certify.most_errors_allowed(pool, evidence["budget"], size, alpha)
    if evidence["allowed_errors"] != allowed:
        yield _differs("allowed_errors", "number of errors allowed", evidence["allowed_errors"], allowed)
    if evidence["errors"] > allowed:
        yield Difference("errors", f"{evidence['errors']} errors prove nothing: {allowed} are allowed.")
    words = statement_of(pool, evidence["budget"], evidence["threshold_rank"], share)
    if statement != words:
        yield Difference("statement", f"The evidence gives another statement: {words}")
    if evidence["figures_hash"] != figures_hash(statement, evidence):
        yield Difference(
            "figures_hash", "The digest of the certificate's own figures differs: it was edited."
        )


def _sample(evidence: Mapping[str, Any], file: _File) -> Iterator[Difference]:
    """The answers of the sample: their digest, their errors, and what the file says about the same rows."""
    answers = evidence["answers"]
    if len(answers) != evidence["size"]:
        yield _differs("size", "size of the sample", evidence["size"], len(answers))
    if evidence["answers_hash"] != answers_hash(answers):
        yield Difference("answers_hash", "The digest of the sample's answers differs.")
    missing = [answer["id"] for answer in answers if answer["id"] not in file.drawn]
    if missing:
        yield Difference(
            "sample", f"{_count(len(missing), 'item')} of the sample not in the file: {_few(missing)}."
        )
    other, errors, unsure = [], 0, 0
    for answer in answers:
        row = file.drawn.get(answer["id"])
        if row is None or row["since"]:  # corrected later: what counted is in the certificate
            row = answer
        elif any(row[key] != answer[key] for key in ("label", "outcome", "predicted_label", "rank")):
            other.append(answer["id"])
        errors += is_error(row)
        unsure += row["outcome"] == "cant_tell"
    if other:
        yield Difference(
            "sample",
            f"{_count(len(other), 'answer')} of the sample not as in the certificate: {_few(other)}.",
        )
    if evidence["errors"] != errors:
        yield _differs("errors", "number of errors in the sample", evidence["errors"], errors)
    if evidence["cant_tell"] != unsure:
        yield _differs("cant_tell", "number of items nobody could tell", evidence["cant_tell"], unsure)


def _pool(evidence: Mapping[str, Any], file: _File) -> Iterator[Difference]:
    """The frozen pool, and the sample that its seed draws from it."""
    listed = [(one["id"], one["rank"], one["predicted_label"]) for one in evidence["left_out"]]
    there = {item for item, _, _ in file.pool}
    listed = [one for one in listed if one[0] not in there]  # decided with a label since
    for candidates in ([*file.pool, *listed], [*file.pool, *listed, *file.left]):
        candidates.sort()
        ids = [item for item, _, _ in candidates]
        if len(set(ids)) == len(ids) == evidence["pool"]:
            ranks, labels = (rank for _, rank, _ in candidates), (label for _, _, label in candidates)
            if sampling.pool_hash(ids, ranks, labels) == evidence["pool_hash"]:
                break
    else:
        found = len(candidates)
        why = (
            f"the file has {found:,} of its {evidence['pool']:,} items"
            if found != evidence["pool"]
            else "an id, a rank or a predicted label is not what was frozen"
        )
        yield Difference("pool_hash", f"The digest of the pool differs: {why}.")
        ids = []
    if any(rank < evidence["threshold_rank"] for _, rank, _ in file.pool):
        yield Difference("threshold_rank", "Rows below the certified threshold are marked as certified.")
    if ids:
        order = sampling.draw(int(evidence["seed"], 16), ids, min(evidence["size"], len(ids)))
        if order != [answer["id"] for answer in evidence["answers"]]:
            yield Difference("seed", "The seed draws another sample from this pool.")


def _content(evidence: Mapping[str, Any], file: _File) -> Iterator[Difference]:
    """The digest of the certified rows, and what the file itself says about why it differs."""
    if not file.certified:
        yield Difference(
            "content_hash",
            "No row of the file is certified: the certificate did not hold any more, or not yet.",
        )
        return
    twice = len(file.certified) - len({one[0] for one in file.certified})
    if twice:
        yield Difference("content_hash", f"{_count(twice, 'certified row')} in the file more than once.")
        return
    found, count = content_hash(file.certified)
    if count != evidence["rows"]:
        yield _differs("rows", "number of certified rows", evidence["rows"], count)
    if found != evidence["content_hash"]:
        reasons = []
        if file.changed:
            reasons.append(f"{file.changed:,} answer{'s' if file.changed > 1 else ''} changed since")
        if file.raised:
            reasons.append(
                f"{_count(file.raised, 'label')} no longer accepted since the threshold was raised"
            )
        why = (
            "; ".join(reasons)
            or "no row says that it was answered since, so a row was altered or an answer was taken back"
        )
        yield Difference("content_hash", f"The digest of the certified rows differs: {why}.")


class _Quoted(dict[str | None, str]):
    """Labels as JSON strings: there are few, and quoting each once is most of the speed."""

    def __missing__(self, label: str | None) -> str:
        text = self[label] = "" if label is None else json.dumps(label)
        return text


def _differs(what: str, name: str, says: object, found: object) -> Difference:
    return Difference(what, f"The {name} is {says} in the certificate and {found} by computation.")


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{' is' if n == 1 else 's are'}"


def _few(ids: list[int]) -> str:
    return ", ".join(map(str, ids[:5])) + (" …" if len(ids) > 5 else "")


def _moment(text: str) -> dt.datetime:
    moment = dt.datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)

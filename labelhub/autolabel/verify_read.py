"""What every verification begins with: the rows of an export, and the figures that all certificates have."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from labelhub.autolabel import certify, sampling
from labelhub.autolabel.fingerprint import answers_hash, content_hash, figures_hash


class NotACertificate(ValueError):
    """A file that cannot be read as what it should be; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure or fingerprint that is not what the files give: its name, and a sentence about it."""

    what: str
    sentence: str

    def __str__(self) -> str:
        return self.sentence


class Row(NamedTuple):
    """The keys of an exported row that a certificate speaks of; ``since``: answered after it was issued."""

    id: int
    label: str | None
    source: str
    outcome: str | None
    predicted_label: str | None
    rank: int | None
    run: int | None
    threshold: float | None
    decided_at: str | None
    same_as: int | None
    certified: bool
    since: bool

    @property
    def is_first(self) -> bool:
        """Whether it is no copy of an earlier row."""
        return self.same_as is None

    @property
    def frozen(self) -> tuple[int, int, str] | None:
        """Its line in the pool if it was in one: id, rank and the machine's label; None where it says no such thing."""
        if self.same_as is None and isinstance(self.rank, int) and self.predicted_label is not None:
            return self.id, self.rank, self.predicted_label
        return None


ROW_KEYS = Row._fields[:-1]


@dataclass(slots=True)
class File:
    """What is kept of an export: certified rows, those that were in the pool, and the drawn ones."""

    certified: list[tuple[int, str | None, str, str | None]] = field(default_factory=list)
    pool: list[tuple[int, int, str]] = field(default_factory=list)
    drawn: dict[int, Row] = field(default_factory=dict)
    odd: int = 0  # certified rows that nobody answers for
    changed: int = 0  # rows that say they were answered since
    raised: int = 0  # rows below a threshold that was raised since

    def certify(self, row: Row) -> None:
        """Keep a certified row for the digest of the file."""
        self.certified.append(row[:4])
        self.odd += row[2:4] not in (("machine", None), ("person", "label"))


def read_rows(evidence: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    """Yield the rows of an export.

    Raises: NotACertificate for a row that an export does not write, with its number.
    """
    as_of = _moment(evidence["as_of"])
    words: dict[Any, Any] = {}  # one string per label, not one per row
    for number, row in enumerate(rows, 1):
        try:
            item, label, source, outcome, said, *rest = (row[key] for key in ROW_KEYS)
            decided_at = row["decided_at"]
            since = decided_at is not None and _moment(decided_at) > as_of
            texts = (words.setdefault(word, word) for word in (label, source, outcome, said))
            read = Row._make((int(item), *texts, *rest, since))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise NotACertificate(
                f"Row {number} of the file is not a row of a JSONL export: {error!r}."
            ) from error
        yield read


def check_attempt(evidence: Mapping[str, Any]) -> Iterator[Difference]:
    """The number of the attempt, and the alpha that it is tested at."""
    attempt, alpha = evidence["attempt"], evidence["alpha_of_this_attempt"]
    if attempt != 1 + len(evidence["earlier_attempts"]):
        yield differs("attempt", "number of the attempt", attempt, 1 + len(evidence["earlier_attempts"]))
    expected = certify.attempt_alpha(evidence["alpha"], attempt)
    if not math.isclose(alpha, expected, rel_tol=1e-12):
        yield differs("alpha", f"alpha of attempt {attempt}", alpha, expected)


def check_statement(statement: str, words: str, evidence: Mapping[str, Any]) -> Iterator[Difference]:
    """The sentence that the evidence allows, and the digest of the certificate itself."""
    if statement != words:
        yield Difference("statement", f"The evidence gives another statement: {words}")
    if evidence["figures_hash"] != figures_hash(statement, evidence):
        yield Difference(
            "figures_hash", "The digest of the certificate's own figures differs: it was edited."
        )


def is_error(answer: Mapping[str, Any]) -> bool:
    """Whether an answer counts against the machine: another label, or none ("can't tell")."""
    return bool(answer["outcome"] != "label" or answer["label"] != answer["predicted_label"])


def check_sample(evidence: Mapping[str, Any], drawn: Mapping[int, Row]) -> Iterator[Difference]:
    """The answers of the sample: their digest, their errors, and what the file says about the same rows."""
    answers = evidence["answers"]
    if len(answers) != evidence["size"]:
        yield differs("size", "size of the sample", evidence["size"], len(answers))
    if evidence["answers_hash"] != answers_hash(answers):
        yield Difference("answers_hash", "The digest of the sample's answers differs.")
    missing = [answer["id"] for answer in answers if answer["id"] not in drawn]
    if missing:
        yield Difference(
            "sample", f"{count_of(len(missing), 'item')} of the sample not in the file: {_few(missing)}."
        )
    other, errors, unsure = [], 0, 0
    for answer in answers:
        row = drawn.get(answer["id"])
        judged = answer
        if row is not None and not row.since:  # corrected later: what counted is in the certificate
            judged = {key: getattr(row, key) for key in ("label", "outcome", "predicted_label", "rank")}
            if any(answer[key] != value for key, value in judged.items()):
                other.append(answer["id"])
        errors += is_error(judged)
        unsure += judged["outcome"] == "cant_tell"
    if other:
        yield Difference(
            "sample",
            f"{count_of(len(other), 'answer')} of the sample not as in the certificate: {_few(other)}.",
        )
    if evidence["errors"] != errors:
        yield differs("errors", "number of errors in the sample", evidence["errors"], errors)
    if evidence["cant_tell"] != unsure:
        yield differs("cant_tell", "number of items nobody could tell", evidence["cant_tell"], unsure)


def is_pool(evidence: Mapping[str, Any], pool: list[tuple[int, int, str]]) -> bool:
    """Sort rows by id, and return whether they are the frozen pool, by its size and its digest."""
    pool.sort()
    ids = [item for item, _, _ in pool]
    if not len(set(ids)) == len(ids) == evidence["pool"]:
        return False
    ranks, labels = (rank for _, rank, _ in pool), (label for _, _, label in pool)
    return sampling.pool_hash(ids, ranks, labels) == evidence["pool_hash"]


def other_pool(evidence: Mapping[str, Any], found: int) -> Difference:
    """Why rows are not the frozen pool."""
    why = (
        f"the file has {found:,} of its {evidence['pool']:,} items"
        if found != evidence["pool"]
        else "an id, a rank or a predicted label is not what was frozen"
    )
    return Difference("pool_hash", f"The digest of the pool differs: {why}.")


def check_draw(evidence: Mapping[str, Any], pool: Collection[tuple[int, int, str]]) -> Iterator[Difference]:
    """The sample that the seed draws from the pool, which comes in ascending order of id."""
    ids = [item for item, _, _ in pool]
    order = sampling.draw(int(evidence["seed"], 16), ids, min(evidence["size"], len(ids)))
    if order != [answer["id"] for answer in evidence["answers"]]:
        yield Difference("seed", "The seed draws another sample from this pool.")


def check_content(evidence: Mapping[str, Any], file: File) -> Iterator[Difference]:
    """The digest of the certified rows, and what the file itself says about why it differs."""
    if not file.certified:
        yield Difference(
            "content_hash",
            "No row of the file is certified: the certificate did not hold any more, or not yet.",
        )
        return
    file.certified.sort(key=lambda one: one[0])
    twice = len(file.certified) - len({one[0] for one in file.certified})
    if twice:
        yield Difference("content_hash", f"{count_of(twice, 'certified row')} in the file more than once.")
        return
    if file.odd:
        yield Difference(
            "content_hash",
            f"{count_of(file.odd, 'certified row')} neither the machine's word nor a person's.",
        )
    found, count = content_hash(file.certified)
    if count != evidence["rows"]:
        yield differs("rows", "number of certified rows", evidence["rows"], count)
    if found != evidence["content_hash"]:
        reasons = []
        if file.changed:
            reasons.append(f"{file.changed:,} answer{'s' if file.changed > 1 else ''} changed since")
        if file.raised:
            reasons.append(
                f"{count_of(file.raised, 'label')} no longer accepted since the threshold was raised"
            )
        why = (
            "; ".join(reasons)
            or "no row says that it was answered since, so a row was altered or an answer was taken back"
        )
        yield Difference("content_hash", f"The digest of the certified rows differs: {why}.")


def percent_right(labels: int, wrong: int) -> str:
    """The share of labels that are right if ``wrong`` are not; a promise is rounded down."""
    return f"{math.floor(1000 * (1 - wrong / labels) + certify.UNIT) / 10:.1f}%"


def differs(what: str, name: str, says: object, found: object) -> Difference:
    """A figure that is another by computation."""
    return Difference(what, f"The {name} is {says} in the certificate and {found} by computation.")


def count_of(n: int, noun: str) -> str:
    """A count as the beginning of a sentence: "1 row is", "12 rows are"."""
    return f"{n:,} {noun}{' is' if n == 1 else 's are'}"


def _few(ids: list[int]) -> str:
    return ", ".join(map(str, ids[:5])) + (" …" if len(ids) > 5 else "")


def _moment(text: str) -> dt.datetime:
    moment = dt.datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)

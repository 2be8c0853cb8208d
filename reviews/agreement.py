"""How methods and people agree: votes beside answers, and each person's answers and time. Reads only.

Nothing about an open sample is compared (E7), and a census of the queue is never mixed with a random sample.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from statistics import median
from typing import Any

from django.contrib.auth.models import User

from datasets.models import Dataset, RunVotes, Vote
from labelhub.autolabel.buckets import clopper_pearson
from labelhub.autolabel.savings import IDLE_SECONDS
from reviews.evidence import Evidence
from reviews.models import Decision, DecisionQuerySet, Sample, Threshold

LATEST_VOTES = 5_000  # answered items whose votes are compared
TITLES = {
    "rules": "rules", "weak_model": "learned from answers", "imported": "labels of the file", "llm": "language model",
    "ensemble": "all together", "round": "guided path",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class MethodLine:
    """One method's votes beside people's answers, on the reviewed queue or on a random sample, never on both."""

    method: str
    source: str  # "queue" or "sample"
    looked_at: int
    voted: int
    right: int
    interval: tuple[float, float] | None  # for a sample; a census has none to have

    @property
    def title(self) -> str:
        """The method in words."""
        return TITLES.get(self.method, self.method)


@dataclass(frozen=True, slots=True)
class PersonLine:
    """One reviewer: answers in force, median seconds, agreement with the machine when it was shown and when not."""

    person: User
    answers: int
    timed: int
    median_seconds: float | None
    shown: int
    shown_agreed: int
    blind: int
    blind_agreed: int


def methods(dataset: Dataset, threshold: Threshold, known: Evidence) -> list[MethodLine]:
    """Votes beside answers: of the reviewed queue as a census, and of the largest sample by itself."""
    answers = Decision.objects.current().filter(dataset=dataset).exclude(sample__in=_open_samples(dataset))
    lines = _compare(answers.filter(sample=None), "queue", threshold)
    largest = max(known.drawn, key=lambda drawn: drawn.sample.size, default=None)
    if largest is not None:
        lines += _compare(Decision.objects.answers().filter(sample=largest.sample), "sample", threshold)
    return lines


def _open_samples(dataset: Dataset) -> Any:
    return Sample.objects.open().filter(dataset=dataset).values("pk")


def _compare(chosen: DecisionQuerySet, source: str, threshold: Threshold) -> list[MethodLine]:
    latest = chosen.order_by("-pk")[:LATEST_VOTES]
    answers = dict(latest.values_list("item", "label"))  # of two answers to one item the older counts
    looked: Counter[str] = Counter()
    voted: Counter[str] = Counter()
    right: Counter[str] = Counter()
    run, method = threshold.run, threshold.run.version.method
    said: defaultdict[int, dict[str, int | None]] = defaultdict(dict)
    kept = RunVotes.objects.filter(run=run, item__in=latest.values("item"))
    for item, votes in kept.values_list("item", "votes").iterator():
        said[item] = {name: vote[0] for name, vote in votes.items()}
    paid = Vote.objects.filter(version=run.version_id, item__in=latest.values("item"))
    for item, vote in paid.values_list("item", "label").iterator():
        said[item].setdefault(method, vote)
    for item, votes in said.items():
        for name, label in votes.items():
            looked[name] += 1
            voted[name] += label is not None
            right[name] += label is not None and label == answers[item]
    return [
        MethodLine(
            method=name,
            source=source,
            looked_at=looked[name],
            voted=voted[name],
            right=right[name],
            interval=clopper_pearson(right[name], voted[name])
            if source == "sample" and voted[name]
            else None,
        )
        for name in sorted(looked)
    ]


def people(dataset: Dataset) -> list[PersonLine]:
    """Answers that stand, by person; those of an open sample count, but not how they compare."""
    answers: Counter[int] = Counter()
    times: defaultdict[int, list[float]] = defaultdict(list)
    compared: defaultdict[int, Counter[tuple[bool, bool]]] = defaultdict(Counter)
    hidden = set(_open_samples(dataset).values_list("pk", flat=True))
    rows = (
        Decision.objects.answers()
        .filter(dataset=dataset)
        .values_list("reviewer", "seconds", "showed_machine", "machine_label", "label", "sample")
    )
    for person, seconds, shown, machine, label, sample in rows.iterator():
        answers[person] += 1
        if seconds is not None and seconds <= IDLE_SECONDS:
            times[person].append(seconds)
        if machine is not None and sample not in hidden:
            compared[person][shown, machine == label] += 1
    users = User.objects.in_bulk(list(answers))
    return [
        PersonLine(
            person=users[person],
            answers=n,
            timed=len(times[person]),
            median_seconds=median(times[person]) if times[person] else None,
            shown=compared[person][True, True] + compared[person][True, False],
            shown_agreed=compared[person][True, True],
            blind=compared[person][False, True] + compared[person][False, False],
            blind_agreed=compared[person][False, True],
        )
        for person, n in answers.most_common()
    ]

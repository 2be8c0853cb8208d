"""What a new run, or a new promise, keeps and what it ends: said before it is started (E1, E2, E20)."""

from __future__ import annotations

from dataclasses import dataclass, field

from datasets.models import Dataset
from reviews import learning, samples, thresholds
from reviews.models import Decision, Purpose
from reviews.validity import certificate_in_force


@dataclass(frozen=True)
class Consequences:
    """Sentences: what stays as it is, what ends, and what stands in the way."""

    keeps: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    blocked: str = ""


def of_new_run(dataset: Dataset) -> Consequences:
    """Return what starting a run, and then putting it in force, would do."""
    found = Consequences(blocked=_blocked(dataset, learning.can_end_teaching(dataset)))
    if answers := _count_answers(dataset):
        found.keeps.append(f"{_all(answers)}, to teach the new run; nothing that people answered changes.")
    if dataset.samples.filter(closed_at__isnull=False).exists():
        found.keeps.append(
            "Every finished sample, with its answers and verdict, as evidence about its own run."
        )
    now = thresholds.in_force(dataset)
    if now is None:
        return found
    found.keeps.append(f"Run {now.run.number} stays in force with its threshold until you apply the new one.")
    if dataset.goals.active().exists():
        found.ends.append(
            "Applying the new run leaves the guided path: the threshold goes by hand from there."
        )
    if certificate_in_force(dataset) is not None:
        found.ends.append("The certificate becomes void as soon as the new run is in force.")
    elif now.sample is not None:
        found.ends.append("The proof of the threshold ends as soon as the new run is in force.")
    found.ends.extend(_next_attempt(dataset))
    return found


def of_new_goal(dataset: Dataset) -> Consequences:
    """Return what choosing a promise, or another one, would do."""
    found = Consequences(blocked=_blocked(dataset, teaching_is_fine=True))
    if answers := _count_answers(dataset):
        found.keeps.append(f"{_all(answers)}, to teach from the start.")
    now = thresholds.in_force(dataset)
    if now is not None and not now.accepts_nothing:
        accepted = thresholds.accepted(now).count()
        labels = "1 label" if accepted == 1 else f"{accepted:,} labels"
        found.ends.append(
            f"Accepting {labels} at {now.confidence:.4g}: nothing is accepted before a sample proves it."
        )
    if certificate_in_force(dataset) is not None:
        found.ends.append("The certificate, with the first new round.")
    found.ends.extend(_next_attempt(dataset))
    return found


def _count_answers(dataset: Dataset) -> int:
    return Decision.objects.current().filter(dataset=dataset).count()


def _all(answers: int) -> str:
    return "The 1 answer there is" if answers == 1 else f"All {answers:,} answers of people"


def _next_attempt(dataset: Dataset) -> list[str]:
    attempt, alpha = samples.next_attempt(dataset)
    if attempt == 1:
        return []
    return [
        f"The milder test: the next proof is attempt {attempt} on this dataset, tested at alpha {alpha:.2g}."
    ]


def _blocked(dataset: Dataset, teaching_is_fine: bool) -> str:
    sample = thresholds.open_sample(dataset)
    if sample is None or (teaching_is_fine and sample.purpose == Purpose.TRAINING):
        return ""
    try:
        thresholds.check_no_sample(dataset)
    except thresholds.SampleIsOpen as error:
        return str(error)
    return ""

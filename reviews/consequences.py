"""What a new run, or a new promise, keeps and what it ends: said before it is started (E1, E2, E20)."""

from __future__ import annotations

from dataclasses import dataclass, field

from datasets.models import Dataset
from reviews import samples, thresholds
from reviews.models import Decision
from reviews.validity import certificate_in_force


@dataclass(frozen=True)
class Consequences:
    """Sentences: what stays as it is, what ends, and what stands in the way."""

    keeps: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    blocked: str = ""


def of_new_run(dataset: Dataset) -> Consequences:
    """Return what starting a run, and then putting it in force, would do."""
    found = Consequences(blocked=_blocked(dataset))
    answers = Decision.objects.current().filter(dataset=dataset).count()
    if answers:
        found.keeps.append(
            f"All {answers:,} answers of people. They teach the new run, and their items keep them."
        )
    if dataset.samples.filter(closed_at__isnull=False).exists():
        found.keeps.append(
            "Every finished sample, with its answers and verdict, as evidence about its own run."
        )
    now = thresholds.in_force(dataset)
    certificate = certificate_in_force(dataset)
    if now is None:
        return found
    if dataset.goals.active().exists():
        found.ends.append("What machines labeled is not accepted until a fresh sample proves it again.")
    else:
        found.keeps.append(
            f"Run {now.run.number} stays in force with its threshold until you apply the new one."
        )
    if certificate is not None:
        found.ends.append("The certificate becomes void as soon as the new run is in force.")
    if now.sample is not None:
        found.ends.append("The proven threshold ends with its run.")
    attempt, alpha = samples.next_attempt(dataset)
    if attempt > 1:
        found.ends.append(
            f"The next proof is attempt {attempt} on this dataset and is tested more strictly (alpha {alpha:.2g})."
        )
    return found


def of_new_goal(dataset: Dataset) -> Consequences:
    """Return what choosing a promise, or another one, would do."""
    found = Consequences(blocked=_blocked(dataset, teaching_is_fine=True))
    answers = Decision.objects.current().filter(dataset=dataset).count()
    if answers:
        found.keeps.append(f"All {answers:,} answers of people: they teach from the start.")
    now = thresholds.in_force(dataset)
    if now is None or now.accepts_nothing:
        return found
    accepted = thresholds.accepted(now).count()
    found.ends.append(
        f"The {accepted:,} labels accepted at {now.confidence:g} are not accepted any more until a sample proves them."
    )
    if certificate_in_force(dataset) is not None:
        found.ends.append("The certificate becomes void with the first new round.")
    return found


def _blocked(dataset: Dataset, teaching_is_fine: bool = False) -> str:
    sample = thresholds.open_sample(dataset)
    if sample is None or (teaching_is_fine and sample.purpose == "training"):
        return ""
    try:
        thresholds.check_no_sample(dataset)
    except thresholds.SampleIsOpen as error:
        return str(error)
    return ""

"""Where a dataset stands on the way to its goal, in three sentences and one next act. Reads only."""

from __future__ import annotations

from dataclasses import dataclass

from datasets.labeling import ROUND, free_items
from datasets.models import Run
from labelhub.autolabel import certify, loop, planner
from reviews import calibrations, path, queue, rounds, samples, thresholds
from reviews.models import Certificate, Decision, Goal, Purpose, Remark, Round, Sample, Threshold
from reviews.path import UNIT
from reviews.states import states
from reviews.validity import certificate_in_force

STEPS = (
    ("target", "Promise"),
    ("seed", "Random start"),
    ("learn", "Teach"),
    ("prove", "Prove"),
    ("rest", "Review the rest"),
    ("certificate", "Certificate"),
    ("check", "Spot check"),
)
NOTHING = "Nothing is proven yet, and nothing is accepted unseen."
NO_MORE = "No answer is missing."
ONE_MORE = "Each answer is one more label that is right."


@dataclass(frozen=True)
class Place:
    """Where we are, what is proven so far, and what the next 50 answers will buy.

    ``act`` is a name that the page knows: review, sample, draw, approve, spot, certificate, choose, overview or
    wait; ``done`` of ``total`` answers of this step are given. ``stuck``: nothing can be promised on this way, and
    ``options`` says what else to do.
    """

    step: str
    here: str
    proven: str
    worth: str
    act: str
    done: int = 0
    total: int = 0
    sample: Sample | None = None
    run: Run | None = None
    stuck: bool = False
    forecast: Round | None = None

    @property
    def number(self) -> int:
        """The number of the step, from 1."""
        return [name for name, _ in STEPS].index(self.step) + 1


def promise(goal: Goal) -> str:
    """The promise that is aimed at, in words."""
    words = (
        f"at least {_share(1 - goal.target_error)} of all labels right, {_share(1 - goal.dataset.alpha)} sure"
    )
    if goal.floor_error is not None:
        words += f", and at least {_share(1 - goal.floor_error)} of those that nobody saw"
    return words


def where(goal: Goal) -> Place:
    """Derive the place of a goal from the rows there are; some twenty statements at most, whatever its size."""
    dataset = goal.dataset
    now = thresholds.in_force(dataset)
    sample = thresholds.open_sample(dataset)
    if sample is not None:
        return _at_sample(goal, now, sample)
    if now is not None and now.sample is not None and path.proven(goal, now):
        return _proven(goal, now, now.sample)
    active = dataset.runs.active().select_related("version").defer(*rounds.HEAVY).first()
    if active is not None:
        return _learning(active)
    if now is None:
        return Place("target", "No run has labeled anything yet.", NOTHING, "", "overview")
    if now.run.state != "finished":
        return Place(
            "target", f"Run {now.run.number} {_came_to(now.run)}", NOTHING,
            "To try once more, choose the promise again, or label again on the overview.", "overview", run=now.run,
        )  # fmt: skip
    return _nobody_left(now) or _on_the_way(goal)


def _at_sample(goal: Goal, now: Threshold | None, sample: Sample) -> Place:
    if sample.purpose == Purpose.TRAINING:
        return _at_seed(goal, sample)
    done = Decision.objects.answers().filter(sample=sample).values("item").distinct().count()
    if sample.purpose == Purpose.CALIBRATION:
        return Place(
            "prove", f"Answered: {done:,} of {sample.size:,} items of the random sample. Labels, order and test are "
            "frozen.", "Nothing yet: the sample is looked at once, when its last answer is in.",
            "The last answer decides which threshold is proven.", "sample", done, sample.size, sample,
        )  # fmt: skip
    return Place(
        "check", f"Answered: {done:,} of {sample.size:,} items of the spot check.", _held(goal, now),
        "A check proves nothing more. It raises the alarm if the promise was broken.",
        "sample", done, sample.size, sample,
    )  # fmt: skip


def _at_seed(goal: Goal, sample: Sample) -> Place:
    done, wanted = path.seed(goal.dataset)
    answered = Decision.objects.current().filter(sample=sample).count()
    total = max(wanted, done + sample.size - answered)
    return Place(
        "seed", f"Labeled: {done:,} of {total:,} random items. They show how the machine does on your texts.",
        NOTHING, "With the last of them the machine learns for the first time.", "review", done, total, sample,
    )  # fmt: skip


def _learning(run: Run) -> Place:
    is_round = run.version.method == ROUND
    step, meanwhile = "target", ""
    if is_round:
        step, meanwhile = "learn", "You may go on answering meanwhile: it counts for the next round."
    if run.state == "paused":
        why = f": {run.problem}" if run.problem else "."
        return Place(step, f"Run {run.number} is paused{why}", NOTHING, meanwhile, "overview", run=run)
    what = "learns from all answers and labels again" if is_round else "labels everything"
    if run.trial:
        what = "is tried on a few items"
    return Place(step, f"The machine {what}.", NOTHING, meanwhile, "wait", run=run)


def _nobody_left(now: Threshold) -> Place | None:
    """Where no reviewer has anything left to do, although no threshold is proven; else None."""
    if queue.count_left(now):
        return None
    if asked := _asked(now):
        return Place("rest", _waits_for_manager(asked), NOTHING, ONE_MORE, "review")
    if pending := states(now.dataset).pending:
        return Place("rest", _pending(pending), NOTHING, ONE_MORE, "overview")
    return Place(
        "rest", "People have labeled every item, so there is nothing left to prove.",
        "All labels are people’s answers.", NO_MORE, "overview",
    )  # fmt: skip


def _on_the_way(goal: Goal) -> Place:
    failed = calibrations.failed_attempts(goal)
    last = rounds.newest_run(goal)
    latest = last.round if last is not None and last.state == "finished" else rounds.latest(goal)
    if len(failed) >= loop.ATTEMPTS:
        return Place(
            "prove", f"Nothing can be promised: {len(failed)} samples proved no threshold. {_why_nothing(failed)}",
            NOTHING, f"{ONE_MORE} No sample will be drawn for this goal again.", "review",
            sample=failed[-1], stuck=True, forecast=latest,
        )  # fmt: skip
    lesson = rounds.lesson_after(goal, last)
    if last is not None and last.state != "finished" and lesson is not None:
        return Place(
            "learn", f"Run {last.number}, a round of learning, {_came_to(last)}", NOTHING,
            f"It is tried again after {_number(lesson.batch - lesson.done, 'more answer', 'more answers')}, or when a "
            "manager chooses the promise again.", "review", lesson.done, lesson.batch, run=last, forecast=latest,
        )  # fmt: skip
    if latest is None:
        return Place("seed", "The first random items are being drawn.", NOTHING, "", "wait")
    if latest.step == "nothing to gain":
        return Place(
            "prove", f"Nothing can be gained: with {latest.labelled:,} of {latest.items:,} labeled, even a faultless "
            "machine would need too large a sample to prove itself.", NOTHING, ONE_MORE, "review",
            stuck=True, forecast=latest,
        )  # fmt: skip
    if latest.step == "certify now":
        again = " One sample proved nothing already: this is the last attempt." if failed else ""
        return Place("prove", _ready(latest) + again, NOTHING, _worth(latest), "draw", forecast=latest)
    done, batch = (lesson.done, lesson.batch) if lesson is not None else (0, latest.batch)
    until = f"{done:,} of {_number(batch, 'answer', 'answers')} until the machine learns again"
    return Place(
        "learn", f"{_why_nothing(failed)} Round {latest.number}: {until}, least certain items first.".lstrip(),
        NOTHING, _worth(latest), "review", done, batch, forecast=latest,
    )  # fmt: skip


def _why_nothing(failed: list[Sample]) -> str:
    return calibrations.result(failed[-1]).sentence if failed else ""


def _ready(latest: Round) -> str:
    return (
        f"Of the {latest.items - latest.labelled:,} open labels the machine expects about "
        f"{latest.expected_errors:,.0f} to be wrong. A random sample of about {latest.sample:,} should prove the rest."
    )


def _worth(latest: Round) -> str:
    if latest.sample is None:
        return "No sample could prove the promise yet; the next answers teach the machine towards one."
    saved, more = round(latest.saved_by_fifty), min(loop.FIFTY, latest.items - latest.labelled)
    much = (
        f"should lower that by about {saved:,}, even if the machine learned nothing"
        if saved > 0
        else "lowers that only by what the machine learns"
    )
    return (
        f"Proving it now would take about {latest.manual:,.0f} answers in all "
        f"({_share(latest.manual / latest.items, 0)} of {latest.items:,}); answering {more:,} more {much}."
    )


def _proven(goal: Goal, now: Threshold, sample: Sample) -> Place:
    lost = path.why_lost(sample)
    if lost:
        return Place(
            "rest", f"What the sample proved does not count any more. {lost}", "Nothing is proven now.",
            "To prove it again, choose the promise again.", "choose", sample=sample,
        )  # fmt: skip
    certificate = Certificate.objects.filter(sample=sample).first()
    if certificate is not None:
        return _certified(goal, certificate, sample)
    count, held = states(goal.dataset), accepted_words(now, sample)
    if count.flagged:
        asked = _asked(now)
        below = count.flagged - asked
        parts = [f"{_number(below, 'item is', 'items are')} not accepted and must be seen by a person."]
        parts = parts * (below > 0) + [_waits_for_manager(asked)] * (asked > 0)
        return Place(
            "rest", " ".join(parts), held,
            f"The certificate waits for {_number(count.flagged, 'answer', 'answers')}.", "review", sample=sample,
        )  # fmt: skip
    if count.pending:
        return Place("rest", _pending(count.pending), held, ONE_MORE, "overview", sample=sample)
    labels = count.answered + count.accepted
    most = certify.tolerated(labels, sample.target_error)
    if sample.budget > most:
        return Place(
            "rest", f"{_number(count.decided - count.answered, 'item has', 'items have')} no label: nobody could tell, "
            "or it was left out. That is too much for a certificate.", held,
            f"Up to {sample.budget:,} labels may be wrong, but of {labels:,} the promise allows {most:,}: label some "
            "of those items.", "overview", sample=sample,
        )  # fmt: skip
    return Place(
        "certificate", "Every item has its answer or an accepted label: the certificate can be issued.", held,
        NO_MORE, "approve", sample=sample,
    )  # fmt: skip


def _certified(goal: Goal, certificate: Certificate, sample: Sample) -> Place:
    checks = goal.dataset.samples.filter(purpose=Purpose.SPOT_CHECK, closed_at__gt=certificate.at)
    if checks.exists():
        return Place("check", "The certificate is issued and the labels were spot-checked.", certificate.statement,
                     NO_MORE, "certificate", sample=sample)  # fmt: skip
    return Place(
        "check", "The certificate is issued. A blind spot check of what nobody saw is the last look.",
        certificate.statement, "A check proves nothing more. It raises the alarm if the promise was broken.",
        "spot", sample=sample,
    )  # fmt: skip


def accepted_words(now: Threshold, sample: Sample) -> str:
    """What a concluded calibration sample proves, before the rest is reviewed."""
    accepted = thresholds.accepted(now).count()
    wrong = f"at most {_number(sample.budget, 'is', 'are')}" if sample.budget else "none is"
    return (
        f"{_number(accepted, 'label stands', 'labels stand')} unseen, at {now.confidence:.4g} or above: with "
        f"{_share(1 - sample.dataset.alpha)} confidence {wrong} wrong. This holds for the dataset once the rest is decided."
    )


def _held(goal: Goal, now: Threshold | None) -> str:
    """What stands while a spot check is answered."""
    certificate = certificate_in_force(goal.dataset)
    if certificate is not None:
        return certificate.statement
    return accepted_words(now, now.sample) if now is not None and now.sample is not None else NOTHING


def _asked(now: Threshold) -> int:
    asked = Remark.objects.filter(dataset=now.dataset_id, kind=Remark.Kind.ASK)
    still = asked.filter(item__predictions__run=now.run_id, item__predictions__open=True)
    return still.values("item").distinct().count()


def _waits_for_manager(asked: int) -> str:
    return f"{_number(asked, 'item waits', 'items wait')} for a manager’s answer."


def _pending(n: int) -> str:
    return f"{_number(n, 'item has', 'items have')} neither a machine’s label nor a person’s."


def _came_to(run: Run) -> str:
    return f"failed: {run.problem}" if run.problem else "was cancelled before it had labeled everything."


def _number(n: int, one: str, many: str) -> str:
    return f"{n:,} {one if n == 1 else many}"


def _share(value: float, digits: int = 4) -> str:
    return f"{round(100 * value, digits):g}{UNIT}"


def options(goal: Goal, here: Place) -> list[str]:
    """What can be done where nothing can be promised, the most useful first."""
    dataset, found = goal.dataset, []
    if goal.floor_error is not None and here.sample is not None:  # it was tried: the floor may be what failed
        found.append("Promise the dataset only, without a share for the labels that nobody saw.")
    if goal.target_error < 0.10:
        found.append(f"Promise less, for example 90{UNIT} of all labels right.")
    found.append("Let people label the rest: the queue has it, least certain first.")
    found.append(
        "Set a threshold by hand and look at what a spot check says of it: then it is known, not promised."
    )
    attempt, alpha = samples.next_attempt(dataset)
    now = thresholds.in_force(dataset)
    if attempt > 1 and now is not None:
        pool, items = thresholds.accepted(now, 0).count(), free_items(dataset).count()
        budget = certify.budget(items, goal.target_error)
        least = certify.sample_size(planner.ERRORS[0], pool, budget, alpha)
        takes = "no sample would be large enough" if least is None else f"a sample of {least:,} at least"
        found.append(
            f"Another promise is attempt {attempt} on this dataset and is tested more strictly (alpha {alpha:.2g}): {takes}."
        )
    return found

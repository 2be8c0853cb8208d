"""Where a dataset stands on the way to its goal, in three sentences and one next act. Reads only."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Q

from datasets.models import Prediction, Run
from labelhub.autolabel import certify, loop
from reviews import calibrations, queue, rounds, samples, thresholds
from reviews.models import Certificate, Decision, Goal, Purpose, Round, Sample, Threshold
from reviews.validity import void_since

STEPS = (
    ("target", "Promise"),
    ("seed", "Random start"),
    ("learn", "Teach"),
    ("prove", "Prove"),
    ("rest", "Review the rest"),
    ("certificate", "Certificate"),
    ("check", "Spot check"),
)


@dataclass(frozen=True)
class Place:
    """Where we are, what is proven so far, and what the next 50 answers will buy.

    ``act`` is a name that the page knows: review, sample, draw, approve, spot, certificate, choose, overview or
    wait; ``done`` of ``total`` answers of this step are given. ``options``: what else to do where nothing can be
    promised.
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
    """Derive the place of a goal from the rows there are; a dozen statements, whatever its size."""
    dataset = goal.dataset
    now = thresholds.in_force(dataset)
    sample = thresholds.open_sample(dataset)
    if sample is not None:
        return _at_sample(goal, sample)
    run = dataset.runs.order_by("-number").first()
    if run is not None and run.state in ("waiting", "running", "paused"):
        return _learning(goal, run)
    if run is not None and run.problem:
        return Place(
            "learn", f"Run {run.number} failed: {run.problem}", _nothing(), "Nothing, until labeling works again.",
            "overview", run=run,
        )  # fmt: skip
    if now is None:
        return Place("target", "No run has labeled anything yet.", _nothing(), "", "overview")
    if now.sample is not None and now.sample.drawn_at >= goal.at:
        return _proven(goal, now, now.sample)
    return _on_the_way(goal, now)


def _at_sample(goal: Goal, sample: Sample) -> Place:
    done = Decision.objects.answers().filter(sample=sample).values("item").distinct().count()
    left = sample.size - done
    if sample.purpose == Purpose.TRAINING:
        return Place(
            "seed",
            f"{done} of {sample.size} random items are labeled. They show how the machine does on your texts.",
            _nothing(), f"The {left} still missing let the machine learn for the first time.",
            "review", done, sample.size, sample,
        )  # fmt: skip
    if sample.purpose == Purpose.CALIBRATION:
        return Place(
            "prove",
            f"{done} of {sample.size} items of the random sample are answered. Labels, order and test are frozen.",
            "Nothing yet: the sample is looked at once, when its last answer is in.",
            f"The {left} answers still missing decide which threshold is proven.",
            "sample", done, sample.size, sample,
        )  # fmt: skip
    return Place(
        "check", f"{done} of {sample.size} items of the spot check are answered.", _certified(goal),
        "A check proves nothing more. It raises the alarm if the promise was broken.",
        "sample", done, sample.size, sample,
    )  # fmt: skip


def _learning(goal: Goal, run: Run) -> Place:
    rest = "You may go on answering meanwhile: it counts for the next round."
    if run.state == "paused":
        return Place("learn", f"Run {run.number} is paused.", _nothing(), rest, "overview", run=run)
    step = "learn" if goal.rounds.exists() or run.version.method == "round" else "target"
    what = "learns from all answers and labels again" if step == "learn" else "labels everything a first time"
    return Place(step, f"The machine {what}.", _nothing(), rest if step == "learn" else "", "wait", run=run)


def _on_the_way(goal: Goal, now: Threshold) -> Place:
    failed = calibrations.failed_attempts(goal)
    latest = goal.rounds.select_related("run__version").defer("run__version__state").last()
    if not Prediction.objects.filter(run=now.run_id, open=True).exists():
        return Place(
            "rest", "People have labeled every item, so there is nothing left to prove.",
            "All labels are people’s answers.", "No answer is missing.", "overview",
        )  # fmt: skip
    if len(failed) >= loop.ATTEMPTS:
        why = calibrations.result(failed[-1]).sentence
        return Place(
            "prove", f"Nothing can be promised: {len(failed)} samples proved no threshold. {why}", _nothing(),
            "Each answer is one more label that is right; no sample will be drawn for this goal again.",
            "review", sample=failed[-1], stuck=True, forecast=latest,
        )  # fmt: skip
    if latest is None:
        return Place("seed", "The first random items are being drawn.", _nothing(), "", "wait")
    if latest.step == "nothing to gain":
        return Place(
            "prove", f"Nothing can be gained: {latest.reason}", _nothing(),
            "Each answer is one more label that is right.", "review", stuck=True, forecast=latest,
        )  # fmt: skip
    worth = _worth(latest)
    if latest.step == "certify now":
        again = f" Sample {len(failed)} proved nothing; this is the last attempt." if failed else ""
        return Place("prove", latest.reason + again, _nothing(), worth, "draw", forecast=latest)
    done = rounds.answered_since(latest)
    before = calibrations.result(failed[-1]).sentence + " " if failed else ""
    return Place(
        "learn", f"{before}Round {latest.number}: {min(done, latest.batch)} of {latest.batch} answers until the "
        "machine learns again, least certain items first.",
        _nothing(), worth, "review", min(done, latest.batch), latest.batch, forecast=latest,
    )  # fmt: skip


def _worth(latest: Round) -> str:
    if latest.sample is None:
        return "No sample could prove the promise yet; the next answers teach the machine towards one."
    saved = round(latest.saved_by_fifty)
    much = (
        f"lower that by about {saved:,} even if nothing were learned from them"
        if saved > 0
        else "not lower that by themselves; what is learned from them may"
    )
    return (
        f"Proving it now would take about {latest.manual:,.0f} answers in all "
        f"({latest.manual / latest.items:.0%} of {latest.items:,}); the next 50 should {much}."
    )


def _proven(goal: Goal, now: Threshold, sample: Sample) -> Place:
    dataset = goal.dataset
    certificate = Certificate.objects.filter(sample=sample).first()
    gone = void_since(sample)
    if gone:
        return Place(
            "rest", f"What the sample proved does not hold any more. {gone}", _nothing(),
            "To promise it again, choose the promise again.", "choose", sample=sample, stuck=True,
        )  # fmt: skip
    held = accepted_words(now, sample)
    left = queue.count_left(now) + _asked_open(now)
    if certificate is not None:
        checked = dataset.samples.filter(purpose=Purpose.SPOT_CHECK, closed_at__gt=certificate.at).exists()
        if checked:
            return Place("check", "The certificate is issued and the labels were spot-checked.", certificate.statement,
                         "No answer is missing.", "certificate", sample=sample)  # fmt: skip
        return Place(
            "check", "The certificate is issued. A blind spot check of what nobody saw is the last look.",
            certificate.statement, "A check proves nothing more. It raises the alarm if the promise was broken.",
            "spot", sample=sample,
        )  # fmt: skip
    if left:
        return Place(
            "rest", f"{left:,} items are below the proven threshold and need a person.", held,
            f"{min(left, 50)} of the {left:,} answers that the certificate waits for.", "review", sample=sample,
        )  # fmt: skip
    return Place("certificate", "No flagged item is open: the certificate can be issued.", held,
                 "No answer is missing.", "approve", sample=sample)  # fmt: skip


def accepted_words(now: Threshold, sample: Sample) -> str:
    """What a concluded calibration sample proves, before the rest is reviewed."""
    accepted = thresholds.accepted(now).count()
    return (
        f"{accepted:,} labels at or above {now.confidence:.4g} stand: with {_share(1 - goal_alpha(sample))} confidence "
        f"at most {sample.budget:,} of them are wrong. This holds for the dataset once the rest is decided."
    )


def goal_alpha(sample: Sample) -> float:
    """The chance that any certificate of the dataset is false: what its attempts share."""
    return sample.dataset.alpha


def _asked_open(now: Threshold) -> int:
    asked = Q(item__remarks__kind="ask")
    return Prediction.objects.filter(asked, run=now.run_id, open=True).values("item").distinct().count()


def _certified(goal: Goal) -> str:
    certificate = Certificate.objects.filter(dataset=goal.dataset, at__gte=goal.at).order_by("-pk").first()
    return certificate.statement if certificate else _nothing()


def _nothing() -> str:
    return "Nothing is proven yet, and nothing is accepted unseen."


def _share(value: float) -> str:
    return f"{round(100 * value, 2):g} %"


def options(goal: Goal) -> list[str]:
    """What can be done where nothing can be promised, the most useful first."""
    dataset = goal.dataset
    found = []
    if goal.floor_error is not None:
        found.append("Promise the dataset only, without a share for the labels that nobody saw.")
    if goal.target_error < 0.10:
        found.append("Promise less, for example 90 % of all labels right.")
    found.append("Let people label the rest: the queue has it, least certain first.")
    found.append(
        "Set a threshold by hand and look at what a spot check says of it: then it is known, not promised."
    )
    attempt, alpha = samples.next_attempt(dataset)
    if attempt > 1:
        found.append(
            f"Another promise is attempt {attempt} on this dataset and is tested more strictly, at {alpha:.2g}: "
            f"about {_clean(alpha)} answers without an error at least."
        )
    return found


def _clean(alpha: float) -> int:
    """Least sample that proves 5 % with two errors in a large pool."""
    return certify.sample_size(2, 100_000, 5_000, alpha) or 0

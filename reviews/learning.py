"""Decisions become the next labeler version, and its run may take force."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django.db import connection, transaction
from django.db.models import Max, Q

from datasets import model_settings, money
from datasets.labeling import MODEL
from datasets.models import Dataset, Item, Label, LabelerVersion, Prediction, Run, Vote
from datasets.money import NoPrice
from labelhub.autolabel.labelers.llm import CallFailed
from labelhub.autolabel.labelers.rules import check_rules, rules_in
from labelhub.autolabel.rank import ACCEPT_NOTHING, to_rank
from reviews import estimates, prompts, samples, tasks, thresholds
from reviews.models import Decision, Outcome, Purpose, Threshold

if TYPE_CHECKING:
    from django.contrib.auth.models import User

ENSEMBLE = "ensemble"
GUESSERS = ("weak_model", ENSEMBLE)  # they label without any example, by the words of the labels


class CannotLearn(Exception):
    """A method that has nothing to work with on this dataset; the message says what is missing."""


@dataclass(frozen=True)
class Method:
    """A way to label, for the start form: ``missing`` says what it needs and does not have."""

    name: str
    title: str
    what: str
    missing: str = ""


@dataclass(frozen=True)
class Offer:
    """A finished run that is not in force, and what applying it would change."""

    run: Run
    rank: int
    changed: int  # open items that would change side: accepted or flagged

    @property
    def accepts_nothing(self) -> bool:
        """Whether it only guessed, so that a person sees every item."""
        return self.rank >= ACCEPT_NOTHING


def methods(dataset: Dataset) -> list[Method]:
    """The methods in the order to try them, each with what is missing for it."""
    known = count_known(dataset)
    votes = Vote.objects.filter(version__dataset=dataset, version__method="imported").exists()
    rules = any(rules_of(label) for label in dataset.labels.filter(retired_at=None))
    return [
        Method(
            "ensemble", "All together",
            "Every labeler below that can work votes; the more answers there are, the better they are weighed.",
        ),
        Method(
            "weak_model", "Learn from answers",
            f"A small model on this computer, learned from {known:,} answers and given labels."
            if known else "A small model on this computer. There is no answer to learn from yet, so it guesses by "
            "the names and definitions of the labels.",
        ),
        Method(
            "rules", "Rules", "Keywords and patterns that you typed for the labels.",
            "" if rules else "No label has a rule yet: type keywords with the labels.",
        ),
        Method(
            "llm", "Language model", "Claude reads each text with the labels' definitions. Costs money.",
            model_settings.missing(),
        ),
        Method(
            "imported", "Labels of the file", "The predicted labels and confidences that came with the file.",
            "" if votes else "The file came without predicted labels.",
        ),
    ]  # fmt: skip


def rules_of(label: Label) -> list[str]:
    """The rules of a label, typed one a line or quoted in its definition."""
    return [*typed_rules(label), *rules_in(label.definition)]


def typed_rules(label: Label) -> list[str]:
    """The rules of a label that were typed, one a line."""
    return [line.strip() for line in label.rules.splitlines() if line.strip()]


def examples(dataset: Dataset) -> list[list[int]]:
    """[[item id, label id]] of the answers in force, without those of a sample that is still open (E2)."""
    answers = Decision.objects.current().filter(
        ~Q(sample__closed_at=None, sample__superseded_at=None) | Q(sample=None),
        dataset=dataset, outcome=Outcome.LABEL, label__retired_at=None,
    )  # fmt: skip
    return [list(pair) for pair in answers.order_by("item").values_list("item", "label")]


def can_end_teaching(dataset: Dataset) -> bool:
    """Whether the open lane to teach has the twenty answers that a first training needs (E18)."""
    sample = thresholds.open_sample(dataset)
    if sample is None or sample.purpose != Purpose.TRAINING:
        return False
    return samples.count(sample).answered >= samples.ENOUGH_TO_LEARN


def count_known(dataset: Dataset) -> int:
    """How many items could teach: answered or given."""
    return len(examples(dataset)) + Item.objects.filter(dataset=dataset, given_label__isnull=False).count()


@dataclass(frozen=True)
class Spend:
    """How a run may ask the language model.

    ``budget_usd``: the cap; None for what the estimate says it costs at most. ``batch``: hand in requests together, for
    half the price and an answer within a day. ``renew``: choose other examples for the prompt, which makes all
    answers there are of no use.
    """

    budget_usd: Decimal | None = None
    batch: bool = False
    renew: bool = False


def learn(
    dataset: Dataset, method: str, by: User | None, spend: Spend | None = None, rings: bool = True
) -> Run:
    """Make a labeler version from all answers there are and start its run.

    The first run takes force at its start: at 0.85, or accepting nothing where it can only
    guess. A later one is a candidate until somebody applies it (E1).

    Args:
        spend: how it may ask the language model. Without, the method "llm" spends what is estimated at most, and
            the ensemble goes by the answers there are.
        rings: ask the workers; False leaves the work to the caller (`tasks.work_here`).
    Raises: CannotLearn, thresholds.SampleIsOpen, tasks.RunIsActive, each with a sentence.
    """
    check(dataset, method)
    if spend is None and method == MODEL:
        spend = Spend()
    settings, budget, expected = _to_spend(dataset, method, spend)
    with transaction.atomic():
        if by is not None and can_end_teaching(dataset):
            samples.discard(dataset, by)  # it proves nothing, and its answers teach
        thresholds.check_no_sample(dataset)
        active = dataset.runs.active().first()
        if active is not None:
            raise tasks.RunIsActive(active)
        version = make_version(dataset, method, settings)
        run = tasks.start(dataset, version, by, rings, budget=budget, estimate=expected)
        latest = thresholds.in_force(dataset)
        if latest is None or not latest.run.predictions.exists():
            by_target = dataset.goals.active().exists()
            rank = ACCEPT_NOTHING if run.version.guess or by_target else to_rank(thresholds.BY_HAND)
            Threshold.objects.create(dataset=dataset, run=run, rank=rank, by=by)
    return run


def _to_spend(
    dataset: Dataset, method: str, spend: Spend | None
) -> tuple[dict[str, Any], int | None, dict[str, Any]]:
    """The settings of a version that may ask, its budget in billionths of a USD, and the estimate of its cost.

    Raises: CannotLearn.
    """
    if method not in (MODEL, ENSEMBLE):
        return {}, None, {}
    if spend is None:
        return prompts.heard_before(dataset), None, {}
    told = prompts.compose(dataset, spend.renew)
    expected = expected_cost(dataset, method, told=told, batch=spend.batch)
    budget = estimates.cap_for(expected.high_usd) if spend.budget_usd is None else spend.budget_usd
    settings = prompts.to_ask(dataset, told, cheap_first=method == ENSEMBLE, batch=spend.batch)
    return settings, money.to_nano(budget), expected.as_json()


def expected_cost(dataset: Dataset, method: str, **how: Any) -> estimates.Estimate:
    """Estimate what asking costs, once it is known that somebody would answer.

    Args:
        how: as in `estimates.estimate`.
    Raises: CannotLearn, with a sentence that says why nobody can be asked, or why nobody knows.
    """
    if problem := model_settings.missing() or model_settings.check():
        raise CannotLearn(problem)
    try:
        return estimates.estimate(dataset, method, **how)
    except (NoPrice, CallFailed) as error:
        raise CannotLearn(str(error)) from error


def make_version(dataset: Dataset, method: str, settings: dict[str, Any] | None = None) -> LabelerVersion:
    """Write down what a labeler is to learn from: the answers there are, and the label set.

    Raises: CannotLearn when no item is left to label.
    """
    known = examples(dataset)
    version = LabelerVersion.objects.create(
        dataset=dataset,
        method=method,
        settings=_settings(dataset) | (settings or {}),
        examples=known,
        decisions=Decision.objects.filter(dataset=dataset).aggregate(n=Max("pk"))["n"] or 0,
        guess=not known and _only_guesses(dataset, method, settings or {}),
    )
    if not tasks.to_label(dataset, version).exists():
        raise CannotLearn("Nothing is left to label: every item has its label or its answer.")
    return version


def check(dataset: Dataset, method: str) -> None:
    """Refuse a method that cannot work on this dataset. Raises: CannotLearn."""
    if dataset.ready_at is None:
        raise CannotLearn("This dataset is not ready: its file is still being read, or could not be.")
    found = {one.name: one for one in methods(dataset)}.get(method)
    if found is None:
        raise CannotLearn(
            f"There is no method “{method}”; choose ensemble, weak_model, rules, llm or imported."
        )
    if found.missing:
        raise CannotLearn(found.missing)
    if dataset.labels.filter(retired_at=None).count() < 2:
        raise CannotLearn("Labeling needs at least two labels.")


def _only_guesses(dataset: Dataset, method: str, settings: dict[str, Any]) -> bool:
    if (
        method not in GUESSERS
        or settings.get("llm")
        or Item.objects.filter(dataset=dataset, given_label__isnull=False).exists()
    ):
        return False
    votes = Vote.objects.filter(version__dataset=dataset, version__method="imported")
    return method == "weak_model" or not votes.exists()


def _settings(dataset: Dataset) -> dict[str, Any]:
    """The label set as this version knows it; a later change of a definition is another version."""
    labels = list(dataset.labels.filter(retired_at=None))
    rules = {label.name: written for label in labels if (written := typed_rules(label))}
    try:
        check_rules(rules)
    except ValueError as error:
        raise CannotLearn(str(error)) from error
    return {"labels": [[label.pk, label.name, label.definition] for label in labels], "rules": rules}


def offer(dataset: Dataset, now: Threshold | None = None) -> Offer | None:
    """The newest finished run, if it is newer than the run in force and labeled anything."""
    now = now or thresholds.in_force(dataset)
    if now is None:
        return None
    newer = dataset.runs.filter(
        number__gt=now.run.number, finished_at__isnull=False, problem=None, trial=False
    )
    run = newer.select_related("version").defer("version__state").order_by("-number").first()
    if run is None:
        return None
    rank = _rank_for(run, now)
    return Offer(run, rank, _count_changed(dataset, now, run, rank))


def apply(dataset: Dataset, run: Run, by: User | None) -> Threshold:
    """Put a finished run in force, at the threshold in force, or 0.85 where that accepts nothing.

    Raises: CannotLearn when the run is not finished; thresholds.SampleIsOpen.
    """
    now = thresholds.in_force(dataset)
    if run.finished_at is None or run.problem or run.trial or now is None:
        raise CannotLearn(f"Run {run.number} is not finished, so it cannot take force.")
    return thresholds.move(dataset, _rank_for(run, now), by, run=run)


def _rank_for(run: Run, now: Threshold) -> int:
    if run.version.guess:
        return ACCEPT_NOTHING
    return to_rank(thresholds.BY_HAND) if now.accepts_nothing else now.rank


def _count_changed(dataset: Dataset, now: Threshold, run: Run, rank: int) -> int:
    """Count the open items of the new run whose side differs from the one they stand on now."""
    retired = list(dataset.labels.exclude(retired_at=None).values_list("pk", flat=True)) or [0]
    marks = ",".join(["%s"] * len(retired))
    stands = "(CASE WHEN {p}.rank >= %s AND {p}.label_id IS NOT NULL AND {p}.label_id NOT IN ({marks}) THEN 1 ELSE 0 END)"
    table = Prediction._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT count(*) FROM {table} n LEFT JOIN {table} o ON o.item_id = n.item_id AND o.run_id = %s "
            f"WHERE n.run_id = %s AND n.open AND {stands.format(p='n', marks=marks)} "
            f"<> {stands.format(p='o', marks=marks)}",
            [now.run_id, run.pk, rank, *retired, now.rank, *retired],
        )
        return int(cursor.fetchone()[0])

"""What if: which prompt, and which labeler, would leave least work, on items that people have reviewed.

Prompt A is the dataset's own, prompt B a variant. Each is asked about the same items in a run on trial; the answers
are compared by `labelhub.autolabel.whatif`. Nothing changes until somebody takes over B.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.db.models import Sum
from django.utils import timezone

from datasets import labeling, money, questions
from datasets.labeling import MODEL
from datasets.models import Call, Dataset, LabelerVersion, Run, record
from datasets.questions import FIRST
from labelhub.autolabel import whatif
from labelhub.autolabel.labelers.ensemble import agreed
from labelhub.autolabel.labelers.prompt import Prompt
from labelhub.autolabel.types import Example, Vote
from reviews import estimates, learning, prompts, trials
from reviews.models import Goal
from reviews.prompts import PRESENT

if TYPE_CHECKING:
    from django.contrib.auth.models import User

VARIANT = "B"
MOST = 100  # reviewed items that are asked about
LEAST = whatif.LEAST
SEED = 0  # so that the same answers always give the same figures

Reviewed = list[tuple[int, Example]]


@dataclass(frozen=True)
class Side:
    """One of the two prompts, and which of the items it has answered."""

    name: str
    told: prompts.Told
    heard: dict[int, Vote] = field(default_factory=dict)  # a problem is an abstention
    version_ids: tuple[int, ...] = ()
    run: Run | None = None

    @property
    def guidelines(self) -> str:
        """What it says for all labels."""
        return self.told.prompt.guidelines

    @property
    def title(self) -> str:
        """Its name on the page and in the table."""
        return f"Prompt {self.name}"

    def missing(self, items: Reviewed) -> list[int]:
        """Ids of the items that it has not answered."""
        return [pk for pk, _ in items if pk not in self.heard]


@dataclass(frozen=True)
class Trying:
    """What can be compared now: the items, and both prompts as far as they were asked; ``reviewed`` of all there are."""

    reviewed: int
    items: Reviewed
    present: Side
    variant: Side | None

    @property
    def sides(self) -> list[Side]:
        """The prompts there are."""
        return [self.present, *([self.variant] if self.variant else [])]


@dataclass(frozen=True)
class Comparison:
    """The lines of the table, the best one first, and what they are about."""

    lines: list[whatif.Line]
    n: int
    pool: int
    target_error: float

    @property
    def target_right(self) -> float:
        """Share of all labels that must be right."""
        return 1 - self.target_error

    @property
    def sentence(self) -> str:
        """How to read the table, in one sentence."""
        best, others = self.lines[0], self.lines[1:]
        same = [line.name for line in others if not line.distinguishable]
        worse = [line.name for line in others if line.distinguishable]
        low, value, high = (
            f"{100 * share:.0f}" for share in (best.coverage.low, best.coverage.value, best.coverage.high)
        )
        told = (
            f"If {100 * (1 - self.target_error):g} % of all labels must be right, {best.name} could accept about {value} % "
            f"of the items unseen ({low} to {high} %)"
        )
        if same:
            told += f"; {_listed(same)} cannot be told apart from it on {self.n} items"
        if worse:
            told += f"; {_listed(worse)} would leave clearly more to people"
        return told + "."


def trying(dataset: Dataset) -> Trying:
    """Gather what can be compared now."""
    present_told = prompts.compose(dataset)
    run = latest_variant(dataset)
    variant_told = _told_by(dataset, run) if run is not None else None
    shown = {*present_told.shown, *(variant_told.shown if variant_told else [])}
    known = prompts.reviewed(dataset)
    items = _choose(dataset, [(pk, example) for pk, example in known if pk not in shown])
    present = _heard(dataset, Side(PRESENT, present_told), items)
    variant = _heard(dataset, Side(VARIANT, variant_told, run=run), items) if variant_told else None
    return Trying(len(known), items, present, variant)


def latest_variant(dataset: Dataset) -> Run | None:
    """The run that asked variant B last, unless B was taken over since."""
    runs = dataset.runs.filter(trial=True, version__settings__whatif__name=VARIANT)
    run = runs.select_related("version").defer("version__state").order_by("-number").first()
    return run if run is not None and not run.version.settings["whatif"].get("used_at") else None


def _told_by(dataset: Dataset, run: Run) -> prompts.Told:
    """What a variant told, or would tell now where labels or their definitions have changed since."""
    about, llm = run.version.settings["whatif"], questions.options(run.version)
    asked = questions.by_id(llm["questions"][FIRST])
    now = prompts.compose_with(dataset, about["guidelines"], about["examples"])
    if asked.prompt.labels == now.prompt.labels:
        return prompts.Told(asked.prompt, llm.get("shown") or [])
    return now


def _choose(dataset: Dataset, known: Reviewed) -> Reviewed:
    """Choose at most MOST of the items: those that were asked about before, then by a hash of the text."""
    asked = dataset.runs.filter(trial=True, version__settings__has_key="whatif").order_by("number")
    earlier = {pk for only in asked.values_list("version__settings__only", flat=True) for pk in only}

    def place(row: tuple[int, Example]) -> tuple[bool, bytes]:
        return row[0] not in earlier, hashlib.sha256(row[1].text.encode("utf-8", "replace")).digest()

    return sorted(known, key=place)[:MOST]


def _heard(dataset: Dataset, side: Side, items: Reviewed) -> Side:
    """Add what the model has answered to a prompt: all its wordings together, as in a run."""
    found = prompts.find_questions(dataset, side.told.prompt)
    if FIRST not in found:
        return side
    names = [[pk, name, ""] for pk, name in questions.names_of(dataset).items()]
    stand_in = LabelerVersion(
        dataset=dataset, method=MODEL, settings={"labels": names, "llm": {"questions": found}}
    )
    ids = [pk for pk, _ in items]
    answered = questions.answered(questions.by_id(found[FIRST]), ids)
    heard = labeling.hear(stand_in, ids)
    votes = {
        pk: agreed({source: given[pk] for source, given in heard.votes.items() if pk in given})
        for pk in answered
    }
    return replace(side, heard=votes, version_ids=tuple(found.values()))


def ask(
    dataset: Dataset,
    by: User | None,
    name: str,
    guidelines: str = "",
    examples: bool = True,
    budget_usd: Decimal | None = None,
    rings: bool = True,
) -> Run:
    """Ask prompt A, or a variant B with other guidelines or examples, about the reviewed items.

    Args:
        name: PRESENT or VARIANT.
        guidelines, examples: of the variant, as in `prompts.compose_with`.
        budget_usd, rings: as in `trials.try_out`.
    Raises: learning.CannotLearn, thresholds.SampleIsOpen, tasks.RunIsActive, each with a sentence.
    """
    told, only = to_ask(dataset, name, guidelines, examples)
    about = {"name": name, "guidelines": told.prompt.guidelines, "examples": bool(told.prompt.examples)}
    return trials.ask_about(dataset, by, told, {"only": only, "whatif": about}, budget_usd, rings)


def to_ask(
    dataset: Dataset, name: str, guidelines: str = "", examples: bool = True
) -> tuple[prompts.Told, list[int]]:
    """Return what would be told, and the ids of the items that would be asked about.

    Raises: learning.CannotLearn where there are too few items, they are all answered, or B is no other prompt than A.
    """
    learning.check(dataset, MODEL)
    now = trying(dataset)
    told = now.present.told
    if name != PRESENT:
        told = prompts.compose_with(dataset, guidelines, examples)
        if told.prompt == now.present.told.prompt:
            raise learning.CannotLearn(
                "Prompt B is the same as prompt A: change its guidelines or its examples."
            )
    items = [row for row in now.items if row[0] not in set(told.shown)]
    if len(items) < LEAST:
        raise learning.CannotLearn(
            f"A comparison needs at least {LEAST} reviewed items that no prompt shows; there are {len(items)}."
        )
    is_shown = name == PRESENT or (now.variant is not None and now.variant.told == told)
    if is_shown and not _heard(dataset, Side(name, told), items).missing(items):
        raise learning.CannotLearn(f"Prompt {name} has answered all of these items already.")
    return told, [pk for pk, _ in items]


def compare(dataset: Dataset, now: Trying) -> Comparison | None:
    """Compare all ways on the items that every asked prompt has answered; None with fewer than LEAST, or none asked."""
    ready = [side for side in now.sides if len(side.heard) >= LEAST]
    items = [row for row in now.items if all(row[0] in side.heard for side in ready)]
    if not ready or len(items) < LEAST:
        return None
    labels = list(dataset.labels.filter(retired_at=None))
    goal = Goal.objects.active().filter(dataset=dataset).first()
    target = goal.target_error if goal else dataset.target_error
    pool = max(estimates.open_items(dataset).count(), 1)
    lines = _compare(
        tuple((example.text, example.label) for _, example in items),
        tuple((one.name, one.definition) for one in labels),
        tuple((one.name, tuple(learning.typed_rules(one))) for one in labels),
        tuple((side.title, tuple(side.heard[pk] for pk, _ in items)) for side in ready),
        pool,
        target,
    )
    costs = {side.title: _cost_per_item(side.version_ids) for side in ready}
    return Comparison(
        [replace(line, cost_per_item=_cost(line, costs)) for line in lines], len(items), pool, target
    )


@lru_cache(maxsize=8)  # a page and its export ask for the same; it takes a second or more
def _compare(
    examples: tuple[tuple[str, str], ...],
    labels: tuple[tuple[str, str], ...],
    rules: tuple[tuple[str, tuple[str, ...]], ...],
    votes: tuple[tuple[str, tuple[Vote, ...]], ...],
    pool: int,
    target_error: float,
) -> list[whatif.Line]:
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # many small matrices are several times faster on one thread
        return whatif.compare(
            [text for text, _ in examples],
            [label for _, label in examples],
            dict(labels),
            votes=dict(votes),
            rules={name: written for name, written in rules if written},
            pool=pool,
            target_error=target_error,
            seed=SEED,
        )


def _cost_per_item(version_ids: Sequence[int]) -> float | None:
    """USD that an item has cost on average with a prompt, over all wordings; None where nothing was paid for it."""
    calls = Call.objects.filter(version__in=version_ids, settled_at__isnull=False, cost_nano__gt=0)
    texts = {pk for items in calls.values_list("items", flat=True) for pk in items}
    cost = money.to_usd(calls.aggregate(n=Sum("cost_nano"))["n"])
    return float(cost) / len(texts) if texts else None


def _cost(line: whatif.Line, costs: dict[str, float | None]) -> float | None:
    for title, cost in costs.items():
        if line.name in (title, f"{whatif.ENSEMBLE} with {title}"):
            return cost
    return 0.0


def use_variant(dataset: Dataset, by: User | None) -> bool:
    """Make variant B the dataset's own prompt: its guidelines, and its examples; False where there is none."""
    run = latest_variant(dataset)
    if run is None:
        return False
    version = run.version
    version.settings["whatif"]["used_at"] = timezone.now().isoformat()
    version.save(update_fields=["settings"])
    prompts.change(dataset, by, version.settings["whatif"]["guidelines"], {})
    record(by, dataset, "prompt B taken over", run=run.number)
    return True


def as_json(dataset: Dataset, now: Trying, found: Comparison | None) -> dict[str, Any]:
    """Everything that the page says, for machines; an unknown number is null. No text of an item is in it."""
    return {
        "dataset": dataset.name,
        "reviewed": now.reviewed,
        "items": found.n if found else 0,
        "pool": found.pool if found else None,
        "target_error": found.target_error if found else None,
        "prompts": [
            {"name": side.name, "answered": len(side.heard), "prompt": _without_texts(side.told.prompt)}
            for side in now.sides
        ],
        "lines": [_plain(asdict(line)) for line in found.lines] if found else [],
        "reading": found.sentence if found else "",
    }


def _without_texts(prompt: Prompt) -> dict[str, Any]:
    return {
        "guidelines": prompt.guidelines,
        "labels": [list(label) for label in prompt.labels],
        "examples": len(prompt.examples),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, whatif.Range):
        return {name: _plain(part) for name, part in value._asdict().items()}
    return {name: _plain(part) for name, part in value.items()} if isinstance(value, dict) else value


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

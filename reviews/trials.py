"""A trial: the language model labels a few items, so that one sees what it says and what it costs before paying for all.

What it answers are votes on the same question that a run asks, so nobody pays for them again. A trial never takes force.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django.db import transaction

from datasets import money, questions
from datasets.labeling import MODEL
from datasets.models import Dataset, Item, Prediction, Run
from labelhub.autolabel import sampling
from reviews import estimates, learning, prompts, tasks, thresholds

if TYPE_CHECKING:
    from django.contrib.auth.models import User

LEAST, USUAL, MOST = 20, 30, 50  # items


def try_out(
    dataset: Dataset,
    by: User | None,
    size: int = USUAL,
    budget_usd: Decimal | None = None,
    rings: bool = True,
) -> Run:
    """Start a trial over random open items.

    Args:
        size: items, in [LEAST, MOST]; fewer where fewer are open.
        budget_usd: the cap; what the estimate says it costs at most, where not given.
        rings: ask the workers; False leaves the work to the caller (`tasks.work_here`).
    Raises: learning.CannotLearn, thresholds.SampleIsOpen, tasks.RunIsActive, each with a sentence.
    """
    if not LEAST <= size <= MOST:
        raise learning.CannotLearn(f"A trial takes {LEAST} to {MOST} items.")
    check_free(dataset)
    learning.check(dataset, MODEL)
    pool = list(estimates.open_items(dataset).order_by("pk").values_list("pk", flat=True))
    if not pool:
        raise learning.CannotLearn("Nothing is left to label: every item has its label or its answer.")
    seed = secrets.randbits(128)
    only = sampling.draw(seed, pool, min(size, len(pool)))
    drawn = {"only": sorted(only), "seed": f"{seed:032x}"}
    return ask_about(dataset, by, prompts.compose(dataset), drawn, budget_usd, rings)


def ask_about(
    dataset: Dataset,
    by: User | None,
    told: prompts.Told,
    settings: dict[str, Any],
    budget_usd: Decimal | None = None,
    rings: bool = True,
) -> Run:
    """Start a run on trial over some items, told something of its own.

    Args:
        settings: of its version; ``only`` names the items.
        budget_usd, rings: as in `try_out`.
    Raises: learning.CannotLearn, thresholds.SampleIsOpen, tasks.RunIsActive, each with a sentence.
    """
    check_free(dataset)
    learning.check(dataset, MODEL)
    expected = cost_of(dataset, told, settings["only"])
    if budget_usd is None:
        budget_usd = estimates.cap_for(expected.high_usd)
    with transaction.atomic():
        check_free(dataset)
        asking = prompts.to_ask(dataset, told, cheap_first=False)
        version = learning.make_version(dataset, MODEL, asking | settings)
        budget, estimate = money.to_nano(budget_usd), expected.as_json()
        return tasks.start(dataset, version, by, rings, budget=budget, estimate=estimate, trial=True)


def check_free(dataset: Dataset) -> None:
    """Refuse while people answer a sample or a run is under way. Raises: SampleIsOpen, RunIsActive."""
    thresholds.check_no_sample(dataset)
    active = dataset.runs.active().first()
    if active is not None:
        raise tasks.RunIsActive(active)


def cost_of(dataset: Dataset, told: prompts.Told, only: Sequence[int]) -> estimates.Estimate:
    """Estimate what asking about some items costs. Raises: CannotLearn, with a sentence that says why nobody knows."""
    return learning.expected_cost(dataset, MODEL, told=told, items=Item.objects.filter(pk__in=only))


# What came of it


@dataclass(frozen=True)
class Line:
    """What the model said about one text; ``confidence`` as it stated it, in [0, 1], over all wordings."""

    text: str
    label: str
    confidence: float
    quote: str = ""
    problem: str = ""
    suspect: str = ""


@dataclass(frozen=True)
class Results:
    """What a trial has brought so far, least confident first."""

    run: Run
    lines: list[Line]
    spent: money.Spending

    @property
    def known(self) -> int:
        """Items that had an answer to the same question before, so that nothing was paid for them."""
        return max(len(self.lines) - self.spent.items, 0) if self.run.state == "finished" else 0


def latest(dataset: Dataset) -> Run | None:
    """The newest trial that was not part of a comparison."""
    found = dataset.runs.filter(trial=True).exclude(version__settings__has_key="whatif")
    light = found.select_related("version", "requested_by").defer("version__state", "version__examples")
    return light.order_by("-number").first()


def results(run: Run) -> Results:
    """Collect what a trial has brought, with its cost."""
    first = questions.of_version(run.version)[questions.FIRST]
    said = list(Prediction.objects.filter(run=run).select_related("item", "label").order_by("rank", "item"))
    votes = questions.answered(first, [one.item_id for one in said])
    lines = []
    for one in said:
        vote = votes.get(one.item_id)
        lines.append(
            Line(
                one.item.text,
                one.label.name if one.label else "",
                one.confidence if one.label else 0.0,
                vote.evidence if vote else "",
                one.problem or "",
                vote.suspect if vote else "",
            )
        )
    return Results(run, lines, money.spending(run))

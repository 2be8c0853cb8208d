"""The form for starting a run: what a language model would be sent, what that would cost, and the cap."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import Any

from django.contrib.auth.models import User
from django.http import QueryDict

from datasets import model_settings, questions
from datasets.access import may_create
from datasets.labeling import MODEL
from datasets.models import Dataset
from labelhub.autolabel.prices import AS_OF
from reviews import consequences, estimates, learning, path
from reviews.models import Threshold
from reviews.states import States

CENT = Decimal("0.01")
MOST_USD = 1_000_000  # that can be typed
NO_NUMBER = "The budget is a number of USD above 0, for example 5."
MAY_ASK = (MODEL, learning.ENSEMBLE)


@dataclass(frozen=True)
class Typed:
    """What stands in the form for starting a run."""

    method: str = learning.ENSEMBLE
    ask: bool = False  # the ensemble may ask the model
    batch: bool = False
    renew: bool = False
    budget: str = ""
    offered: str = ""  # the cap that the last estimate wrote into the field

    @classmethod
    def of(cls, data: QueryDict) -> Typed:
        """Read it from a request."""
        return cls(
            data.get("method", ""), bool(data.get("ask")), bool(data.get("batch")), bool(data.get("renew")),
            data.get("budget", "").strip(), data.get("offered", ""),
        )  # fmt: skip

    @property
    def asks(self) -> bool:
        """Whether such a run asks the language model."""
        return self.method == MODEL or (self.method == learning.ENSEMBLE and self.ask)

    @property
    def kept_budget(self) -> str:
        """The cap that a person typed; empty where it is the one that was offered, which another estimate may change."""
        return "" if self.budget == self.offered else self.budget


def form_facts(
    dataset: Dataset, user: User, count: States, methods: list[learning.Method], latest: Threshold | None
) -> dict[str, Any]:
    """What the form for starting a run shows; no network is needed for it."""
    free = {one.name for one in methods if not one.missing}
    return {
        "methods": methods,
        "form": Typed(),
        "teaching": learning.can_end_teaching(dataset),
        "known": learning.count_known(dataset),
        "consequences": consequences.of_new_run(dataset) if latest is not None else None,
        "goal": path.active_goal(dataset),
        "replayable": count.given and may_create(user),
        "model": _model_facts(dataset, count) if MODEL in free else None,
    }


def _model_facts(dataset: Dataset, count: States) -> dict[str, Any]:
    """What is sent, to whom, and at which prices."""
    site = model_settings.current()
    return {
        "name": site.model,
        "second": site.second_model,
        "where": model_settings.where(),
        "is_local": model_settings.is_local(),
        "columns": dataset.mapping.get("text") or [],
        "items": count.accepted + count.flagged + count.pending,
        "as_of": dt.date.fromisoformat(AS_OF),
        "answered_before": bool(questions.latest(dataset)),
    }


def told_cost(dataset: Dataset, typed: Typed) -> dict[str, Any]:
    """The estimate for what is typed, the cap that it suggests, or one sentence why there is none."""
    if typed.method not in MAY_ASK:
        return {"cost": None, "cost_problem": "This method costs nothing: it asks no language model."}
    try:
        found = learning.expected_cost(dataset, typed.method, batch=typed.batch, renew=typed.renew)
    except learning.CannotLearn as error:
        return {"cost": None, "cost_problem": str(error)}
    return {"cost": found, "cap": cap_for(found.high_usd), "cost_problem": ""}


def cap_for(high_usd: float) -> Decimal:
    """Return the cap in USD that goes with a high estimate: what a run without a typed one gets, in whole cents."""
    return estimates.cap_for(high_usd).quantize(CENT, ROUND_CEILING)


def spend_of(typed: Typed) -> learning.Spend | None:
    """How a run may ask the language model, as it was typed. Raises: CannotLearn on a budget that is no number above 0."""
    budget = read_usd(typed.budget) if typed.budget else None
    return learning.Spend(budget, typed.batch, typed.renew) if typed.asks else None


def read_usd(typed: str) -> Decimal:
    """Return an amount of USD as it was typed. Raises: CannotLearn where it is no number above 0."""
    try:
        amount = Decimal(typed.replace(",", ".").removeprefix("$"))
    except InvalidOperation:
        amount = Decimal(0)
    if not (amount.is_finite() and 0 < amount < MOST_USD):
        raise learning.CannotLearn(NO_NUMBER)
    return amount

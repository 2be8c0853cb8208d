"""What the language model is told about a dataset: labels, guidelines, and a few reviewed examples.

Examples come from the file or from people's answers, but never from a calibration sample or a spot check: those prove
how good the labels are, so no labeler may have seen them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db.models import Q

from datasets import questions
from datasets.model_settings import current, where
from datasets.models import Dataset, Item, ModelSettings
from datasets.questions import FIRST, SECOND_MODEL, WITHOUT_ORDERS
from labelhub.autolabel.labelers.prompt import Prompt
from labelhub.autolabel.labelers.shots import choose_examples
from labelhub.autolabel.types import Example
from reviews.models import Decision, Outcome, Purpose

MOST_EXAMPLES = 12
ENOUGH = 20  # reviewed items from which a few are shown; with fewer they would say little
UNSURE_BELOW = 0.95  # confidence of the cheap labelers below which the model is asked
MOST_LOOKED_AT = 5_000  # reviewed items to choose from, and texts that they should be near to


@dataclass(frozen=True)
class Told:
    """A prompt, and the items whose labels it shows."""

    prompt: Prompt
    shown: list[int]


def compose(dataset: Dataset, renew: bool = False) -> Told:
    """Return the prompt for a dataset; the examples of the last one, as long as nothing else has changed.

    Other examples would make another question, whose answers are all to be paid for again; so they change only when
    somebody asks for it, or with the labels or the guidelines.

    Args:
        renew: choose examples anew.
    """
    labels = tuple((one.name, one.definition) for one in dataset.labels.filter(retired_at=None))
    plain = Prompt(labels, dataset.guidelines)
    last = _last(dataset)
    if (
        last is not None
        and not renew
        and (last.prompt.labels, last.prompt.guidelines) == (labels, plain.guidelines)
    ):
        return last
    pool = reviewed(dataset)
    if len(pool) < ENOUGH:
        return Told(plain, [])
    texts = Item.objects.filter(dataset=dataset, same_as=None, given_label=None, excluded=None)
    near = list(texts.order_by("text_hash").values_list("text", flat=True)[:MOST_LOOKED_AT])
    examples = [example for _, example in pool]
    chosen = choose_examples(examples, near, min(MOST_EXAMPLES, 2 * len(labels)), seed=0)
    told = Prompt(labels, dataset.guidelines, tuple(examples[i] for i in chosen))
    return Told(told, [pool[i][0] for i in chosen])


def _last(dataset: Dataset) -> Told | None:
    runs = dataset.runs.filter(version__settings__has_key="llm", version__settings__llm__asks=True)
    run = (
        runs.select_related("version")
        .defer("version__state", "version__examples")
        .order_by("-number")
        .first()
    )
    if run is None:
        return None
    first = questions.of_version(run.version).get(FIRST)
    return Told(first.prompt, run.version.settings["llm"].get("shown") or []) if first else None


def reviewed(dataset: Dataset) -> list[tuple[int, Example]]:
    """Items that may be shown to the model, with their labels: given, or answered outside any sample that proves."""
    names = questions.names_of(dataset)
    answers = Decision.objects.current().filter(
        Q(purpose=Purpose.REVIEW) | Q(purpose=Purpose.TRAINING),
        dataset=dataset, outcome=Outcome.LABEL, label__in=names,
    )  # fmt: skip
    proving = Decision.objects.filter(
        dataset=dataset, sample__purpose__in=(Purpose.CALIBRATION, Purpose.SPOT_CHECK)
    ).values_list("item", flat=True)
    kept_out = set(proving)
    rows = list(answers.order_by("item").values_list("item", "item__text", "label")[:MOST_LOOKED_AT])
    given = Item.objects.filter(dataset=dataset, given_label__in=names, same_as=None).order_by("text_hash")
    rows += list(given.values_list("pk", "text", "given_label")[:MOST_LOOKED_AT])
    return [(pk, Example(text, names[label])) for pk, text, label in rows if pk not in kept_out]


def to_ask(dataset: Dataset, told: Told, *, cheap_first: bool, batch: bool = False) -> dict[str, Any]:
    """Return the settings of a version that may ask: its questions, written down, and when each is worth it."""
    site, address = current(), where()
    return {
        "model": site.model,
        "prompt_hash": told.prompt.fingerprint(site.model),
        "llm": {
            "asks": True,
            "questions": put_questions(dataset, told.prompt, site, address),
            "shown": told.shown,
            "cheap_first": cheap_first,
            "unsure_below": UNSURE_BELOW,
            "batch": batch,
            "address": address,
        },
    }


def put_questions(dataset: Dataset, prompt: Prompt, site: ModelSettings, address: str) -> dict[str, int]:
    """Write down every question that a run may ask; returns version ids by source."""
    named = {
        FIRST: questions.put(dataset, FIRST, site.model, address, prompt),
        WITHOUT_ORDERS: questions.put(dataset, WITHOUT_ORDERS, site.model, address, prompt),
    }
    for ask in range(2, site.asks + 1):
        named[f"llm_{ask}"] = questions.put(dataset, f"llm_{ask}", site.model, address, prompt, ask)
    if site.second_model and site.second_model != site.model:
        named[SECOND_MODEL] = questions.put(dataset, SECOND_MODEL, site.second_model, address, prompt)
    return named


def heard_before(dataset: Dataset) -> dict[str, Any]:
    """Return the settings of a version that goes by the answers there are and asks nothing; empty without any."""
    asked = questions.latest(dataset)
    if not asked:
        return {}
    first = asked[FIRST]
    last = _last(dataset)
    return {
        "model": first.model,
        "prompt_hash": first.prompt.fingerprint(first.model),
        "llm": {
            "asks": False,
            "questions": {source: question.version_id for source, question in asked.items()},
            "shown": last.shown if last else [],
        },
    }

"""What the language model is told about a dataset: labels, guidelines, and a few reviewed examples.

Examples come from the file or from people's answers, but never from a calibration sample or a spot check: those prove
how good the labels are, so no labeler may have seen them.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.db.models import Q, Sum

from datasets import money, questions
from datasets.model_settings import current, where
from datasets.models import Call, Dataset, Item, LabelerVersion, ModelSettings, Run, Vote, record
from datasets.questions import FIRST, SECOND_MODEL, WITHOUT_ORDERS
from labelhub.autolabel.labelers.cheap_first import SURE as UNSURE_BELOW
from labelhub.autolabel.labelers.prompt import Prompt
from labelhub.autolabel.labelers.shots import choose_examples, most_to_show
from labelhub.autolabel.types import Example
from reviews.models import Decision, Outcome, Purpose, SampleItem

if TYPE_CHECKING:
    from django.contrib.auth.models import User

ENOUGH = 20  # reviewed items from which a few are shown; with fewer they would say little
MOST_LOOKED_AT = 5_000  # reviewed items to choose from, and texts that they should be near to
PROVING = (Purpose.CALIBRATION, Purpose.SPOT_CHECK)
PRESENT = "A"  # the name of the dataset's own prompt in a comparison; any other is a variant
_RUNS_BACK = 50  # among which a prompt that was asked before is looked for


@dataclass(frozen=True)
class Told:
    """A prompt, and the items whose labels it shows."""

    prompt: Prompt
    shown: list[int]


def compose(dataset: Dataset, renew: bool = False) -> Told:
    """Return the prompt for a dataset; with the examples of the last one that had its labels and guidelines.

    Other examples would make another question, whose answers are all to be paid for again; so they change only when
    somebody asks for it, with the labels or the guidelines, or when one of them came into a sample that proves.

    Args:
        renew: choose examples anew.
    """
    plain = Prompt(_labels(dataset), dataset.guidelines)
    last = None if renew else _last(dataset, plain)
    return _with_examples(dataset, plain) if last is None else last


def compose_with(dataset: Dataset, guidelines: str, examples: bool) -> Told:
    """Return the prompt as it would be with other guidelines: to try it, nothing is changed.

    Args:
        examples: show the examples of the present prompt, or newly chosen ones where it has none; False for none.
    """
    plain = Prompt(_labels(dataset), guidelines)
    if not examples:
        return Told(plain, [])
    present = compose(dataset)
    if present.shown:
        return Told(replace(plain, examples=present.prompt.examples), present.shown)
    return _with_examples(dataset, plain)


def _labels(dataset: Dataset) -> tuple[tuple[str, str], ...]:
    return tuple((one.name, one.definition) for one in dataset.labels.filter(retired_at=None))


def _with_examples(dataset: Dataset, plain: Prompt) -> Told:
    pool = reviewed(dataset)
    if len(pool) < ENOUGH:
        return Told(plain, [])
    texts = Item.objects.filter(dataset=dataset, same_as=None, given_label=None, excluded=None)
    near = list(texts.order_by("text_hash").values_list("text", flat=True)[:MOST_LOOKED_AT])
    most = most_to_show(len(plain.labels))
    chosen = choose_examples([example for _, example in pool], near, most, seed=0)
    told = replace(plain, examples=tuple(pool[i][1] for i in chosen))
    return Told(told, [pool[i][0] for i in chosen])


def _last(dataset: Dataset, plain: Prompt) -> Told | None:
    """What was last told with these labels and guidelines, unless an example of it has become a proof since."""
    asking = dataset.runs.filter(version__settings__has_key="llm", version__settings__llm__asks=True)
    light = asking.select_related("version").defer("version__state", "version__examples")
    runs = [run for run in light.order_by("-number")[:_RUNS_BACK] if is_in_use(run.version)]
    runs.sort(key=_since, reverse=True)
    ids = {run.pk: questions.options(run.version)["questions"][FIRST] for run in runs}
    asked = LabelerVersion.objects.defer("state", "examples").in_bulk(set(ids.values()))
    for run in runs:
        prompt = Prompt.from_json(asked[ids[run.pk]].settings["prompt"])
        if (prompt.labels, prompt.guidelines) == (plain.labels, plain.guidelines):
            shown = questions.options(run.version).get("shown") or []
            return None if _proving(dataset, shown) else Told(prompt, shown)
    return None


def is_in_use(version: LabelerVersion) -> bool:
    """Whether a version asks the dataset's own prompt; not a variant that was tried and that nobody chose."""
    about = version.settings.get("whatif")
    return about is None or about["name"] == PRESENT or bool(about.get("used_at"))


def _since(run: Run) -> dt.datetime:
    used_at = (run.version.settings.get("whatif") or {}).get("used_at")
    return dt.datetime.fromisoformat(used_at) if used_at else run.requested_at


def _proving(dataset: Dataset, items: list[int] | None = None) -> set[int]:
    """Items, of all or of some, that were drawn into a sample that proves, answered there or not."""
    drawn = SampleItem.objects.filter(sample__dataset=dataset, sample__purpose__in=PROVING)
    said = Decision.objects.filter(dataset=dataset, sample__purpose__in=PROVING)
    if items is not None:
        drawn, said = drawn.filter(item__in=items), said.filter(item__in=items)
    return {*drawn.values_list("item", flat=True), *said.values_list("item", flat=True)}


def reviewed(dataset: Dataset) -> list[tuple[int, Example]]:
    """Items that may be shown to the model, with their labels: given, or answered outside any sample that proves."""
    names = questions.names_of(dataset)
    answers = Decision.objects.current().filter(
        Q(purpose=Purpose.REVIEW) | Q(purpose=Purpose.TRAINING),
        dataset=dataset, outcome=Outcome.LABEL, label__in=names, item__same_as=None,
    )  # fmt: skip
    kept_out = _proving(dataset)
    rows = list(answers.order_by("item").values_list("item", "item__text", "label")[:MOST_LOOKED_AT])
    decided = {pk for pk, _, _ in rows}
    given = Item.objects.filter(dataset=dataset, given_label__in=names, same_as=None).order_by("text_hash")
    rows += [
        row
        for row in given.values_list("pk", "text", "given_label")[:MOST_LOOKED_AT]
        if row[0] not in decided
    ]
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
    return {
        source: questions.put(dataset, source, model, address, prompt, ask)
        for source, model, ask in _sources(site)
    }


def find_questions(dataset: Dataset, prompt: Prompt) -> dict[str, int]:
    """Return the questions of a prompt that were asked before, as `put_questions`; nothing is written."""
    found = {
        source: questions.find(dataset, source, model, where(), prompt, ask)
        for source, model, ask in _sources(current())
    }
    return {source: pk for source, pk in found.items() if pk is not None}


def _sources(site: ModelSettings) -> list[tuple[str, str, int]]:
    """Source, model and wording of every question that a run may ask."""
    every = [(FIRST, site.model, 1), (WITHOUT_ORDERS, site.model, 1)]
    every += [(f"llm_{ask}", site.model, ask) for ask in range(2, site.asks + 1)]
    if site.second_model and site.second_model != site.model:
        every.append((SECOND_MODEL, site.second_model, 1))
    return every


def heard_before(dataset: Dataset) -> dict[str, Any]:
    """Return the settings of a version that goes by the answers there are and asks nothing; empty without any."""
    run = questions.latest_run(dataset)
    asked = questions.of_version(run.version) if run else {}
    if run is None or not asked:
        return {}
    first = asked[FIRST]
    return {
        "model": first.model,
        "prompt_hash": first.prompt.fingerprint(first.model),
        "llm": {
            "asks": False,
            "questions": {source: question.version_id for source, question in asked.items()},
            "shown": questions.options(run.version).get("shown") or [],
        },
    }


# A change of what is told


@dataclass(frozen=True)
class Paid:
    """Items that have an answer to the present prompt, and what those answers cost in USD."""

    answers: int
    usd: Decimal


def paid(dataset: Dataset) -> Paid:
    """Return what a change of the prompt would leave behind; it counts again as soon as the prompt is the same again."""
    asked = find_questions(dataset, compose(dataset).prompt)
    if FIRST not in asked:
        return Paid(0, Decimal(0))
    cost = Call.objects.filter(version__in=asked.values()).aggregate(n=Sum("cost_nano"))["n"]
    return Paid(Vote.objects.filter(version=asked[FIRST]).count(), money.to_usd(cost))


def change(dataset: Dataset, by: User | None, guidelines: str, definitions: dict[str, str]) -> bool:
    """Store other guidelines and definitions, with old and new in the audit trail; False when nothing differs.

    Runs that were made before keep what they were told: their versions hold it.

    Args:
        definitions: by name of the label; labels that are not named stay as they are.
    """
    with transaction.atomic():
        locked = Dataset.objects.select_for_update().get(pk=dataset.pk)
        changed: dict[str, Any] = {}
        if locked.guidelines != guidelines:
            changed["guidelines"] = {"old": locked.guidelines, "new": guidelines}
            Dataset.objects.filter(pk=dataset.pk).update(guidelines=guidelines)
        for label in dataset.labels.filter(name__in=definitions):
            if label.definition != definitions[label.name]:
                told = {"old": label.definition, "new": definitions[label.name]}
                changed.setdefault("definitions", {})[label.name] = told
                label.definition = definitions[label.name]
                label.save(update_fields=["definition"])
        if changed:
            record(by, dataset, "prompt changed", **changed)
    dataset.guidelines = guidelines
    return bool(changed)

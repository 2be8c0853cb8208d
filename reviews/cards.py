"""What a reviewer sees of one item: the text, the suggestion, the votes and why it is here."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from django.db.models import F

from datasets import questions
from datasets.models import Dataset, Item, Label, LabelerVersion, Prediction, RunVotes, Vote
from reviews.decisions import machine_says, open_draw
from reviews.models import Claim, Decision, Outcome, Remark, Sample, Threshold

if TYPE_CHECKING:
    from django.contrib.auth.models import User

PROBLEMS = {
    "abstained": "no labeler had an opinion",
    "worker_crash": "labeling it failed three times",
    "refused": "the language model refused to answer",
    "truncated": "the language model's answer was cut off",
    "too_long": "the text is too long for the language model",
    "malformed": "the language model's answer could not be read",
    "label_not_in_schema": "the language model answered with something that is no label",
    "no_answer": "the language model gave no answer",
    "llm_error": "the language model could not be reached",
    "llm_rejected": "the language model's service rejected the request",
    "suspicious_text": "the text seems to tell the labeler what to answer",
}
LABELERS = {
    "rules": "Rules",
    "weak_model": "Weak model",
    "imported": "Imported",
    "ensemble": "Ensemble",
    "llm": "LLM",
    "llm_2": "LLM, asked again",
    "llm_3": "LLM, asked a third time",
    "llm_4": "LLM, asked a fourth time",
    "llm_5": "LLM, asked a fifth time",
    "llm_second": "Second LLM",
    "llm_set_aside": "LLM, does not count",
}


@dataclass(frozen=True)
class CardVote:
    """One labeler's opinion, as shown."""

    labeler: str
    label: Label | None
    score: float
    evidence: str


@dataclass(frozen=True)
class Card:
    """One item on screen. ``uuid`` belongs to the answer that this card will give."""

    item: Item
    labels: list[Label]
    blind: bool
    claim: Claim | None = None
    suggestion: Label | None = None
    confidence: float | None = None
    reasons: list[str] = field(default_factory=list)
    votes: list[CardVote] = field(default_factory=list)
    history: list[Decision] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)
    columns: list[tuple[str, str]] = field(default_factory=list)
    uuid: uuid.UUID = field(default_factory=uuid.uuid4)

    @property
    def finder(self) -> bool:
        """Whether there are more labels than keys, so that typing finds them."""
        return len(self.labels) > 10


def card_of(claim: Claim, dataset: Dataset, threshold: Threshold | None) -> Card:
    """Return the card of a claimed item; a blind one says nothing about the machine."""
    item = Item.objects.get(pk=claim.item_id)
    return _card(item, dataset, threshold, blind=not claim.showed_machine, claim=claim)


def card_of_item(item: Item, dataset: Dataset, threshold: Threshold | None) -> Card:
    """Return the card of any item, outside of the queue; blind while its sample is open."""
    drawn = open_draw(item.pk) is not None
    return _card(item, dataset, threshold, blind=drawn, claim=None)


def _card(
    item: Item, dataset: Dataset, threshold: Threshold | None, blind: bool, claim: Claim | None
) -> Card:
    labels = list(Label.objects.filter(dataset=dataset, retired_at=None))
    columns = _other_columns(item, dataset)
    if blind:
        return Card(item, labels, True, claim, columns=columns)
    prediction = machine_says(dataset, item.pk)
    votes = _votes(item, prediction, labels)
    return Card(
        item,
        labels,
        False,
        claim,
        suggestion=prediction.label if prediction else None,
        confidence=prediction.confidence if prediction and prediction.label_id else None,
        reasons=reasons(prediction, votes, threshold),
        votes=votes,
        history=list(
            Decision.objects.filter(item=item).select_related("label", "reviewer", "revokes").order_by("pk")
        ),
        remarks=list(Remark.objects.filter(item=item).select_related("user").order_by("pk")),
        columns=columns,
    )


def reasons(prediction: Prediction | None, votes: list[CardVote], threshold: Threshold | None) -> list[str]:
    """Say in words why this item needs a person."""
    if prediction is None:
        return ["no run has labeled it yet"]
    said = []
    if prediction.label is None:
        said.append(PROBLEMS.get(prediction.problem or "", "labeling it failed"))
    elif prediction.label.retired_at is not None:
        said.append(f"its label {prediction.label.name} was retired")
    elif threshold is not None and threshold.accepts_nothing:
        guess = prediction.run.version.guess
        said.append(
            "nothing is accepted yet: the labels are guesses" if guess else "the machine is least sure here"
        )
    elif threshold is not None and prediction.rank < threshold.rank:
        said.append(f"confidence {prediction.confidence:.2f} is below {threshold.confidence:g}")
    named = {vote.label.pk for vote in votes if vote.label is not None}
    if len(named) > 1:
        said.append("the labelers disagree")
    return said


def _votes(item: Item, prediction: Prediction | None, labels: list[Label]) -> list[CardVote]:
    if prediction is None:
        return []
    by_id = {label.pk: label for label in labels}
    kept = RunVotes.objects.filter(run=prediction.run_id, item=item).values_list("votes", flat=True).first()
    said = {name: (label, score, evidence) for name, (label, score, evidence) in (kept or {}).items()}
    if kept is None:  # accepted ones keep none; what came with the file is always there
        said = _kept_votes(item, prediction)
    return [
        CardVote(LABELERS.get(name, name), by_id.get(label), score, evidence)
        for name, (label, score, evidence) in said.items()
    ]


def _kept_votes(item: Item, prediction: Prediction) -> dict[str, tuple[int | None, float, str]]:
    """The votes that came with the file or from a language model: they are there for every item."""
    votes = list(
        Vote.objects.filter(version__dataset=item.dataset_id, version__method__in=("imported", questions.ASK), item=item)
        .annotate(method=F("version__method"))
    )  # fmt: skip
    asked = {}
    if any(vote.method == questions.ASK for vote in votes):
        version = LabelerVersion.objects.only("settings").get(runs=prediction.run_id)
        asked = {one.version_id: source for source, one in questions.of_version(version).items()}
    named = {vote: "imported" if vote.method == "imported" else asked.get(vote.version_id) for vote in votes}
    return {
        source: (vote.label_id, vote.score, vote.evidence)
        for vote, source in named.items()
        if source and source != questions.WITHOUT_ORDERS
    }


def _other_columns(item: Item, dataset: Dataset) -> list[tuple[str, str]]:
    """The columns that are neither the text nor an answer, as text."""
    mapping = dataset.mapping
    hidden = {*mapping.get("text", []), *(mapping.get(k) for k in ("label", "predicted", "confidence"))}
    row = json.loads(item.row)
    return [
        (name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for name, value in row.items()
        if name not in hidden and value not in ("", None)
    ]


def last_answers(dataset: Dataset, user: User, within: Sample | None, n: int = 5) -> list[Decision]:
    """This person's latest answers that stand, newest first, for the history strip."""
    mine = Decision.objects.answers().filter(dataset=dataset, reviewer=user)
    if within is not None:
        mine = mine.filter(sample=within)
    return list(mine.exclude(outcome=Outcome.UNDO).select_related("item", "label").order_by("-pk")[:n])

"""What is asked of language models about the items of a dataset, and which answers are there already.

A question is one wording of one prompt to one model. It is a labeler version, known by its fingerprint: whoever asks
the same again finds the answers that were paid for, in this dataset or, for the same text, in another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from django.db import connection, transaction
from django.db.models import Q

from datasets.models import ITEMS_IN_A_SLICE, Dataset, Item, Label, LabelerVersion, Run, Vote
from labelhub.autolabel.labelers.prompt import Prompt
from labelhub.autolabel.labelers.reply import Said
from labelhub.autolabel.labelers.suspicion import suspicious, without_span

ASK = "ask"  # the method of a version that is a question
PASSING = ("llm_error", "llm_rejected")  # problems that another run need not meet again
FIRST, SECOND_MODEL, WITHOUT_ORDERS = "llm", "llm_second", "llm_without"


@dataclass(frozen=True)
class Question:
    """One wording of one prompt to one model.

    Attributes:
        source: the name of its votes: "llm", "llm_2", … for further wordings, "llm_second" for a second model,
            "llm_without" where the part of a text was left out that looks like an order to the labeler.
        version_id: the labeler version that its votes belong to.
        gate: the way to the model, shared by all workers.
        ask: number of the wording, from 1.
        label_ids: label name to id, of the labels that can be answered.
    """

    source: str
    version_id: int
    model: str
    gate: str
    prompt: Prompt
    ask: int
    label_ids: dict[str, int]

    def as_sent(self, text: str) -> str:
        """Return what is sent of a text."""
        if self.source != WITHOUT_ORDERS:
            return text
        found = suspicious(text, self.label_ids)
        return without_span(text, found) if found else text


def put(dataset: Dataset, source: str, model: str, address: str, prompt: Prompt, ask: int = 1) -> int:
    """Return the id of the version that is this question, made if nobody asked it before.

    Args:
        address: the host that serves the model; answers of another host are answers of another model.
    """
    fingerprint = _fingerprint(source, model, address, prompt, ask)
    known = {name: pk for pk, name in dataset.labels.filter(retired_at=None).values_list("pk", "name")}
    settings = {
        "labels": [[known[name], name, definition] for name, definition in prompt.labels],
        "model": model,
        "gate": f"{model} at {address}",
        "ask": ask,
        "prompt": prompt.to_json(),
        "prompt_hash": prompt.fingerprint(model, ask),
    }
    version, _ = LabelerVersion.objects.get_or_create(
        dataset=dataset, fingerprint=fingerprint, defaults={"method": ASK, "settings": settings}
    )
    return version.pk


def find(dataset: Dataset, source: str, model: str, address: str, prompt: Prompt, ask: int = 1) -> int | None:
    """Return the id of the version that is this question, as ``put``; None if nobody asked it before."""
    fingerprint = _fingerprint(source, model, address, prompt, ask)
    known = LabelerVersion.objects.filter(dataset=dataset, fingerprint=fingerprint)
    return known.values_list("pk", flat=True).first()


def _fingerprint(source: str, model: str, address: str, prompt: Prompt, ask: int) -> str:
    variant = f" {source}" if source == WITHOUT_ORDERS else ""
    return prompt.fingerprint(f"{model} {address}{variant}", ask)


def options(version: LabelerVersion) -> dict[str, Any]:
    """What a version knows of asking a model; empty where it goes by none.

    "questions": version ids by source; "asks": whether it may ask and pay, and then when: "cheap_first",
    "unsure_below", "batch"; "shown": items whose labels the prompt shows; "address" of the model; "cheap": the version
    that says what need not be asked, once it was learned.
    """
    found: dict[str, Any] = version.settings.get("llm") or {}
    return found


def of_version(version: LabelerVersion) -> dict[str, Question]:
    """The questions that runs of a version may ask, by source; empty where it asks none."""
    named: dict[str, int] = options(version).get("questions") or {}
    found = {one.pk: one for one in LabelerVersion.objects.filter(pk__in=named.values()).defer("state")}
    return {source: _question(source, found[pk]) for source, pk in named.items() if pk in found}


def _question(source: str, version: LabelerVersion) -> Question:
    settings: dict[str, Any] = version.settings
    return Question(
        source, version.pk, settings["model"], settings["gate"], Prompt.from_json(settings["prompt"]),
        settings["ask"], {name: pk for pk, name, _ in settings["labels"]},
    )  # fmt: skip


def by_id(version_id: int) -> Question:
    """The question that a version is, as the first one to be asked."""
    return _question(FIRST, LabelerVersion.objects.defer("state").get(pk=version_id))


class Answered(NamedTuple):
    """What a vote says; the fields of ``Vote``."""

    item_id: int
    label_id: int | None
    score: float
    evidence: str
    problem: str | None
    suspect: str


def answered(question: Question, items: Sequence[int]) -> dict[int, Answered]:
    """The votes there are on some items, those without a label included."""
    found: dict[int, Answered] = {}
    for start in range(0, len(items), ITEMS_IN_A_SLICE):
        part = items[start : start + ITEMS_IN_A_SLICE]
        votes = Vote.objects.filter(version=question.version_id, item__in=part)
        found |= {row[0]: Answered._make(row) for row in votes.values_list(*Answered._fields)}
    return found


def unanswered(question: Question, rows: Sequence[tuple[int, str]], run_id: int) -> list[tuple[int, str]]:
    """Return the rows that a run has still to ask about.

    Where another run got no answer for a reason that passes, it is asked again; within the run it is settled.
    """
    known: set[int] = set()
    for start in range(0, len(rows), ITEMS_IN_A_SLICE):
        part = [pk for pk, _ in rows[start : start + ITEMS_IN_A_SLICE]]
        votes = Vote.objects.filter(version=question.version_id, item__in=part)
        votes = votes.filter(Q(problem=None) | ~Q(problem__in=PASSING) | Q(call__run=run_id))
        known |= set(votes.values_list("item", flat=True))
    return [row for row in rows if row[0] not in known]


def borrow(question: Question, rows: Sequence[tuple[int, str]]) -> int:
    """Take over answers to the same question about the same texts in other datasets; returns how many.

    Args:
        rows: (item id, text) of items without an answer.
    """
    mine = LabelerVersion.objects.only("dataset", "fingerprint").get(pk=question.version_id)
    twins = LabelerVersion.objects.filter(fingerprint=mine.fingerprint).exclude(pk=mine.pk)
    twin_of = dict(twins.values_list("dataset", "pk"))
    if not twin_of:
        return 0
    texts = dict(rows)
    hashes = dict(Item.objects.filter(pk__in=texts).values_list("pk", "text_hash"))
    by_hash: dict[int, list[int]] = {}
    for pk, text_hash in hashes.items():
        by_hash.setdefault(text_hash, []).append(pk)
    taken = []
    elsewhere = Vote.objects.filter(
        version__in=twin_of.values(), item__dataset__in=twin_of, item__text_hash__in=list(by_hash)
    ).exclude(problem__in=PASSING).select_related("item", "label")  # fmt: skip
    seen: set[int] = set()
    for vote in elsewhere:
        for pk in by_hash[vote.item.text_hash]:
            if pk not in seen and texts[pk] == vote.item.text:
                seen.add(pk)
                label_id = question.label_ids.get(vote.label.name) if vote.label else None
                taken.append(
                    (
                        question.version_id,
                        pk,
                        label_id,
                        vote.score,
                        vote.evidence,
                        vote.problem,
                        vote.suspect,
                        None,
                    )
                )
    store(taken)
    return len(taken)


VoteRow = tuple[int, int, int | None, float, str, str | None, str, int | None]


def store(rows: Iterable[VoteRow]) -> None:
    """Store votes: (version, item, label, score, evidence, problem, suspect, call).

    One that is there already stays, unless all it says is that there was no answer, for a reason that passes.
    """
    table = Vote._meta.db_table
    with transaction.atomic(savepoint=False), connection.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO {table} (version_id, item_id, label_id, score, evidence, problem, suspect, call_id) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (version_id, item_id) DO UPDATE SET "
            "label_id = excluded.label_id, score = excluded.score, evidence = excluded.evidence, "
            "problem = excluded.problem, suspect = excluded.suspect, call_id = excluded.call_id "
            f"WHERE {table}.problem IN ({', '.join(['%s'] * len(PASSING))})",
            [(*row, *PASSING) for row in rows],
        )


def vote_row(
    question: Question, item_id: int, text: str, outcome: Said | str, call_id: int, suspect: str | None = None
) -> VoteRow:
    """The vote that an outcome is: a label with a confidence, or a problem code. A quote that is not in the text is dropped.

    Args:
        suspect: what ``suspicion`` says about the text, where that is known already.
    """
    if isinstance(outcome, str):
        return (question.version_id, item_id, None, 0.0, "", outcome, "", call_id)
    quote = outcome.quote if outcome.quote and outcome.quote in text else ""
    label_id = question.label_ids[outcome.label]
    suspect = suspicion(question, text) if suspect is None else suspect
    return (question.version_id, item_id, label_id, outcome.confidence, quote, None, suspect, call_id)


def suspicion(question: Question, text: str) -> str:
    """What to note with a vote about a text that looks as if it told the model what to say; "" for any other."""
    if question.source == WITHOUT_ORDERS:
        return ""
    found = suspicious(text, question.label_ids)
    return f"{'certain' if found.certain else 'possible'}: {found.kind}"[:60] if found else ""


def counts(vote: Vote | Answered, without: Answered | None) -> bool:
    """Whether the model's word counts: not where the text seems to have told it what to say.

    Args:
        vote: its answer.
        without: its answer to the text without the suspect part; None where that was not asked or not answered.
    """
    if not vote.suspect:
        return True
    if vote.suspect.startswith("certain") or without is None:
        return False
    return without.label_id == vote.label_id


def latest(dataset: Dataset) -> dict[str, Question]:
    """The questions of the newest run that asked any, whose votes later runs and rounds go by."""
    run = latest_run(dataset)
    return of_version(run.version) if run else {}


def latest_run(dataset: Dataset) -> Run | None:
    """The newest run that asked, or went by what others had asked; a trial is none of them."""
    asking = dataset.runs.filter(trial=False, version__settings__has_key="llm").order_by("-number")
    return asking.select_related("version").defer("version__state", "version__examples").first()


def names_of(dataset: Dataset) -> dict[int, str]:
    """Label id to name, of the labels in use."""
    return dict(Label.objects.filter(dataset=dataset, retired_at=None).values_list("pk", "name"))

"""Items become predictions, slice by slice.

Slice 0 has no items: it fits the labeler. The others are labeled outside any transaction and
written in one short transaction each. Nothing here knows of queues.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from django.db import transaction
from django.db.models import QuerySet, Sum
from numpy.typing import NDArray

from datasets import questions
from datasets.bulk import as_json, insert_rows
from datasets.models import (
    ITEMS_IN_A_SLICE,
    Dataset,
    Item,
    LabelerVersion,
    Prediction,
    RunVotes,
    Slice,
    Vote,
)
from datasets.slices import close_slice
from labelhub.autolabel import labelers
from labelhub.autolabel.labelers import suspicion
from labelhub.autolabel.labelers.ensemble import agreed
from labelhub.autolabel.labelers.state import read_state, write_state
from labelhub.autolabel.rank import confidence_of, draw_ties, to_rank, to_ranks
from labelhub.autolabel.types import ABSTENTION, Answer, Example, Labeler
from labelhub.autolabel.types import Vote as AutoVote

FAST_ABOVE = 100_000  # items; then the quick view alone decides where it is sure
GUESS_BY = 2_000  # texts that sharpen guesses where nobody has labeled anything
MOST_GIVEN = 50_000  # given labels to learn from; more make no better model, only a slower one
ROUND = "round"  # the method of a version that scored all items at once on the way to a goal
MODEL = "llm"  # the method of a version that goes by a language model alone
SUSPICIOUS = "suspicious_text"  # the problem of an item that seems to tell the language model what to say
VOTES_BELOW = to_rank(0.95)  # the votes behind surer predictions are not kept

Settle = Callable[[int, Iterable[int]], None]


@dataclass(frozen=True, slots=True)
class Said:
    """What a run says about one item: a label with a confidence in [0, 1], or a problem.

    ``votes`` are {labeler: [label id, score, evidence]}; ``rank`` where it is known already, ties broken.
    """

    item_id: int
    label_id: int | None
    confidence: float = 0.0
    problem: str | None = None
    votes: dict[str, list[Any]] = field(default_factory=dict)
    rank: int | None = None


def free_items(dataset: Dataset) -> QuerySet[Item]:
    """Items that a run may label: neither given nor a copy nor excluded. Decisions are not known here."""
    return Item.objects.filter(dataset=dataset, same_as=None, given_label=None, excluded=None)


def fit(mine: Slice, items: QuerySet[Item]) -> bytes:
    """Learn the labeler of a run from its version's examples and the given labels; returns its state.

    Raises: ValueError or LabelerUnavailable with a sentence when the method cannot learn from them.
    """
    run, version = mine.run, mine.run.version
    if version.method == MODEL:
        return b""  # it has learned what it knows elsewhere
    shown = examples_of(version)
    return labelers.learn(
        version.method,
        _schema(version),
        [example for _, example in shown],
        settings={
            "rules": version.settings.get("rules") or {},
            "fast": (run.slices.aggregate(n=Sum("items"))["n"] or 0) > FAST_ABOVE,
        },
        seed=int(run.seed, 16) % 2**32,
        texts=[] if shown else list(items.order_by("text_hash").values_list("text", flat=True)[:GUESS_BY]),
        given_votes=_votes_on_examples(version, [pk for pk, _ in shown]),
    )


def _votes_on_examples(version: LabelerVersion, ids: Sequence[int]) -> dict[str, list[AutoVote]] | None:
    """The votes to learn from whom to believe; not the model's on texts whose labels it was shown."""
    heard = hear(version, ids)
    shown = set(questions.options(version).get("shown") or [])
    votes = {
        source: {pk: vote for pk, vote in given.items() if pk not in shown}
        for source, given in heard.votes.items()
    }
    return _given_votes(version, ids, Heard(votes))


def examples_of(version: LabelerVersion) -> list[tuple[int, Example]]:
    """The items that a version learns from, with what people decided or the file gave, in no order of the file."""
    names = _names(version)
    decided = {pk: names[label_id] for pk, label_id in version.examples if label_id in names}
    shown = [(pk, Example(text, decided[pk])) for pk, text in _texts(decided)]
    given = Item.objects.filter(dataset=version.dataset_id, given_label__in=names, same_as=None)
    rows = given.order_by("text_hash").values_list("pk", "text", "given_label")
    return shown + [
        (pk, Example(text, names[label])) for pk, text, label in rows[:MOST_GIVEN] if pk not in decided
    ]


def _names(version: LabelerVersion) -> dict[int, str]:
    return {label_id: name for label_id, name, _ in version.settings["labels"]}


def _schema(version: LabelerVersion) -> dict[str, str]:
    return {name: definition for _, name, definition in version.settings["labels"]}


def _texts(ids: Mapping[int, str]) -> Iterator[tuple[int, str]]:
    for start in range(0, len(ids), ITEMS_IN_A_SLICE):
        part = list(ids)[start : start + ITEMS_IN_A_SLICE]
        yield from Item.objects.filter(pk__in=part).order_by("pk").values_list("pk", "text")


def label_slice(mine: Slice, items: QuerySet[Item]) -> list[Said]:
    """Label the items of a slice. Slow, so never inside a transaction."""
    version = mine.run.version
    rows = rows_of(mine, items)
    if not rows:
        return []
    if version.method == ROUND:
        return _look_up([pk for pk, _ in rows], *_scores(version.pk, version.at))
    ids = {name: label_id for label_id, name in _names(version).items()}
    items_here = [pk for pk, _ in rows]
    heard = hear(version, items_here)
    if version.method == MODEL:
        return [_by_model(pk, heard, ids) for pk in items_here]
    votes = _given_votes(version, items_here, heard)
    answers = _labeler(version.pk, version.at).label([text for _, text in rows], votes)
    said = []
    for (item_id, _), answer in zip(rows, answers, strict=True):
        behind = _behind(answer.votes, ids) | heard.set_aside.get(item_id, {})
        if heard.problems.get(item_id) == SUSPICIOUS or _is_contradicted(answer, heard.doubted.get(item_id)):
            # Its words may have moved the other labelers too, so nobody's label stands unseen.
            said.append(Said(item_id, None, 0.0, SUSPICIOUS, behind))
            continue
        label_id = ids.get(answer.label) if answer.label is not None else None
        if label_id is None:
            said.append(Said(item_id, None, 0.0, answer.problem or "abstained", behind))
        else:
            # Where examples exist, a label without any is still a guess and never accepted unseen.
            sure = 0.0 if answer.guess and not version.guess else answer.confidence
            said.append(Said(item_id, label_id, sure, None, behind))
    return said


def _is_contradicted(answer: Answer, doubted: str | None) -> bool:
    """Whether the weak model is sure of another label than the one that the text may have asked for."""
    weak = answer.votes.get("weak_model")
    if doubted is None or weak is None or answer.guess:
        return False
    return weak.label not in (None, doubted) and weak.score >= suspicion.SURE


def _behind(votes: Mapping[str, AutoVote], ids: Mapping[str, int]) -> dict[str, list[Any]]:
    return {
        labeler: [ids.get(vote.label) if vote.label else None, round(vote.score, 6), vote.evidence]
        for labeler, vote in votes.items()
    }


def _by_model(item_id: int, heard: Heard, ids: Mapping[str, int]) -> Said:
    """What a language model alone says about an item; its confidence is what it stated, over all wordings."""
    problem = heard.problems.get(item_id)
    votes = {source: given[item_id] for source, given in heard.votes.items() if item_id in given}
    together = agreed(votes)
    if problem or together.label is None:
        return Said(item_id, None, 0.0, problem or "abstained", heard.set_aside.get(item_id, {}))
    return Said(item_id, ids[together.label], together.score, None, _behind(votes, ids))


@dataclass(frozen=True, slots=True)
class Heard:
    """What language models said about some items.

    ``votes`` by source and item, those that count; ``problems`` why the first question brought no label that counts;
    ``set_aside`` the votes that do not count, as they are shown; ``doubted`` the labels that count although the text may
    have asked for them.
    """

    votes: dict[str, dict[int, AutoVote]] = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)
    set_aside: dict[int, dict[str, list[Any]]] = field(default_factory=dict)
    doubted: dict[int, str] = field(default_factory=dict)


def hear(version: LabelerVersion, items: Sequence[int]) -> Heard:
    """Collect what the models that a version goes by have said about items."""
    asked, names, heard = questions.of_version(version), _names(version), Heard()
    if questions.FIRST not in asked:
        return heard
    first = questions.answered(asked[questions.FIRST], items)
    without: dict[int, questions.Answered] = {}
    if any(vote.suspect for vote in first.values()):
        without = questions.answered(asked[questions.WITHOUT_ORDERS], items)
    for pk in items:
        vote = first.get(pk)
        if vote is None or vote.label_id is None:
            heard.problems[pk] = (vote.problem if vote else None) or "no_answer"
        elif not questions.counts(vote, without.get(pk)):
            heard.problems[pk] = SUSPICIOUS
            heard.set_aside[pk] = {"llm_set_aside": [vote.label_id, round(vote.score, 6), vote.suspect]}
        elif vote.suspect and vote.label_id in names:
            heard.doubted[pk] = names[vote.label_id]
    for source, question in asked.items():
        if source == questions.WITHOUT_ORDERS:
            continue
        votes = first if source == questions.FIRST else questions.answered(question, items)
        heard.votes[source] = {
            pk: AutoVote(names[vote.label_id], vote.score, vote.evidence)
            for pk, vote in votes.items()
            if vote.label_id in names and heard.problems.get(pk) != SUSPICIOUS
        }
    return heard


def pack_scores(items: Sequence[int], labels: Sequence[int], ranks: NDArray[np.int64]) -> bytes:
    """Return what a round says of its items as the state of its version; items ascending."""
    arrays = {"items": np.asarray(items, np.int64), "labels": np.asarray(labels, np.int64), "ranks": ranks}
    return write_state({"method": ROUND}, arrays)


@lru_cache(maxsize=1)
def _scores(version_id: int, made_at: dt.datetime) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    state = LabelerVersion.objects.values_list("state", flat=True).get(pk=version_id)
    _, arrays = read_state(bytes(state or b""))
    return arrays["items"], arrays["labels"], arrays["ranks"]


def _look_up(
    ids: Sequence[int], items: NDArray[Any], labels: NDArray[Any], ranks: NDArray[Any]
) -> list[Said]:
    places = np.searchsorted(items, ids)
    return [
        Said(pk, int(labels[place]), confidence_of(int(ranks[place])), rank=int(ranks[place]))
        for pk, place in zip(ids, places.tolist(), strict=True)
    ]


def set_aside(mine: Slice, items: QuerySet[Item]) -> list[Said]:
    """What to say about the items of a slice that ended its worker three times: a person must look."""
    return [Said(pk, None, 0.0, "worker_crash") for pk in _within(mine, items).values_list("pk", flat=True)]


def rows_of(mine: Slice, items: QuerySet[Item]) -> list[tuple[int, str]]:
    """The items of a slice, as (id, text)."""
    return list(_within(mine, items).values_list("pk", "text"))


def _within(mine: Slice, items: QuerySet[Item]) -> QuerySet[Item]:
    return items.filter(pk__range=(mine.first_id, mine.last_id)).order_by("pk")


@lru_cache(maxsize=2)  # of a run, and the cheap one that says which items are worth a question
def _labeler(version_id: int, made_at: dt.datetime) -> Labeler:
    """The labeler of a version, built once in a process: a version never changes once slice 0 is done."""
    version = LabelerVersion.objects.get(pk=version_id)
    return labelers.build(version.method, _schema(version), bytes(version.state or b""))


def answers_of(version: LabelerVersion, texts: Sequence[str], items: Sequence[int]) -> list[Answer]:
    """What a fitted version says about texts, given the votes that came with the file."""
    votes = _given_votes(version, items, Heard())
    return _labeler(version.pk, version.at).label(texts, votes)


def _given_votes(
    version: LabelerVersion, ids: Sequence[int], heard: Heard
) -> dict[str, list[AutoVote]] | None:
    """The votes that came from elsewhere for these items, one each, an abstention where there is none."""
    if version.method not in ("imported", "ensemble"):
        return None
    names = _names(version)
    given = {
        source: [votes.get(pk, ABSTENTION) for pk in ids] for source, votes in heard.votes.items() if votes
    }
    came: dict[int, AutoVote] = {}
    source = Vote.objects.filter(version__dataset=version.dataset_id, version__method="imported")
    for start in range(0, len(ids), ITEMS_IN_A_SLICE):
        for vote in source.filter(item__in=ids[start : start + ITEMS_IN_A_SLICE]):
            name = names.get(vote.label_id) if vote.label_id else None
            came[vote.item_id] = AutoVote(name, vote.score, vote.evidence) if name else ABSTENTION
    if came:
        given["imported"] = [came.get(pk, ABSTENTION) for pk in ids]
    return given or None


def finish_fit(mine: Slice, version: LabelerVersion, state: bytes) -> None:
    """Store what the labeler learned and close slice 0. Raises: Fenced."""
    with transaction.atomic():
        close_slice(mine)
        LabelerVersion.objects.filter(pk=version.pk).update(state=state)


def write_slice(mine: Slice, said: Sequence[Said], votes_below: int, settle: Settle) -> None:
    """Write a slice's predictions once, in one transaction, then bring ``open`` up to date by ``settle``.

    Args:
        votes_below: the rank under which the votes behind a prediction are kept.
        settle: called with the dataset's id and the item ids.
    Raises: Fenced, with nothing written, when the slice is no longer this worker's.
    """
    run = mine.run
    ties = draw_ties(int(run.seed, 16) * 2**32 + mine.number, len(said))
    ranks = to_ranks([one.confidence for one in said], ties).tolist() if said else []
    ranks = [
        0 if one.label_id is None else rank if one.rank is None else one.rank
        for one, rank in zip(said, ranks, strict=True)
    ]
    with transaction.atomic():
        close_slice(mine)
        insert_rows(
            Prediction,
            ("run_id", "item_id", "label_id", "problem", "rank", "open"),
            [(run.pk, one.item_id, one.label_id, one.problem, rank, True)
             for one, rank in zip(said, ranks, strict=True)],
        )  # fmt: skip
        kept = max(votes_below, VOTES_BELOW)
        votes = [
            (run.pk, one.item_id, as_json(one.votes))
            for one, rank in zip(said, ranks, strict=True)
            if rank < kept and one.votes
        ]
        if votes:
            insert_rows(RunVotes, ("run_id", "item_id", "votes"), votes)
        settle(run.dataset_id, [one.item_id for one in said])

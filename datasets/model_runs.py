"""What a run asks a language model, and in which order: cheap labelers first, further questions only where one is unsure.

The first slice of such a run prepares it: a cheap labeler is learned, the model is asked about some answered items so
that it can be learned how far to believe it, and a run in batches waits here for its answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from django.db import transaction
from django.db.models import QuerySet

from datasets import batches, labeling, questions
from datasets.asking import Desk, Errand, Rows, Stages
from datasets.labeling import MODEL
from datasets.model_settings import client, current
from datasets.models import ITEMS_IN_A_SLICE, Item, LabelerVersion, Run, Slice
from datasets.questions import FIRST, SECOND_MODEL, WITHOUT_ORDERS, Question
from labelhub.autolabel import labelers
from labelhub.autolabel.labelers.cheap_first import MOST_ASKED

ENOUGH = 50  # answered items: with fewer nobody knows how sure the cheap labelers may be, so the model is asked for all
SURE = 0.9  # a stated confidence from which one question is enough


def asks(version: LabelerVersion) -> bool:
    """Whether runs of a version may ask a model, and pay for it."""
    return bool(questions.options(version).get("asks"))


def at_desk(
    run: Run,
    stops: Callable[[], bool],
    more: Callable[[], Slice | None],
    rows: Callable[[Slice], Rows],
    done: Callable[[Slice], None],
) -> list[Slice]:
    """Ask about slice after slice until there is none, or ``stops``; returns slices begun and not done.

    Args:
        more: claims a slice.
        rows: the items of a slice.
        done: labels a slice whose answers are all in.
    Raises: nothing of its own: what stops it is told by the exception in ``Stopped``.
    """
    asked = questions.of_version(run.version)

    def claim() -> Errand | None:
        mine = more()
        return None if mine is None else Errand(mine, stages(run.version, asked, rows(mine)))

    desk = Desk(run, client(), current(), claim, lambda errand: done(errand.mine))
    try:
        desk.work(stops)
    except Exception as error:
        raise Stopped([errand.mine for errand in desk.errands]) from error
    return [errand.mine for errand in desk.errands]


class Stopped(Exception):
    """Asking ended before its end, by the exception that caused this one; ``begun`` are slices to give back."""

    def __init__(self, begun: Sequence[Slice]) -> None:
        super().__init__("asking ended")
        self.begun = begun


def stages(version: LabelerVersion, asked: dict[str, Question], rows: Rows) -> Stages:
    """Yield what to ask about some items, each question with the items that it is worth it for."""
    cheap = _cheap_answers(version, rows)
    wanted = [row for row in rows if cheap is None or _is_unsure(cheap[row[0]], version)]
    yield asked[FIRST], wanted
    first = questions.answered(asked[FIRST], [pk for pk, _ in wanted])
    labeled = [row for row in wanted if row[0] in first and first[row[0]].label_id is not None]
    yield asked[WITHOUT_ORDERS], [row for row in labeled if first[row[0]].suspect.startswith("possible")]
    names = {pk: name for name, pk in asked[FIRST].label_ids.items()}
    unsure = [
        row
        for row in labeled
        if first[row[0]].score < SURE
        or (cheap is not None and cheap[row[0]].label not in (None, names.get(first[row[0]].label_id or 0)))
    ]
    votes = [first]
    for source, question in asked.items():
        if source not in (FIRST, WITHOUT_ORDERS, SECOND_MODEL):
            yield question, unsure
            votes.append(questions.answered(question, [pk for pk, _ in unsure]))
    if SECOND_MODEL in asked:
        yield asked[SECOND_MODEL], [row for row in unsure if _differ(row[0], votes, cheap, names)]


def _cheap_answers(version: LabelerVersion, rows: Rows) -> dict[int, labelers.Answer] | None:
    cheap_id = questions.options(version).get("cheap")
    if cheap_id is None:
        return None
    cheap = LabelerVersion.objects.defer("state", "examples").get(pk=cheap_id)
    answers = labeling.answers_of(cheap, [text for _, text in rows], [pk for pk, _ in rows])
    return {pk: answer for (pk, _), answer in zip(rows, answers, strict=True)}


def _is_unsure(answer: labelers.Answer, version: LabelerVersion) -> bool:
    return (
        answer.label is None or answer.guess or answer.confidence < questions.options(version)["unsure_below"]
    )


def _differ(
    item: int, votes: list[dict[int, Any]], cheap: dict[int, labelers.Answer] | None, names: dict[int, str]
) -> bool:
    said = {names.get(given[item].label_id) for given in votes if item in given and given[item].label_id}
    if cheap is not None and cheap[item].label is not None:
        said.add(cheap[item].label)
    return len(said) > 1


def prepare(run: Run, mine: Slice, items: QuerySet[Item], stops: Callable[[], bool]) -> bytes | None:
    """Do what a run that asks needs before its first item; returns the state of its labeler, None if it was stopped.

    Called again after a wait or a crash, it goes on where it was: what is stored is not done twice.

    Args:
        items: all that the run is to label.
    Raises: ValueError as ``labelers.learn``; Stopped.
    """
    version = run.version
    if version.method != MODEL:
        _learn_cheap(run, mine, items)
        tried = _to_try(version)
        asked = questions.of_version(version)
        if not _ask_here(run, mine, iter([(asked[FIRST], tried)]), stops):
            return None
    in_batches = questions.options(version).get("batch")
    if in_batches and not batches.work(run, mine, _first_questions(run, items), stops):
        return None
    return labeling.fit(mine, items)


def _ask_here(run: Run, mine: Slice, what: Stages, stops: Callable[[], bool]) -> bool:
    """Ask about items that belong to no slice; whether all answers are in."""
    waiting = [Errand(mine, what)]
    finished: list[Errand] = []
    desk = Desk(run, client(), current(), lambda: waiting.pop() if waiting else None, finished.append)
    try:
        desk.work(stops)
    except Exception as error:
        raise Stopped([mine]) from error
    return bool(finished)


def _first_questions(run: Run, items: QuerySet[Item]) -> batches.Find:
    version = run.version

    def find() -> tuple[Question, Rows]:
        asked, wanted = questions.of_version(version)[FIRST], Rows()
        every = items.order_by("pk").values_list("pk", "text").iterator(ITEMS_IN_A_SLICE)
        while part := list(islice(every, ITEMS_IN_A_SLICE)):
            cheap = _cheap_answers(version, part)
            part = [row for row in part if cheap is None or _is_unsure(cheap[row[0]], version)]
            wanted += questions.unanswered(asked, part, run.pk)
        return asked, wanted

    return find


def _learn_cheap(run: Run, mine: Slice, items: QuerySet[Item]) -> None:
    """Learn a labeler that costs nothing, which says what the model need not be asked."""
    version = run.version
    options = questions.options(version)
    if not options.get("cheap_first") or "cheap" in options:
        return
    if len(labeling.examples_of(version)) < ENOUGH:
        return
    plain = {key: value for key, value in version.settings.items() if key in ("labels", "rules")}
    cheap = LabelerVersion(
        dataset=run.dataset,
        method=version.method,
        settings=plain,
        examples=version.examples,
        decisions=version.decisions,
    )
    stand_in = Slice(
        run=Run(dataset=run.dataset, version=cheap, seed=run.seed, pk=run.pk), number=mine.number
    )
    cheap.state = labeling.fit(stand_in, items)
    with transaction.atomic():
        cheap.save()
        options["cheap"] = cheap.pk
        version.save(update_fields=["settings"])


def _to_try(version: LabelerVersion) -> Rows:
    """Answered items, in no order of the file and the same ones each time, but not those shown in the prompt."""
    shown = set(questions.options(version).get("shown") or [])
    known = [(pk, example.text) for pk, example in labeling.examples_of(version) if pk not in shown]
    known.sort(key=lambda row: hashlib.sha256(row[1].encode("utf-8", "replace")).digest())
    return known[:MOST_ASKED]

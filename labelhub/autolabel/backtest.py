"""The whole loop replayed on data whose answers are known: what would it have cost, and did it keep its word?

``backtest`` plays the product's own policy many times and reports how much people had to label, how often
something was certified, and how often the promise was broken. Only the people are played; their answers are
the known ones, with slips if asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from labelhub.autolabel.onelook import promise_for, simple
from labelhub.autolabel.playing import Floats, Ints, Known, Marks, People, Promise, shares
from labelhub.autolabel.rank import draw_ties, to_rank, to_ranks
from labelhub.autolabel.replay import Course, replay, seeds_of
from labelhub.autolabel.scorer import TextFeatures, VoteTable

METHODS = ("ensemble", "weak_model", "imported")
PROMISES = ("dataset", "accepted")
THRESHOLDS = (0.95, 0.90, 0.85, 0.80, 0.70)


def prepare(
    texts: Sequence[str],
    gold: Sequence[str],
    *,
    predicted: Sequence[str] | None = None,
    confidence: Sequence[float] | None = None,
    votes: Mapping[str, Sequence[str]] | None = None,
    method: str = "ensemble",
    distinct: bool = True,
) -> Known:
    """Make known data of columns.

    Args:
        texts: shape (rows,); empty ones are left out.
        gold: shape (rows,), the right labels; rows without are left out.
        predicted: shape (rows,), a machine's labels; unknown ones count as none.
        confidence: shape (rows,), its confidences in [0, 1]; needed with ``predicted``.
        votes: source to shape (rows,), labels of several machines; alternatively.
        method: "ensemble" learns from texts and given labels, "weak_model" from texts alone, "imported" takes
            the given labels as they are.
        distinct: keep the first of equal texts only, as the product does.
    Raises: ValueError with one sentence when nothing is left, or the columns cannot be used.
    """
    if method not in METHODS:
        raise ValueError(f"There is no method “{method}” to replay; choose one of {', '.join(METHODS)}.")
    if predicted is not None and confidence is None:
        raise ValueError("Predicted labels need their confidences.")
    keep, seen = [], set()
    for i, (text, label) in enumerate(zip(texts, gold, strict=True)):
        if text.strip() and label and not (distinct and text in seen):
            seen.add(text)
            keep.append(i)
    if len(keep) < 20:
        raise ValueError(f"There are only {len(keep)} different texts with a known label: too few to replay.")
    labels = sorted({gold[i] for i in keep})
    number = {label: k for k, label in enumerate(labels)}
    sources = {"predicted": predicted} if predicted is not None else dict(votes or {})
    table = given = stated = None
    if sources:
        said = np.array([[number.get(column[i], -1) for column in sources.values()] for i in keep], np.int64)
        sure = np.full(said.shape, np.nan)
        if predicted is not None and confidence is not None:
            sure[:, 0] = [float(confidence[i]) for i in keep]
            if not ((sure >= 0) & (sure <= 1)).all():
                raise ValueError("A confidence is a number from 0 to 1.")
        table = VoteTable(said, sure)
        given, stated = _one_label(table, len(labels))
    if method == "imported" and table is None:
        raise ValueError("The method “imported” needs predicted labels and confidences, or votes.")
    return Known(
        [texts[i] for i in keep],
        np.array([number[gold[i]] for i in keep], np.int64),
        len(labels),
        table if method == "ensemble" else None,
        given,
        stated,
        method != "imported",
    )


def _one_label(table: VoteTable, count: int) -> tuple[Ints, Floats]:
    """Return one machine label an item and its confidence: as stated, or the winner's share of the votes."""
    if table.classes.shape[1] == 1 and np.isfinite(table.confidences).all():
        return table.classes[:, 0], table.confidences[:, 0]
    tally = np.stack([(table.classes == k).sum(axis=1) for k in range(count)], axis=1)
    given = np.where(tally.sum(axis=1) > 0, tally.argmax(axis=1), -1)
    return given, tally.max(axis=1) / np.maximum((table.classes >= 0).sum(axis=1), 1)


def backtest(
    known: Known,
    *,
    target: float = 0.95,
    promise: str = "dataset",
    floor: float | None = 0.90,
    alpha: float = 0.05,
    reps: int = 1,
    draws: int = 1,
    seed: int = 0,
    sample: int | None = None,
    reviewer_error: float = 0.0,
    features: TextFeatures | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Replay the whole loop, or one look at a sample, and compare its promise with the truth.

    Args:
        known: from ``prepare``.
        target: share of labels that is promised to be right, in (0, 1).
        promise: "dataset", about all labels, with ``floor`` about the accepted ones; or "accepted".
        floor: share of the accepted labels that must be right, or None.
        alpha: chance of a false certificate, in (0, 1).
        reps: trained courses to replay, each with its own seed items and people.
        draws: certificate samples to draw on each course, cheap beside the learning.
        seed: of the first repetition; not negative.
        sample: size of the one sample ("simple" mode), or None for the whole loop.
        reviewer_error: chance that a reading is wrong, in [0, 1).
        features: of ``known.texts``, if they exist already.
        progress: called with the replays done and those in all, after each.
    Returns: ``summary`` (means over repetitions; ``certified`` and ``violations`` as shares of them, and
        ``true_error_accepted`` over those that accepted anything, else None), ``table`` (what a threshold set
        by hand would do), ``repetitions`` (one row per draw).
    Raises: ValueError with one sentence on an argument outside its range.
    """
    _check(known, target, promise, floor, alpha, reps, draws, sample, reviewer_error, seed)
    asked = Promise(
        _round(1 - target), alpha, None if floor is None else _round(1 - floor), promise == "accepted", reviewer_error
    )  # fmt: skip
    rows: list[dict[str, Any]] = []
    curves: list[list[dict[str, float | None]]] = []
    if sample is None and known.learns and features is None:
        features = TextFeatures.of(known.texts)
    fixed = None if sample is None else promise_for(known, asked, sample)
    for repetition in range(reps):
        at = seed + repetition
        people = People(known, reviewer_error, at)
        course = Course(known, people, seeds_of(at), features)
        frozen: int | None = None
        for draw in range(draws):
            key = at * draws + draw
            outcome = (
                simple(known, asked, sample, key, fixed) if sample else replay(course, asked, seeds_of(key))
            )
            rows.append({"repetition": repetition + 1, "draw": draw + 1, **shares(known, asked, outcome)})
            frozen = outcome.answered_at_freeze if frozen is None else frozen
            if progress is not None:
                progress(len(rows), reps * draws)
        curves.append(_by_hand(known, course, frozen or 0, at))
    return {"summary": _summary(rows), "table": _mean_table(curves), "repetitions": rows}


def _round(share: float) -> float:
    return round(share, 12)  # 1 - 0.95 is 0.050000000000000044


def _check(
    known: Known,
    target: float,
    promise: str,
    floor: float | None,
    alpha: float,
    reps: int,
    draws: int,
    sample: int | None,
    reviewer_error: float,
    seed: int,
) -> None:
    for name, value in (("target", target), ("floor", floor), ("alpha", alpha)):
        if value is not None and not 0 < value < 1:
            raise ValueError(f"The {name} must lie between 0 and 1, not at {value}.")
    if promise not in PROMISES:
        raise ValueError(f"There is no promise “{promise}”; choose one of {', '.join(PROMISES)}.")
    if reps < 1 or draws < 1:
        raise ValueError("At least one repetition is needed.")
    if not 0 <= reviewer_error < 1:
        raise ValueError(f"The reviewer error must be from 0 to below 1, not {reviewer_error}.")
    if seed < 0:
        raise ValueError(f"The seed must not be negative, as {seed} is.")
    if sample is not None and known.given is None:
        raise ValueError("One look at a sample needs predicted labels and confidences, or votes.")
    if sample is not None and not 0 < sample <= len(known.gold):
        raise ValueError(f"The sample must have from 1 to {len(known.gold):,} items, not {sample:,}.")


def _by_hand(known: Known, course: Course, answered: int, seed: int) -> list[dict[str, float | None]]:
    """Return what each threshold would do: on the given labels, else on the course's at its freeze."""
    items = len(known.gold)
    if known.given is not None and known.confidence is not None:
        confidence = np.where(known.given >= 0, known.confidence, 0.0)
        labels, right = known.given, known.given == known.gold
        ranks = to_ranks(confidence, draw_ties(seed, items))
    else:
        course.round(0)
        state = next((r for r in course.rounds if len(r.answers.rows) == answered), course.rounds[-1])
        labels, ranks = state.learned.classes[state.pool], state.learned.ranks[state.pool]
        right = labels == known.gold[state.pool]
    table: list[dict[str, float | None]] = []
    for threshold in THRESHOLDS:
        over: Marks = (ranks >= to_rank(threshold)) & (labels >= 0)
        n = int(over.sum())
        accuracy = float(right[over].mean()) if n else None
        table.append(
            {"threshold": threshold, "auto_accept_rate": n / items, "accuracy": accuracy, "manual_work": 1 - n / items}
        )  # fmt: skip
    return table


def _mean_table(curves: list[list[dict[str, float | None]]]) -> list[dict[str, float | None]]:
    def mean(row: int, key: str) -> float | None:
        values = [value for curve in curves if (value := curve[row][key]) is not None]
        return float(np.mean(values)) if values else None

    return [
        {key: row[key] if key == "threshold" else mean(i, key) for key in row}
        for i, row in enumerate(curves[0])
    ]


def _summary(rows: list[dict[str, Any]]) -> dict[str, float | None]:
    def mean(key: str) -> float | None:
        values = [row[key] for row in rows if row[key] is not None]
        return float(np.mean(values)) if values else None

    return {
        "coverage": mean("coverage"),
        "manual_share": mean("manual_share"),
        "certified": mean("certified"),
        "true_error_dataset": mean("true_error_dataset"),
        "true_error_accepted": mean("true_error_accepted"),
        "violations": mean("violation"),
    }

"""Does every promise keep its word? Simulated on real labels, and on pools made to break it.

    OMP_NUM_THREADS=1 python -m benchmarks.promises [--reps 10000] [--json]

One line a promise: repetitions, broken ones, their share, the largest share that chance explains (alpha and two
standard errors), the exact chance where it is known. Ways marked "naive" are not LabelHub's and have to be beyond the
limit. Leaves with 1 when any line is not as it should be.

Here: machine labels of four data sets whose confidences were shuffled or turned round, and reviewers who slip. The
made pools are in ``benchmarks/borders.py`` and ``benchmarks/peeking.py``. Pools are frozen once; each repetition draws a
fresh sample.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import borders, peeking
from benchmarks.borders import ALPHA, FLOOR, TARGET, Figure, Marks, beyond_chance, figure, walk
from labelhub.autolabel.backtest import backtest, prepare
from labelhub.autolabel.certify import allowed_errors, attempt_alpha, level
from labelhub.autolabel.labelers import Example, build, learn
from labelhub.autolabel.onelook import promise_for
from labelhub.autolabel.playing import Floats, Known, Promise
from labelhub.autolabel.rank import draw_ties, to_ranks
from labelhub.autolabel.sampling import draw

DATA = Path(__file__).resolve().parent.parent / "tests" / "data"
# name: file, who labels (given labels, votes, or the share of the items that a weak model learns from)
CASES: dict[str, tuple[str, str | float]] = {
    "stance, GPT-4o": ("stance_gpt4o", "given"),
    "media bias, 32 votes": ("media_bias_llm_votes", "votes"),
    "sms spam, weak model of 10 %": ("sms_spam", 0.10),
    "banking77, weak model of 10 %": ("banking77", 0.10),
    "banking77, weak model of 5 %": ("banking77", 0.05),
}
ORDERS = ("shuffled", "reversed")
SAMPLE = 500
FIRST = attempt_alpha(ALPHA, 1)
SLIPS = 0.02


@dataclass(frozen=True)
class Pool:
    """A frozen pool: ``wrong`` marks the machine's errors, surest first; ``items`` are those of the dataset."""

    wrong: Marks
    items: int


def simulate(reps: int = 10_000) -> Iterator[Figure]:
    """Yield the figures of every simulation; reviewers who slip are played a fifth as often."""
    for name in CASES:
        known = load(name)
        for order in ORDERS:
            yield from worthless_confidences(name, disturb(known, order), order, reps)
        if "5 %" not in name:
            yield from slips(name, known, max(1000, reps // 5))
    yield from borders.measure(reps)
    yield from peeking.measure(reps)


def measure() -> dict[str, Any]:
    """Return all figures, for ``python -m benchmarks``."""
    figures = [found.as_json() for found in simulate()]
    return {"figures": figures, "all_passed": all(found["passed"] for found in figures)}


def load(name: str, most: int | None = None) -> Known:
    """Return a data set with machine labels, its first ``most`` rows or all; what a model learned from has none."""
    file, who = CASES[name]
    with (DATA / f"{file}.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))[:most]
    rows = list({row["text"]: row for row in reversed(rows)}.values())[::-1]  # the first of equal texts
    texts, gold = [row["text"] for row in rows], [row["gold"] for row in rows]
    if who == "votes":
        votes = {name: [row[name] for row in rows] for name in rows[0] if name.startswith("pred_")}
        return prepare(texts, gold, votes=votes, method="imported")
    if who == "given":
        said = [row["predicted_label"] for row in rows]
        sure = [float(row["confidence"]) for row in rows]
    else:
        said, sure = taught(texts, gold, float(who))
    return prepare(texts, gold, predicted=said, confidence=sure, method="imported")


def taught(texts: list[str], gold: list[str], share: float, seed: int = 0) -> tuple[list[str], list[float]]:
    """Return what a weak model says about the texts that it did not learn from, and "" about the others."""
    order = np.random.default_rng(seed).permutation(len(texts)).tolist()
    lessons, rest = order[: round(share * len(texts))], order[round(share * len(texts)) :]
    schema = dict.fromkeys(sorted(set(gold)), "")
    state = learn("weak_model", schema, [Example(texts[i], gold[i]) for i in lessons], settings={}, seed=seed)
    said, sure = [""] * len(texts), [0.0] * len(texts)
    answers = build("weak_model", schema, state).label([texts[i] for i in rest])
    for i, answer in zip(rest, answers, strict=True):
        said[i], sure[i] = answer.label or "", answer.confidence
    return said, sure


def disturb(known: Known, order: str, seed: int = 0) -> Known:
    """Shuffle the confidences, or turn them round, so that the wrong labels look the surest."""
    assert known.given is not None and known.confidence is not None
    sure, labeled = known.confidence.copy(), known.given >= 0
    sure[labeled] = (
        np.random.default_rng(seed).permutation(sure[labeled]) if order == "shuffled" else 1 - sure[labeled]
    )
    return replace(known, confidence=sure)


def freeze(known: Known, seed: int = 0) -> Pool:
    """Put the labeled items in order, ties broken as the product breaks them."""
    assert known.given is not None and known.confidence is not None
    labeled = np.flatnonzero(known.given >= 0)
    ranks = to_ranks(known.confidence[labeled], draw_ties(seed, len(labeled)))
    order = labeled[np.argsort(-ranks, kind="stable")]
    return Pool(known.given[order] != known.gold[order], len(known.gold))


# Confidences that say nothing, or the opposite


def worthless_confidences(name: str, known: Known, order: str, reps: int) -> Iterator[Figure]:
    pool, promise = freeze(known), Promise(TARGET, FIRST, FLOOR)
    budget, errors = promise_for(known, promise, SAMPLE)
    started = time.perf_counter()
    looks = look(pool, SAMPLE, errors, budget, FLOOR, reps)
    seconds = time.perf_counter() - started
    accepted, missed = looks.T
    broken = (missed > budget) | (missed > FLOOR * accepted)
    rate, limit = pool.wrong.mean(), beyond_chance(reps)
    fact = f"{rate:.1%} of {len(pool.wrong):,} wrong, {accepted.mean() / pool.items:.1%} accepted"
    case = f"{name}, {order}"
    yield Figure(
        "95 % of the dataset, 90 % of the accepted", case, reps, int(broken.sum()), seconds, limit, fact=fact
    )
    if rate > FLOOR:
        some = int((accepted > 0).sum())
        yield Figure("too many are wrong: nothing is accepted", case, reps, some, seconds, limit)
    yield just_missed(case, pool, reps)


def just_missed(case: str, pool: Pool, reps: int) -> Figure:
    """Promise what these labels miss by one, budget and floor alike: every order of them is a worst case."""
    checked, budget, errors = border(pool)
    unseen = len(pool.wrong) - checked

    def broken() -> Marks:
        accepted, missed = look(pool, checked, errors, budget, budget / unseen, reps, seed=1).T
        marks: Marks = (missed > budget) | (missed * unseen > budget * accepted)
        return marks

    return figure(
        "a target and a floor that the labels just miss",
        case,
        broken,
        exact=level(errors, len(pool.wrong), checked, budget),
        fact=f"budget {budget:,} of {int(pool.wrong.sum()):,} wrong",
    )


def look(
    pool: Pool, checked: int, errors: int, budget: int, floor_error: float | None, reps: int, seed: int = 0
) -> borders.Ints:
    """Draw so many samples; return accepted and wrong among them for each, shape (reps, 2)."""
    ids = np.arange(len(pool.wrong))
    found = []
    for repetition in range(reps):
        drawn = np.array(draw(seed * reps + repetition, ids, checked))
        found.append(walk(pool.wrong, drawn, errors, budget, floor_error)[:2])
    return np.array(found)


def border(pool: Pool) -> tuple[int, int, int]:
    """Return sample, budget and allowed errors such that budget + 1 + allowed errors labels are wrong."""
    wrong, size = int(pool.wrong.sum()), len(pool.wrong)
    for checked in range(SAMPLE, 2 * SAMPLE):
        for budget in range(wrong - 1, -1, -1):
            errors = allowed_errors(size, checked, budget, FIRST)
            if errors <= wrong - budget - 1:
                break
        if errors == wrong - budget - 1:
            return checked, budget, errors
    raise ValueError("no promise stands at the border of these labels")


# Reviewers who slip


def slips(name: str, known: Known, reps: int) -> Iterator[Figure]:
    """Play reviewers who err now and then, with second readings (the engine's own replay) and without."""
    floor = None if freeze(known).wrong.mean() > 2 * FLOOR else FLOOR  # beyond it nothing could be accepted
    started = time.perf_counter()
    terms: dict[str, Any] = {"floor": floor and 1 - floor, "reps": reps, "sample": SAMPLE}
    thrice = backtest(known, reviewer_error=SLIPS, **terms)["repetitions"]
    perfect = backtest(known, **terms)["repetitions"]
    seconds = time.perf_counter() - started
    case = f"{name}, {SLIPS:.0%} slips" + ("" if floor else ", no floor")
    yield Figure(
        "truth, disagreements read three times",
        case,
        reps,
        sum(row["violation"] for row in thrice),
        seconds,
        beyond_chance(reps),
        fact=f"{accepted_share([row['coverage'] for row in thrice])}, "
        f"{accepted_share([row['coverage'] for row in perfect])} if nobody slipped",
    )
    started = time.perf_counter()
    broken, accepted = once_read(known, floor, reps)
    yield Figure(
        "truth, every item read once",
        case,
        reps,
        int(broken.sum()),
        time.perf_counter() - started,
        beyond_chance(reps),
        fact=accepted_share(accepted),
    )


def accepted_share(shares: npt.ArrayLike) -> str:
    """Say which share was accepted on average, with its interval of 95 %."""
    each = np.asarray(shares)
    return f"{each.mean():.1%} ± {1.96 * each.std() / math.sqrt(len(each)):.1%} accepted"


def once_read(known: Known, floor: float | None, reps: int, seed: int = 0) -> tuple[Marks, Floats]:
    """Return whether the promise about the truth was broken, and the share accepted, without second readings."""
    assert known.given is not None
    promise = Promise(TARGET, ALPHA, floor, reviewer_error=SLIPS)
    pool, random = freeze(known), np.random.default_rng(seed)
    budget, errors = promise_for(known, promise, SAMPLE)
    broken, share = np.zeros(reps, bool), np.zeros(reps)
    alike = 1 / max(1, known.count - 1)  # chance that a slip hits the very label that the machine chose
    for repetition in range(reps):
        slip = random.random(len(pool.wrong)) < SLIPS
        confirmed = np.where(pool.wrong, slip & (random.random(len(slip)) < alike), ~slip)
        drawn = random.permutation(len(pool.wrong))[:SAMPLE]
        accepted, _, walked = walk(~confirmed, drawn, errors, budget, floor)
        unseen = np.arange(len(pool.wrong)) < walked
        unseen[drawn] = False
        missed = int(pool.wrong[unseen].sum())
        answered = int(slip[~unseen].sum()) + random.binomial(pool.items - len(slip), SLIPS)
        above = floor is not None and missed > floor * accepted
        broken[repetition] = accepted > 0 and (above or missed + answered > TARGET * pool.items)
        share[repetition] = accepted / pool.items
    return broken, share


def table(figures: Iterator[Figure]) -> bool:
    """Print a line for each figure as it comes, and return whether all are as they should be."""
    good = True
    print(f"{'n':>6} {'broken':>6} {'share':>7} {'limit':>7} {'exact':>7} {'seconds':>7}")
    for f in figures:
        exact = "" if f.exact is None else f"{f.exact:.4f}"
        verdict = (
            ("breaks its word, as it must" if f.naive else "kept") if f.passed else "NOT AS IT SHOULD BE"
        )
        name = f"{f.promise}{' (naive)' if f.naive else ''}: {f.case}{f' ({f.fact})' if f.fact else ''}"
        print(
            f"{f.n:>6} {f.violations:>6} {f.share:>7.4f} {f.limit:>7.4f} {exact:>7} {f.seconds:>7.1f}  "
            f"{verdict}: {name}",
            flush=True,
        )
        good = good and f.passed
    return good


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reps", type=int, default=10_000, help="repetitions on made pools; at least 2,000")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.reps < 2000:
        parser.error("under 2,000 repetitions a broken promise could hide behind chance")
    if not options.json:
        return 0 if table(simulate(options.reps)) else 1
    figures = [found.as_json() for found in simulate(options.reps)]
    print(json.dumps(figures, indent=1))
    return 0 if all(found["passed"] for found in figures) else 1


if __name__ == "__main__":
    sys.exit(main())

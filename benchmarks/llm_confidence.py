"""What a language model's stated confidence is worth, alone and beside what people have reviewed.

    OMP_NUM_THREADS=1 python benchmarks/llm_confidence.py [--runs 40] [--sizes 50,100,300,600] [--what-if]
        [--out FILE]

GPT-4o's answers to the 2,046 distinct sentences of ``stance_gpt4o.csv``. Each run draws other reviewed items, learns
from them, and is judged on the rest, resampled with replacement; so the spread of the runs holds both the luck of
what was reviewed and the luck of what is judged. Intervals are mean +- 1.96 standard deviations of the runs. A
difference is paired within the runs. Prints JSON lines.

Of each way, about "is the label right?": accuracy; AUROC; the calibration error (root of the mean square, in bins
of equal size, less what chance alone would add); log-loss in nats; and as shares of the judged items: how many can be
accepted with 95 % of the *accepted* right, how many with 95 % of the *dataset* right once people answer the others
(both with the best threshold in hindsight), and how many a certificate for the latter accepts (sample of 300, alpha
.04, no floor; ``certify``).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # more threads make these small problems slower
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt

from labelhub.autolabel.calibration import fit_platt
from labelhub.autolabel.certify import allowed_errors, certify, tolerated
from labelhub.autolabel.features import TextFeatures
from labelhub.autolabel.labelers import Example, Vote
from labelhub.autolabel.labelers.ensemble import EnsembleLabeler
from labelhub.autolabel.labelers.heads import Head, fit_head
from labelhub.autolabel.labelers.rules import RulesLabeler
from labelhub.autolabel.labelers.stack import STRENGTH, Columns, Stacker, Votes
from labelhub.autolabel.labelers.weak import Evidence, WeakModel, learn_weak
from labelhub.autolabel.scorer import VoteTable, fit_scorer
from labelhub.autolabel.whatif import compare

Floats = npt.NDArray[np.float64]
Marks = npt.NDArray[np.bool_]

STANCE = Path(__file__).resolve().parent.parent / "tests/data/stance_gpt4o.csv"
SIZES = (50, 100, 300, 600)
TARGET = 0.05
SAMPLE, ALPHA, CERTIFICATES = 300, 0.04, 10
BINS = 10
RULES = {  # what one would write without having seen the sentences
    "disagrees": ["hoax", "myth", "alarmist", "natural cycle", "no evidence", "/scar(e|ing)/", "overblown"],
    "agrees": ["scientists warn", "caused by humans", "man-made", "crisis", "urgent", "greenhouse gases"],
}
STATED = "stated confidence"
BEFORE = "stacker, standardised scores"  # as it was before log odds
FIGURES = (
    "accuracy",
    "auroc",
    "calibration_error",
    "log_loss",
    "accepted_right",
    "dataset_right",
    "certified",
)


@dataclass(frozen=True)
class Said:
    """What one way says about the judged items: ``right`` and a probability ``p`` of it, shape (items,)."""

    right: Marks
    p: Floats


def measure(runs: int = 40, sizes: Sequence[int] = SIZES) -> dict[str, Any]:
    """Return, per number of reviewed items, the figures of each way and its lead over the stated confidence."""
    schema, examples, votes = read()
    features = TextFeatures.of([example.text for example in examples])
    return {
        str(n): summarise(
            (judge(ways(schema, examples, votes, features, n, seed), seed) for seed in range(runs)),
            STATED,
            BEFORE,
        )
        | {"judged": len(examples) - n}
        for n in sizes
    }


def read() -> tuple[dict[str, str], list[Example], list[Vote]]:
    """Return the labels, the distinct sentences with their right labels, and GPT-4o's votes on them."""
    with STANCE.open(encoding="utf-8", newline="") as file:
        rows = list({row["text"]: row for row in reversed(list(csv.DictReader(file)))}.values())[::-1]
    schema = dict.fromkeys(sorted({row["gold"] for row in rows}), "")
    votes = [Vote(row["predicted_label"], float(row["confidence"])) for row in rows]
    return schema, [Example(row["text"], row["gold"]) for row in rows], votes


def ways(
    schema: Mapping[str, str],
    examples: Sequence[Example],
    votes: Sequence[Vote],
    features: TextFeatures,
    n: int,
    seed: int,
) -> dict[str, Said]:
    """Learn from ``n`` random items; return what each way says about all others."""
    order = np.random.default_rng([7, seed]).permutation(len(examples))
    labels, known, rest = list(schema), order[:n], order[n:]
    shown, asked = [examples[i] for i in known], [examples[i] for i in rest]
    number = {label: k for k, label in enumerate(labels)}
    gold = np.array([number[e.label] for e in examples])
    cast = np.array([number[vote.label or ""] for vote in votes])
    stated = np.array([vote.score for vote in votes])
    model, evidence = learn_weak(schema, shown, seed=seed)
    assert isinstance(model, WeakModel) and evidence is not None
    texts = [e.text for e in asked]
    log_p, sure = model.judge(texts)
    right = cast[rest] == gold[rest]
    platt = fit_platt(logit(stated[known]), cast[known] == gold[known])
    said = {
        STATED: Said(right, stated[rest]),
        "stated, calibrated": Said(right, platt(logit(stated[rest]))),
        "weak model": Said(log_p.argmax(axis=1) == gold[rest], np.asarray(sure, np.float64)),
    }
    learned = {"llm": [votes[i] for i in known]}
    given = {"llm": [votes[i] for i in rest]}
    for name, written in (("", {}), (" + rules", RULES)):
        ensemble = EnsembleLabeler.combine(model, evidence, shown, written, given_votes=learned)
        chosen = ensemble.label(texts, given)
        ensemble.way = "share"
        for way, answers in (("ensemble", chosen), ("shares", ensemble.label(texts, given))):
            hit = np.array([a.label == e.label for a, e in zip(answers, asked, strict=True)])
            said[way + name] = Said(hit, np.array([a.confidence for a in answers]))
    ruler = RulesLabeler.learn(RULES, shown)
    with_rules = (
        {**learned, "rules": ruler.vote([e.text for e in shown])},
        {
            **given,
            "rules": ruler.vote(texts),
        },
    )
    only_label = tuple({"llm": [Vote(v.label, 1.0) for v in v_["llm"]]} for v_ in (learned, given))
    for name, kind, (train, test) in (
        ("stacker", Stacker, (learned, given)),
        ("stacker + rules", Stacker, with_rules),
        ("stacker, label only", Stacker, only_label),
        ("stacker, no square", NoSquare, (learned, given)),
        (BEFORE, Standardised, (learned, given)),
    ):
        said[name] = stacked(kind, labels, evidence, log_p, train, test, gold[known], gold[rest])
    table = VoteTable(cast[:, None], stated[:, None])
    scores = fit_scorer(features, np.sort(known), gold[np.sort(known)], len(labels), table, seed)
    said["guided path's scorer"] = Said(scores.classes[rest] == gold[rest], expit(scores.x[rest]))
    return said


class Standardised(Stacker):
    """The stacker as it was: each score standardised against the source's others, and its square."""

    @classmethod
    def learn(cls, labels: list[str], log_p: Any, votes: Votes, classes: Any) -> Stacker:
        scores = np.array([vote.score for vote in votes["llm"]])
        scale = (float(scores.mean()), float(scores.std()))
        blank = cls(
            labels, ["llm"], {"llm": scale}, Head(np.empty((0, 0), np.float32), np.empty(0, np.float32))
        )
        columns, count = blank._columns(log_p, votes), len(labels)
        empty = np.eye(count, count * len(columns), dtype=np.float32)
        every = np.concatenate([classes, np.arange(count)])
        head = fit_head(np.vstack([np.hstack(columns), empty]), every, count, STRENGTH)
        return cls(labels, ["llm"], {"llm": scale}, head)


class NoSquare(Stacker):
    """The stacker without the square of the log odds."""

    def _columns(self, log_p: Any, votes: Votes) -> Columns:
        columns = super()._columns(log_p, votes)
        return [column for i, column in enumerate(columns) if i != 3]


def stacked(
    kind: type[Stacker],
    labels: list[str],
    evidence: Evidence,
    log_p: Any,
    learned: Votes,
    given: Votes,
    known: npt.NDArray[np.int64],
    gold: npt.NDArray[np.int64],
) -> Said:
    """Fit a stacker on the reviewed items, in their order, and let it judge the rest."""
    rows = evidence.rows.tolist()
    sorted_votes = {source: [cast[i] for i in rows] for source, cast in learned.items()}
    stacker = kind.learn(labels, evidence.log_p, sorted_votes, known[evidence.rows])
    p = np.exp(stacker.log_probabilities(log_p, given))
    return Said(p.argmax(axis=1) == gold, p.max(axis=1))


def judge(said: Mapping[str, Said], seed: int) -> dict[str, dict[str, float]]:
    """Return the figures of each way, on the same resampled items in the same order of equals."""
    random = np.random.default_rng([11, seed])
    items = len(next(iter(said.values())).right)
    drawn, ties = random.integers(0, items, items), random.random(items)
    samples = [random.permutation(items)[:SAMPLE] for _ in range(CERTIFICATES)]
    return {
        way: figures(one.right[drawn], np.asarray(one.p, np.float64)[drawn], ties, samples)
        for way, one in said.items()
    }


def figures(right: Marks, p: Floats, ties: Floats, samples: Sequence[Any]) -> dict[str, float]:
    """Return FIGURES for probabilities that labels are right; ``ties`` orders equals, larger first."""
    n = len(right)
    order = np.lexsort((ties, p))[::-1]
    wrong = np.cumsum(~right[order])
    kept = np.flatnonzero(wrong <= TARGET * np.arange(1, n + 1))
    budget = tolerated(n, TARGET)
    within = np.flatnonzero(wrong <= budget)
    errors = allowed_errors(n, SAMPLE, budget, ALPHA)
    accepted = [
        len(certify(order.tolist(), s.tolist(), s[~right[s]].tolist(), errors, budget).accepted)
        for s in samples
    ]
    q = np.clip(p, 1e-3, 1 - 1e-3)
    return {
        "accuracy": float(right.mean()),
        "auroc": auroc(p, right),
        "calibration_error": calibration_error(p, right),
        "log_loss": float(-np.where(right, np.log(q), np.log(1 - q)).mean()),
        "accepted_right": (int(kept[-1]) + 1) / n if len(kept) else 0.0,
        "dataset_right": (int(within[-1]) + 1) / n if len(within) else 0.0,
        "certified": float(np.mean(accepted)) / n,
    }


def auroc(p: Floats, right: Marks) -> float:
    """Return the chance that a right label is surer than a wrong one, equals counting half."""
    from scipy.stats import rankdata

    wins, losses = int(right.sum()), int((~right).sum())
    return float((rankdata(p)[right].sum() - wins * (wins + 1) / 2) / (wins * losses))


def calibration_error(p: Floats, right: Marks) -> float:
    """Return the root mean square of (confidence - accuracy) over bins of equal size, without the part of chance.

    Equal confidences stay in one bin. Each bin's square is lowered by the variance of its accuracy, else even a
    perfectly calibrated score would seem wrong.
    Source: Kumar, Liang and Ma (2019), "Verified uncertainty calibration", the debiased estimator.
    """
    edges = np.unique(np.quantile(p, np.linspace(0, 1, BINS + 1)[1:-1]))
    number = np.searchsorted(edges, p, side="right")
    total = 0.0
    for i in np.unique(number).tolist():
        here = number == i
        n, hit = int(here.sum()), float(right[here].mean())
        if n > 1:
            total += n * ((float(p[here].mean()) - hit) ** 2 - hit * (1 - hit) / (n - 1))
    return float(np.sqrt(max(total, 0.0) / len(p)))


def summarise(runs: Iterator[dict[str, dict[str, float]]], *references: str) -> dict[str, Any]:
    """Return mean and interval of each figure of each way, and of its lead over each reference."""
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    count = 0
    for run in runs:
        count += 1
        for way, found in run.items():
            for figure, value in found.items():
                values[way][figure].append(value)
    return {
        "runs": count,
        "ways": {way: {f: spread(v) for f, v in found.items()} for way, found in values.items()},
        **{
            f"minus {reference}": {
                way: {f: spread(np.subtract(v, values[reference][f])) for f, v in found.items()}
                for way, found in values.items()
                if way != reference
            }
            for reference in references
        },
    }


def spread(values: npt.ArrayLike) -> list[float]:
    """Return mean, and mean -+ 1.96 standard deviations of the runs."""
    found = np.asarray(values, np.float64)
    middle, half = float(found.mean()), 1.96 * float(found.std(ddof=1)) if len(found) > 1 else float("nan")
    return [round(middle, 4), round(middle - half, 4), round(middle + half, 4)]


def measure_what_if(runs: int = 40, sizes: Sequence[int] = (100, 300)) -> dict[str, Any]:
    """Return what ``whatif.compare`` says of the same answers with and without their stated confidence.

    Of each line and number of reviewed items: mean coverage at 95 %, mean width of its interval, and the share of
    the runs in which it was distinguishable from the best.
    """
    schema, examples, votes = read()
    flat = [Vote(vote.label, 1.0) for vote in votes]
    report: dict[str, Any] = {}
    for n in sizes:
        found: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
        for seed in range(runs):
            rows = np.random.default_rng([7, seed]).permutation(len(examples))[:n].tolist()
            for line in compare(
                [examples[i].text for i in rows],
                [examples[i].label for i in rows],
                schema,
                votes={"Stated": [votes[i] for i in rows], "Label only": [flat[i] for i in rows]},
                pool=len(examples) - n,
                target_error=TARGET,
                seed=seed,
            ):
                width = line.coverage.high - line.coverage.low
                found[line.name].append((line.coverage.value, width, float(line.distinguishable)))
        means = {name: np.mean(values, axis=0).round(3).tolist() for name, values in found.items()}
        report[str(n)] = {
            name: dict(zip(("coverage", "width", "distinguishable"), values, strict=True))
            for name, values in means.items()
        }
    return report


def logit(p: Floats) -> Floats:
    """Return log odds of probabilities, cut at .001 and .999."""
    q = np.clip(p, 1e-3, 1 - 1e-3)
    return np.asarray(np.log(q / (1 - q)), np.float64)


def expit(x: Floats) -> Floats:
    """Return probabilities of log odds."""
    return np.asarray(1 / (1 + np.exp(-x)), np.float64)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--what-if", action="store_true", help="figures of whatif.compare instead")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.what_if:
        report = measure_what_if(options.runs)
    else:
        report = measure(options.runs, [int(n) for n in options.sizes.split(",")])
    for n, found in report.items():
        print(json.dumps({n: found}), flush=True)
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""How right the weak model is after how many examples, how long it learns, and how fast it labels.

    OMP_NUM_THREADS=1 python benchmarks/weak_model.py [--seeds 3] [--out FILE]

Prints JSON. Accuracy is that of a model trained on a random share of a data set, on all the rest, over the
seeds together; its interval is Wilson's at 95 %, for one model. Speeds are medians of three runs over 20,000
texts of about 200 characters, in one process that has not seen them before.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

os.environ.setdefault("OMP_NUM_THREADS", "1")  # more threads make these small problems slower
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from labelhub.autolabel.buckets import wilson
from labelhub.autolabel.calibration import reliability_curve
from labelhub.autolabel.labelers import Example, Vote, build, learn
from labelhub.autolabel.labelers.views import Pieces, static_table
from labelhub.autolabel.labelers.weak import WeakLabeler, WeakModel

DATA = Path(__file__).parent.parent / "tests" / "data"
SHARES = {
    "sms_spam": (0.01, 0.10),
    "banking77": (0.05, 0.10),
    "stance_gpt4o": (0.10, 0.20),
    "media_bias_llm_votes": (0.10, 0.20),
}
LENGTH = 200
TEXTS = 20_000
Thing = TypeVar("Thing")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    text = json.dumps(measure(options.seeds), indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


def measure(seeds: int = 3) -> dict[str, Any]:
    """Return accuracy on what was not learned from, for several shares of examples, and texts per second."""
    report: dict[str, Any] = {"accuracy": [], "speed": []}
    for name, shares in SHARES.items():
        rows = read(name)
        for share in (0.0, *shares):
            report["accuracy"].append(accuracy(name, rows, share, "weak_model", seeds))
            if share and "predicted_label" in rows[0]:
                report["accuracy"].append(accuracy(name, rows, share, "ensemble", seeds))
    for name in ("sms_spam", "banking77"):
        report["speed"].append(speed(name, read(name)))
    return report


def read(name: str) -> list[dict[str, str]]:
    with (DATA / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def accuracy(name: str, rows: list[dict[str, str]], share: float, method: str, seeds: int) -> dict[str, Any]:
    """Train on a random share of the rows, label the rest, compare with the reference labels."""
    schema = dict.fromkeys(sorted({row["gold"] for row in rows}), "")
    n = round(share * len(rows))
    right: list[np.ndarray[Any, Any]] = []
    sure: list[np.ndarray[Any, Any]] = []
    seconds, size = [], 0
    for seed in range(seeds if n else 1):
        order = np.random.default_rng(seed).permutation(len(rows)).tolist()
        train, rest = [rows[i] for i in order[:n]], [rows[i] for i in order[n:]]
        examples = [Example(row["text"], row["gold"]) for row in train]
        given = {"imported": votes(train)} if method == "ensemble" else None
        started = time.perf_counter()
        state = learn(
            method,
            schema,
            examples,
            settings={},
            seed=seed,
            given_votes=given,
            texts=[r["text"] for r in rest[:2000]],
        )
        seconds.append(time.perf_counter() - started)
        asked = {"imported": votes(rest)} if method == "ensemble" else None
        answers = build(method, schema, state).label([row["text"] for row in rest], asked)
        right.append(np.array([a.label == row["gold"] for a, row in zip(answers, rest, strict=True)]))
        sure.append(np.array([a.confidence for a in answers]))
        size = max(size, len(state))
    every, confidence = np.concatenate(right), np.concatenate(sure)
    n_one = len(right[0])  # the splits share texts: the interval is that of one
    low, high = wilson(round(float(every.mean()) * n_one), n_one)
    bins = reliability_curve(confidence, every)
    gap = sum(b.n * abs(b.confidence - b.accuracy) for b in bins if b.n) / len(every)
    return {
        "data": name,
        "method": method,
        "examples": n,
        "n": len(right[0]),
        "seeds": len(right),
        "accuracy": round(float(every.mean()), 4),
        "interval": [round(low, 4), round(high, 4)],
        "per_seed": [round(float(r.mean()), 4) for r in right],
        "calibration_gap": round(gap, 4),
        "area_under_risk_coverage": round(
            float(np.mean([risk(r, s) for r, s in zip(right, sure, strict=True)])), 4
        ),
        "fit_seconds": round(statistics.median(seconds), 2),
        "state_megabytes": round(size / 1e6, 2),
    }


def votes(rows: list[dict[str, str]]) -> list[Vote]:
    return [Vote(row["predicted_label"], float(row["confidence"])) for row in rows]


def risk(right: np.ndarray[Any, Any], sure: np.ndarray[Any, Any]) -> float:
    """Mean error of the surest 1, 2, ... n: small when the wrong ones are at the bottom."""
    wrong = ~right[np.argsort(-sure, kind="stable")]
    return float((wrong.cumsum() / np.arange(1, len(wrong) + 1)).mean())


def speed(name: str, rows: list[dict[str, str]]) -> dict[str, Any]:
    """Measure labeling in texts a second, with a model trained on a tenth of the rows."""
    schema = dict.fromkeys(sorted({row["gold"] for row in rows}), "")
    order = np.random.default_rng(0).permutation(len(rows)).tolist()
    examples = [Example(rows[i]["text"], rows[i]["gold"]) for i in order[: len(rows) // 10]]
    texts = stretch([rows[i]["text"] for i in order], np.random.default_rng(1))
    state = learn("weak_model", schema, examples, settings={}, seed=0)
    quick = learn("weak_model", schema, examples, settings={"fast": True}, seed=0)

    def fresh(state: bytes) -> WeakLabeler:
        static_table()[0].clear()
        labeler = build("weak_model", schema, state)
        assert isinstance(labeler, WeakLabeler)
        return labeler

    def word_view(labeler: WeakLabeler) -> object:
        assert isinstance(labeler.model, WeakModel)
        return labeler.model.heads["word"].log_probabilities(labeler.model.word.see(Pieces(texts)))

    def slices(labeler: WeakLabeler) -> object:
        return [labeler.label(texts[i : i + 500]) for i in range(0, len(texts), 500)]

    model = fresh(state).model
    assert isinstance(model, WeakModel)
    seen = model.word.see(Pieces(texts))
    return {
        "data": name,
        "classes": len(schema),
        "texts": len(texts),
        "mean_characters": round(statistics.mean(map(len, texts)), 1),
        "texts_per_second": {
            "word_view": rate(lambda: fresh(state), word_view),
            "three_views": rate(lambda: fresh(state), lambda labeler: labeler.label(texts)),
            "three_views_500_at_a_time": rate(lambda: fresh(state), slices),
            "fast_mode": rate(lambda: fresh(quick), lambda labeler: labeler.label(texts)),
            "from_cached_word_features": rate(
                lambda: model, lambda m: m.heads["word"].log_probabilities(seen)
            ),
        },
    }


def stretch(texts: list[str], random: np.random.Generator) -> list[str]:
    """Return texts of about LENGTH characters, made of real ones set one after the other."""
    made: list[str] = []
    while len(made) < TEXTS:
        words = " ".join(texts[i] for i in random.permutation(len(texts)).tolist())
        made += [words[i : i + LENGTH] for i in range(0, len(words), LENGTH)]
    return made[:TEXTS]


def rate(prepare: Callable[[], Thing], work: Callable[[Thing], object]) -> int:
    seconds = []
    for _ in range(3):
        thing = prepare()
        started = time.perf_counter()
        work(thing)
        seconds.append(time.perf_counter() - started)
    return round(TEXTS / statistics.median(seconds))


if __name__ == "__main__":
    main()

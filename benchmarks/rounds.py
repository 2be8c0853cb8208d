"""What a round of the loop costs on large datasets: seconds and memory, by number of items.

    OMP_NUM_THREADS=1 python -m benchmarks.rounds [--million] [--json]

Per data set and size, each in a process of its own: ``load_or_make`` of features that are not there yet; the
same again in a new process, as a worker would; then one ``fit_scorer`` with 10 % of the items answered (at most
5,000) and one ``planner.advice``. Memory is the most that a process had resident, files mapped from disk included.

The texts are made: the first words of one text and the last words of another with the same label, from
tests/data/banking77.csv (77 labels) and sms_spam.csv (2 labels; there the word and character views vote too). So
the speeds are real and the accuracies are not. --million adds 1,000,000 items: ten minutes and 3 GB.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # more threads make these small problems slower
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from labelhub.autolabel import planner
from labelhub.autolabel.calibration import calibrate
from labelhub.autolabel.certify import attempt_alpha, tolerated
from labelhub.autolabel.feature_store import load_or_make
from labelhub.autolabel.scorer import fit_scorer

DATA = Path(__file__).parent.parent / "tests" / "data"
NAMES = ("banking77", "sms_spam")
SIZES = (10_000, 100_000)
MILLION = 1_000_000
MOST_ANSWERED = 5_000


def measure(sizes: tuple[int, ...] = SIZES) -> list[dict[str, Any]]:
    return [measure_size(name, items) for items in sizes for name in NAMES]


def measure_size(name: str, items: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        first = alone(make, name, items, folder)
        again = alone(play, name, items, folder)
        kept = sum(path.stat().st_size for path in Path(folder).iterdir())
    return {"data": name, "items": items, **first, **again, "kept_megabytes": round(kept / 1e6)}


def alone(work: Any, *arguments: Any) -> Any:
    """Run a function in a new process, for its own memory."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def make(name: str, items: int, folder: str) -> dict[str, Any]:
    texts, _ = recombine(name, items)
    seconds = timed(load_or_make, Path(folder), texts)[0]
    return {"make_seconds": seconds, "make_megabytes": resident()}


def play(name: str, items: int, folder: str) -> dict[str, Any]:
    texts, gold = recombine(name, items)
    load_seconds, features = timed(load_or_make, Path(folder), texts)
    answered = np.random.default_rng(0).permutation(items)[: min(items // 10, MOST_ANSWERED)]
    count = int(gold.max()) + 1
    round_seconds, scores = timed(fit_scorer, features, answered, gold[answered], count)
    pool = np.setdiff1d(np.arange(items), answered)
    pool = pool[np.argsort(-scores.x[pool], kind="stable")]
    p = calibrate(scores.oof_x, scores.right, np.ones(len(answered)), scores.x[pool])
    terms = (len(answered), items, tolerated(items, 0.05), attempt_alpha(0.05, 1), 0.1)
    advice_seconds = timed(planner.advice, p, *terms)[0]
    return {
        "load_seconds": load_seconds,
        "answered": len(answered),
        "round_seconds": round_seconds,
        "advice_seconds": advice_seconds,
        "round_megabytes": resident(),
        "accuracy_of_made_texts": round(float((scores.classes == gold)[pool].mean()), 4),
    }


def recombine(name: str, items: int) -> tuple[list[str], np.ndarray[Any, Any]]:
    """Return texts made of two real ones with the same label each, and their classes."""
    with (DATA / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["gold"], row["text"].split()) for row in csv.DictReader(file)]
    names = sorted({label for label, _ in rows})
    alike = defaultdict(list)
    for label, words in rows:
        alike[label].append(words)
    random = np.random.default_rng(0)
    texts, gold = [], np.empty(items, np.int64)
    drawn = zip(
        random.integers(len(rows), size=items).tolist(), random.random((items, 2)).tolist(), strict=True
    )
    for i, (one, (share, other)) in enumerate(drawn):
        label, words = rows[one]
        ends = alike[label][int(other * len(alike[label]))]
        texts.append(" ".join(words[: round(share * len(words))] + ends[round(share * len(ends)) :]))
        gold[i] = names.index(label)
    return texts, gold


def timed(work: Any, *arguments: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work(*arguments)
    return round(time.perf_counter() - started, 2), result


def resident() -> int:
    """Return the most memory that this process had resident, in megabytes."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)


def table(rows: list[dict[str, Any]]) -> str:
    columns = [name for name in rows[0] if name != "accuracy_of_made_texts"]
    cells = [[name.replace("_", " ") for name in columns]]
    cells += [[f"{row[c]:,}" if isinstance(row[c], int) else str(row[c]) for c in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in cells)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--million", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = measure((*SIZES, MILLION) if options.million else SIZES)
    print(json.dumps(rows, indent=1) if options.json else table(rows))


if __name__ == "__main__":
    main()

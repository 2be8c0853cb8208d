"""What a certified dataset costs in people's answers, and whether the promise holds, on real data.

    OMP_NUM_THREADS=1 python -m benchmarks certified_loop
    OMP_NUM_THREADS=1 python benchmarks/certified_loop.py [--data sms_spam,stance] [--runs 3] [--draws 200] [--out FILE]

Each run learns anew from other random items; on each, many certificate samples are drawn. Prints, per data set,
the share of the items that people had to answer (mean over all draws; the range is that of the runs' means),
and how often the promise was broken: data set at least 95 % right, accepted labels at least 90 % right
(except "no floor"). ``stance_rows`` keeps the 253 repeated rows of that file, as earlier published figures do.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from labelhub.autolabel.backtest import backtest, prepare
from labelhub.autolabel.playing import Known
from labelhub.autolabel.scorer import TextFeatures

DATA = Path(__file__).parent.parent / "tests" / "data"
FEW_DRAWS = {
    "stance": 5
}  # where most first samples prove nothing: after each of them the loop learns on anew
# name: file, given labels, runs, floor, keep equal texts, goal in % of the items
CASES: dict[str, tuple[str, str, int, float | None, bool, float | None]] = {
    "sms_spam": ("sms_spam.csv", "", 8, 0.90, False, 8.0),
    "media_bias": ("media_bias_llm_votes.csv", "votes", 8, 0.90, False, 34.0),
    "stance": ("stance_gpt4o.csv", "predicted", 3, 0.90, False, None),
    "stance_no_floor": ("stance_gpt4o.csv", "predicted", 3, None, False, None),
    "stance_rows_no_floor": ("stance_gpt4o.csv", "predicted", 4, None, True, 65.0),
    "banking77": ("banking77.csv", "", 3, 0.90, False, 26.0),
}


def measure(names: list[str] | None = None, runs: int | None = None, draws: int = 200) -> dict[str, Any]:
    return {name: measure_case(name, runs, draws) for name in names or CASES}


def measure_case(name: str, runs: int | None, draws: int, seed: int = 0) -> dict[str, Any]:
    file, given, usual, floor, repeated, goal = CASES[name]
    known = load(file, given, repeated)
    draws = min(draws, FEW_DRAWS.get(name, draws))
    started = time.perf_counter()
    features = TextFeatures.of(known.texts)
    seen = time.perf_counter() - started
    result = backtest(known, floor=floor, reps=runs or usual, draws=draws, seed=seed, features=features)
    by_run = defaultdict(list)
    for row in result["repetitions"]:
        by_run[row["repetition"]].append(row)
    manual = [100 * statistics.mean(row["manual_share"] for row in rows) for rows in by_run.values()]
    rows = result["repetitions"]
    summary = result["summary"]
    return {
        "items": len(known.texts),
        "classes": known.count,
        "runs": len(manual),
        "draws_per_run": draws,
        "manual_percent": round(statistics.mean(manual), 1),
        "range": [round(min(manual), 1), round(max(manual), 1)],
        "goal_percent": goal,
        "certified": round(summary["certified"], 3),
        "second_attempts": round(statistics.mean(row["attempts"] == 2 for row in rows), 3),
        "violations": round(summary["violations"], 4),
        "worst_run_violations": max(statistics.mean(row["violation"] for row in r) for r in by_run.values()),
        "error_dataset": round(summary["true_error_dataset"], 4),
        "error_accepted": summary["true_error_accepted"] and round(summary["true_error_accepted"], 4),
        "answered_at_freeze_percent": round(
            100 * statistics.mean(row["answered_at_freeze"] for row in rows) / len(known.texts), 1
        ),
        "sample": round(statistics.mean(row["sample"] for row in rows)),
        "feature_seconds": round(seen, 1),
        "seconds": round(time.perf_counter() - started, 1),
    }


def load(file: str, given: str, repeated: bool) -> Known:
    with (DATA / file).open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))

    def column(name: str) -> list[str]:
        return [row[name] for row in rows]

    extra: dict[str, Any] = {}
    if given == "votes":
        extra["votes"] = {name: column(name) for name in rows[0] if name.startswith("pred_")}
    elif given == "predicted":
        stated = [float(value) for value in column("confidence")]
        extra = {"predicted": column("predicted_label"), "confidence": stated}
    return prepare(column("text"), column("gold"), distinct=not repeated, **extra)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=",".join(CASES))
    parser.add_argument("--runs", type=int)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the first run")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    for name in options.data.split(","):
        figures[name] = measure_case(name, options.runs, options.draws, options.seed)
        print(json.dumps({name: figures[name]}), flush=True)
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()

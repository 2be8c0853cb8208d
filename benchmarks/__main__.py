"""`make bench`: run every benchmark, or those named, and print their figures as JSON lines."""

from __future__ import annotations

import importlib
import json
import sys

BENCHMARKS = (
    "stated_confidence", "weak_model", "main_path", "certified_loop", "promises", "rounds",
    "llm_confidence", "ensemble_votes", "injection", "llm_throughput",
)  # fmt: skip


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"No benchmark is called {unknown[0]}; there are {', '.join(BENCHMARKS)}.", file=sys.stderr)
        return 1
    for name in names or BENCHMARKS:
        module = importlib.import_module(f"benchmarks.{name}")
        print(json.dumps({name: module.measure()}, indent=1), flush=True)
    return 0


sys.exit(main(sys.argv[1:]))

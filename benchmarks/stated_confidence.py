"""How often labels with a stated confidence of 0.85 or more are right, on recorded answers of a language model."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from labelhub.autolabel.buckets import wilson

STANCE = Path(__file__).resolve().parent.parent / "tests/data/stance_gpt4o.csv"


def measure(threshold: float = 0.85) -> dict[str, Any]:
    """Return the share right among the rows at or above the threshold, its n and a 95 % interval (Wilson)."""
    with STANCE.open(encoding="utf-8", newline="") as file:
        right = [
            row["predicted_label"] == row["gold"]
            for row in csv.DictReader(file)
            if float(row["confidence"]) >= threshold
        ]
    low, high = wilson(sum(right), len(right))
    share = sum(right) / len(right)
    return {
        "threshold": threshold,
        "right": round(share, 4),
        "interval": [round(low, 4), round(high, 4)],
        "n": len(right),
    }


if __name__ == "__main__":
    print(json.dumps(measure()))

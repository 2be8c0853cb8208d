"""Make the sample dataset "Bank support questions" from tests/data/banking77.csv.

Ten of the 77 intents with all their rows; about 150 rows, drawn with a fixed seed, keep their label in the column
`intent`, the rest is left for LabelHub. Run it again after changing a definition: `python benchmarks/make_sample.py`.
"""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "tests" / "data" / "banking77.csv"
TARGET = ROOT / "datasets" / "samples" / "bank_support_questions.csv"
GIVEN = 150
SEED = 77

LABELS = {
    "card_arrival": 'A card that was ordered has not come yet: "my card has not arrived", tracking it.',
    "cash_withdrawal_charge": "A fee for taking cash from a machine.",
    "change_pin": 'How and where to set another PIN: "change my PIN".',
    "declined_card_payment": "Paying with the card in a shop or online was refused.",
    "exchange_rate": 'How the rate between two currencies is set: "exchange rate".',
    "lost_or_stolen_card": 'The card is gone and should be blocked: "lost my card", "stolen card".',
    "request_refund": "Money for something bought should come back.",
    "terminate_account": 'Leaving the bank: "close my account", "delete my account".',
    "top_up_failed": "Putting money on the account did not work.",
    "verify_my_identity": "What proof of identity is wanted, and how to give it.",
}


def main() -> None:
    with SOURCE.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["gold"] in LABELS]
    draw = random.Random(SEED)
    draw.shuffle(rows)
    given = set(draw.sample(range(len(rows)), GIVEN))
    TARGET.parent.mkdir(exist_ok=True)
    with TARGET.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "question", "intent"])
        for n, row in enumerate(rows):
            writer.writerow([row["item_id"], row["text"], row["gold"] if n in given else ""])
    facts = {
        "name": "Bank support questions",
        "source": "Sample: 10 of the 77 intents of banking77 by PolyAI (Casanueva and others, 2020), "
        "github.com/PolyAI-LDN/task-specific-datasets, licence CC BY 4.0",
        "mapping": {"text": ["question"], "id": "id", "label": "intent"},
        "labels": [
            {"name": name, "definition": definition, "rules": ""} for name, definition in LABELS.items()
        ],
    }
    TARGET.with_suffix(".json").write_text(
        json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    print(f"{len(rows):,} rows, {GIVEN} of them with a label: {TARGET.relative_to(ROOT)}")


if __name__ == "__main__":
    main()

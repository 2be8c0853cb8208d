"""What asking a language model again, or another model, is worth: accuracy and coverage for asks per item.

    OMP_NUM_THREADS=1 python benchmarks/ensemble_votes.py [--runs 40] [--sizes 100,300,600] [--model gpt_3_5]
        [--second gpt_4_2shot_cot] [--out FILE]

The 3,020 distinct sentences of ``media_bias_llm_votes.csv``. One model's four prompts stand for four wordings of a
question. The best of them is asked first, so that further asks cannot win merely by being better prompts. No
confidence was stated, so an item is *unsure* where the first ask and the weak model differ or the weak model is
less than 90 % sure; of reviewed items the weak model speaks out of fold. The *least sure half* is that of a stacker
which knows the first ask and the weak model. Where a way is called "+ weak", a stacker
combines the votes with the weak model; "with share" gives it one more column, the share of asks that agree, and
"share alone" only that. ``asks`` counts those of the first model, ``second_asks`` those of the second. Runs, intervals and figures as in ``llm_confidence``.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.llm_confidence import Floats, Marks, Said, expit, judge, summarise
from labelhub.autolabel.features import TextFeatures
from labelhub.autolabel.labelers import Example, Vote
from labelhub.autolabel.labelers.ensemble import agreed
from labelhub.autolabel.labelers.heads import margins
from labelhub.autolabel.labelers.stack import Stacker
from labelhub.autolabel.labelers.weak import WeakModel, learn_weak
from labelhub.autolabel.scorer import VoteTable, fit_scorer
from labelhub.autolabel.types import ABSTENTION

MEDIA_BIAS = Path(__file__).resolve().parent.parent / "tests/data/media_bias_llm_votes.csv"
MODEL, SECOND = "gpt_3_5", "gpt_4_2shot_cot"
PROMPTS = ("8shot_cot", "2shot_cot", "8shot", "0shot")
SIZES = (100, 300, 600)
SURE = 0.9
REFERENCE = "1 ask + weak"

Given = dict[str, list[Vote]]
Where = Mapping[str, Marks]  # source: where it is asked


def measure(
    runs: int = 40, sizes: Sequence[int] = SIZES, model: str = MODEL, second: str = SECOND
) -> dict[str, Any]:
    """Return, per number of reviewed items, the figures of each way and its lead over one ask and the weak model."""
    examples, votes = read(model, second)
    features = TextFeatures.of([example.text for example in examples])
    return {
        str(n): summarise(
            (ways(examples, votes, features, n, seed) for seed in range(runs)),
            REFERENCE,
        )
        | {"judged": len(examples) - n}
        for n in sizes
    }


def read(model: str, second: str) -> tuple[list[Example], Given]:
    """Return the distinct sentences with their labels, and the votes on them by source, the first ask first."""
    with MEDIA_BIAS.open(encoding="utf-8", newline="") as file:
        rows = list({row["text"]: row for row in csv.DictReader(file)}.values())
    examples = [Example(row["text"], row["gold"]) for row in rows]

    def right(prompt: str) -> int:
        return sum(row[f"pred_{model}_{prompt}"] == row["gold"] for row in rows)

    best_first = sorted(PROMPTS, key=right, reverse=True)
    columns = {"llm" if i == 0 else f"llm_{i + 1}": f"{model}_{p}" for i, p in enumerate(best_first)}
    return examples, {
        source: [Vote(row[f"pred_{column}"], 1.0) if row[f"pred_{column}"] else ABSTENTION for row in rows]
        for source, column in {**columns, "llm_second": second}.items()
    }


def ways(
    examples: Sequence[Example], votes: Given, features: TextFeatures, n: int, seed: int
) -> dict[str, dict[str, float]]:
    """Learn from ``n`` random items; return the figures of each way on all others, with its asks per item."""
    order = np.random.default_rng([7, seed]).permutation(len(examples))
    known, rest = order[:n], order[n:]
    labels = sorted({e.label for e in examples})
    gold = np.array([labels.index(e.label) for e in examples])
    model, evidence = learn_weak(dict.fromkeys(labels, ""), [examples[i] for i in known], seed=seed)
    assert isinstance(model, WeakModel) and evidence is not None and model.platt is not None
    log_p = np.empty((len(examples), len(labels)))
    log_p[rest] = model.judge([examples[i].text for i in rest])[0]
    known = known[evidence.rows]
    log_p[known] = evidence.log_p
    weak, sure = log_p.argmax(axis=1), model.platt(margins(log_p))
    cast = {source: numbers(said, labels) for source, said in votes.items()}
    differ = weak != cast["llm"]
    unsure, every = differ | (sure < SURE), np.ones(len(gold), bool)
    asks = [source for source in votes if source != "llm_second"]
    said: dict[str, Said] = {}
    cost: dict[str, dict[str, float]] = {"weak": {"asks": 0.0, "second_asks": 0.0}}
    asked: dict[str, Where] = {}

    def combine(given: Given) -> Floats:
        """Return P(label) of all items by a stacker that learned from the reviewed ones."""
        stacker = Stacker.learn(labels, log_p[known], pick(given, known), gold[known])
        return np.asarray(np.exp(stacker.log_probabilities(log_p, given)), np.float64)

    def way(name: str, where: Where, *, stack: bool = True, extra: str = "") -> None:
        given = {
            s: [vote if ask else ABSTENTION for vote, ask in zip(votes[s], w.tolist(), strict=True)]
            for s, w in where.items()
        }
        asked[name] = where
        cost[name] = {"asks": 0.0, "second_asks": 0.0}
        for source, w in where.items():
            cost[name]["second_asks" if source == "llm_second" else "asks"] += float(w[rest].mean())
        together = [agreed(dict(zip(given, row, strict=True))) for row in zip(*given.values(), strict=True)]
        if not stack:
            said[name] = Said(
                numbers(together, labels)[rest] == gold[rest], np.array([together[i].score for i in rest])
            )
            return
        if extra == "in place":
            given = {"llm": together, **{s: v for s, v in given.items() if s == "llm_second"}}
        elif extra:
            given["asks"] = together
        p = combine(given)
        said[name] = Said(p[rest].argmax(axis=1) == gold[rest], p[rest].max(axis=1))

    said["weak"] = Said(weak[rest] == gold[rest], np.asarray(sure[rest], np.float64))
    way("1 ask", {"llm": every}, stack=False)
    way(REFERENCE, {"llm": every})
    surety = combine({"llm": votes["llm"]}).max(axis=1)
    half = surety < np.median(surety[rest])
    for k in range(2, len(asks) + 1):
        way(f"{k} asks of all", dict.fromkeys(asks[:k], every), stack=False)
        way(f"{k} asks of all + weak", dict.fromkeys(asks[:k], every))
        way(f"{k} asks of all + weak, with share", dict.fromkeys(asks[:k], every), extra="beside")
        way(f"{k} asks of all + weak, share alone", dict.fromkeys(asks[:k], every), extra="in place")
        way(f"{k} asks where unsure + weak", {"llm": every, **dict.fromkeys(asks[1:k], unsure)})
        where = {"llm": every, **dict.fromkeys(asks[1:k], half)}
        way(f"{k} asks of the least sure half + weak", where)
        way(f"{k} asks of the least sure half + weak, with share", where, extra="beside")
        way(f"{k} asks of the surest half + weak", {"llm": every, **dict.fromkeys(asks[1:k], ~half)})
    way("1 ask, second where they differ + weak", {"llm": every, "llm_second": differ})
    way("1 ask, second where unsure + weak", {"llm": every, "llm_second": unsure})
    way("1 ask, second of the least sure half + weak", {"llm": every, "llm_second": half})
    way("1 ask, second of the surest half + weak", {"llm": every, "llm_second": ~half})
    way("1 ask, second of all + weak", {"llm": every, "llm_second": every})
    way("second of all, alone + weak", {"llm_second": every})
    split = differ | (unsure & any_differs([cast[s] for s in asks[:3]]))
    where = {"llm": every, **dict.fromkeys(asks[1:3], unsure), "llm_second": split}
    way("3 asks where unsure, second where they differ + weak", where)
    way("3 asks where unsure, second where they differ + weak, with share", where, extra="beside")
    way("all asks and second of all + weak", {**dict.fromkeys(asks, every), "llm_second": every})
    for name in (
        REFERENCE,
        "3 asks where unsure + weak",
        "1 ask, second where they differ + weak",
        "3 asks where unsure, second where they differ + weak",
        "all asks and second of all + weak",
    ):
        table = np.column_stack([np.where(w, cast[s], -1) for s, w in asked[name].items()])
        scores = fit_scorer(
            features,
            np.sort(known),
            gold[np.sort(known)],
            len(labels),
            VoteTable(table, np.full(table.shape, np.nan)),
            seed,
        )
        guided = f"{name}: guided path's scorer"
        said[guided] = Said(scores.classes[rest] == gold[rest], expit(scores.x[rest]))
        cost[guided] = cost[name]
    return {name: {**cost[name], **found} for name, found in judge(said, seed).items()}


def numbers(votes: Sequence[Vote], labels: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return class numbers, -1 for an abstention."""
    return np.array([-1 if vote.label is None else labels.index(vote.label) for vote in votes], np.int64)


def pick(given: Given, rows: npt.NDArray[np.int64]) -> Given:
    """Return the votes on some items."""
    return {source: [said[i] for i in rows.tolist()] for source, said in given.items()}


def any_differs(cast: Sequence[npt.NDArray[np.int64]]) -> Marks:
    """Return where not all that answered said the same."""
    table = np.column_stack(cast)
    most = table.max(axis=1)
    return np.asarray(((table != most[:, None]) & (table >= 0)).any(axis=1), bool)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--second", default=SECOND)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    sizes = [int(n) for n in options.sizes.split(",")]
    report = measure(options.runs, sizes, options.model, options.second)
    for n, found in report.items():
        print(json.dumps({n: found}), flush=True)
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

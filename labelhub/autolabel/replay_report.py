"""What a replay came to, in words and figures for people: the same on the page and in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Play = Mapping[str, Any]  # one row of the result's "repetitions"

SPACE = "\N{NO-BREAK SPACE}"  # a figure and its sign stay on one line
HEADS = ("Confidence threshold", "Auto-accept rate", "Auto-accepted accuracy", "Manual work")
REASONS = {
    "not ready": "too many of its labels were wrong, or the file is too small, for a check to save answers",
    "sample": "the sample that could be drawn was too small to prove it",
    "errors": "the sample had more wrong labels than the promise allows",
    "floor": "too few labels would have been accepted to keep the promise about them",
}


@dataclass(frozen=True)
class Asked:
    """What the replay was about.

    Attributes:
        items: different texts with a known label.
        target: share of labels promised to be right, in (0, 1).
        floor: share of the accepted labels that must be right, or None.
        of_accepted: the target is about the accepted labels only.
        alpha: chance that the promise is false, in (0, 1).
    """

    items: int
    target: float = 0.95
    floor: float | None = 0.90
    of_accepted: bool = False
    alpha: float = 0.05

    @property
    def promise(self) -> str:
        """The promise as the end of a sentence."""
        if self.of_accepted:
            said = f"at least {share(self.target)} of the accepted labels are right"
        else:
            said = f"at least {share(self.target)} of {self.items:,} labels are right"
            if self.floor is not None:
                said += f", and at least {share(self.floor)} of the accepted ones"
        return f"{said}, with {share(1 - self.alpha)} confidence"


@dataclass(frozen=True)
class Figure:
    """A figure and what it was counted on; ``n`` is empty where nothing was."""

    value: str
    n: str = ""

    def __str__(self) -> str:
        return f"{self.value} ({self.n})" if self.n else self.value


@dataclass(frozen=True)
class Report:
    """The report: ``table`` has one row per threshold, in the columns of HEADS; ``facts`` are named figures."""

    promised: bool
    sentence: str
    table: list[tuple[str, Figure, Figure, Figure]]
    facts: list[tuple[str, str]]


def report(result: Mapping[str, Any], asked: Asked) -> Report:
    """Put the result of ``backtest`` into words; every figure comes with its n."""
    plays: Sequence[Play] = result["repetitions"]
    held = [play for play in plays if play["certified"]]
    return Report(
        bool(held),
        _sentence(plays, held, asked),
        [_row(row, asked.items) for row in result["table"]],
        _facts(plays, held, asked),
    )


def share(part: float) -> str:
    """Return a share in [0, 1] as a percentage, with one decimal unless it is whole."""
    percent = 100 * part
    return f"{percent:.0f}{SPACE}%" if abs(percent - round(percent)) < 1e-9 else _cell(part)


def _cell(part: float) -> str:
    return f"{100 * part:.1f}{SPACE}%"  # below each other, all with their decimal


def _sentence(plays: Sequence[Play], held: Sequence[Play], asked: Asked) -> str:
    about = "the accepted ones among " if asked.of_accepted else ""
    right = f"{share(asked.target)} of {about}{asked.items:,} labels are right"
    if not held:
        reasons = [REASONS[word] for word in REASONS if any(play["problem"] == word for play in plays)]
        why = f": {', or '.join(reasons)}" if reasons else ""
        return (
            f"LabelHub could not have promised that {right}{why}. "
            f"People would have had to answer all {asked.items:,} items."
        )
    manual = _mean(play["manual_share"] for play in held)
    wrong = _mean(play["true_error_dataset"] for play in held)
    cost = (
        f"people would have answered {share(manual)}, {round(manual * asked.items):,} items; LabelHub would "
        f"have labeled the other {share(1 - manual)}; {share(wrong)} of all labels would have been wrong."
    )
    if len(held) == len(plays):
        on_average = f" (means of {len(plays)} replays)" if len(plays) > 1 else ""
        return f"To promise that {right}, {cost[:-1]}{on_average}."
    return (
        f"In {len(held)} of {len(plays)} replays LabelHub could have promised that {right}: there {cost} "
        f"In the other {len(plays) - len(held)} nothing could be promised, and people would have answered everything."
    )


def _row(row: Mapping[str, Any], items: int) -> tuple[str, Figure, Figure, Figure]:
    accepted = round(row["auto_accept_rate"] * items)
    accuracy = (
        Figure("unknown") if row["accuracy"] is None else Figure(_cell(row["accuracy"]), f"n = {accepted:,}")
    )
    return (
        f"≥ {row['threshold']:.2f}",
        Figure(_cell(row["auto_accept_rate"]), f"{accepted:,} of {items:,}"),
        accuracy,
        Figure(_cell(row["manual_work"]), f"{items - accepted:,} items"),
    )


def _facts(plays: Sequence[Play], held: Sequence[Play], asked: Asked) -> list[tuple[str, str]]:
    manual = [play["manual_share"] for play in plays]
    n = _replays(len(plays))
    wrong = f"{share(_mean(play['true_error_dataset'] for play in plays))} of all labels"
    if held:
        of_accepted = f"{share(_mean(play['true_error_accepted'] for play in held))} of the accepted ones"
        every = len(held) == len(plays)
        wrong += f", {of_accepted} (n = {n})" if every else f" (n = {n}), {of_accepted} (n = {len(held):,})"
    else:
        wrong += f" (n = {n})"
    if len(plays) == 1:
        certified = "yes" if held else "no"
        spread = f"{round(manual[0] * asked.items):,} of {asked.items:,} items"
    else:
        certified = f"in {len(held):,} of {n}"
        spread = f"mean of {n}, from {share(min(manual))} to {share(max(manual))}"
    return [
        ("Certified", f"{certified}: {asked.promise}"),
        ("Manual share", f"{share(_mean(manual))} ({spread})"),
        ("True errors", wrong),
        ("Violations", f"{sum(play['violation'] for play in plays):,} of {n} broke the promise"),
    ]


def _replays(n: int) -> str:
    return f"{n:,} replay{'' if n == 1 else 's'}"


def _mean(values: Iterable[float]) -> float:
    every = list(values)
    return sum(every) / len(every)

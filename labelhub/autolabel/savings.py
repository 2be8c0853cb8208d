"""Hours and money against labeling everything by hand.

Only measured times count, and what is not known yet is None: an invented number of seconds would make any
saving true.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

IDLE_SECONDS = 120  # who took longer did something else
LEAST_DECISIONS = 20  # below that a median is an anecdote


@dataclass(frozen=True, slots=True)
class Savings:
    """The work that was or will be done, beside doing all of it by hand.

    Shares are answers needed / items; above 1 when second readings outweigh what was saved. Hours and money
    "with" LabelHub include the spot check. None: not known yet.
    """

    items: int
    manual_share: float | None
    manual_share_with_spot_check: float | None
    seconds_per_decision: float | None
    hours_by_hand: float | None
    hours_with: float | None
    hours_saved: float | None
    cost_by_hand_usd: float | None
    cost_with_usd: float | None
    money_saved_usd: float | None


def seconds_per_decision(seconds: Iterable[float]) -> float | None:
    """Return the median time of a decision, or None while fewer than 20 are known.

    Args:
        seconds: times of blind or unsuggested answers: whoever confirms a suggestion is faster than whoever
            labels by hand. Times above 120 s are breaks and are left out.
    Raises: ValueError on a time that is negative or not a number.
    """
    times = list(seconds)
    if any(math.isnan(time) or time < 0 for time in times):
        raise ValueError("a decision takes zero seconds or more")
    working = [time for time in times if time <= IDLE_SECONDS]
    return median(working) if len(working) >= LEAST_DECISIONS else None


def savings(
    items: int,
    answers: int,
    spot_check: int,
    seconds: Iterable[float],
    hourly_rate_usd: float | None = None,
    llm_cost_usd: float = 0.0,
) -> Savings:
    """Compare the answers that people give with labeling every item by hand.

    Args:
        items: items in the dataset without given labels and copies (N).
        answers: answers needed from people, training and calibration included, the spot check not.
        spot_check: answers needed for the spot check.
        seconds: times of blind or unsuggested answers, as in ``seconds_per_decision``.
        hourly_rate_usd: cost of an hour of a reviewer, or None when nobody said.
        llm_cost_usd: money spent on models.
    Raises: ValueError on a negative number.
    Source: docs/statistics.md, "Work and savings".
    """
    if min(items, answers, spot_check, llm_cost_usd, hourly_rate_usd or 0.0) < 0:
        raise ValueError("items, answers, rates and costs cannot be negative")
    pace = seconds_per_decision(seconds)
    by_hand = None if pace is None else items * pace / 3600
    needed = None if pace is None else (answers + spot_check) * pace / 3600
    cost_by_hand = None if by_hand is None or hourly_rate_usd is None else by_hand * hourly_rate_usd
    cost_with = None if needed is None or hourly_rate_usd is None else needed * hourly_rate_usd + llm_cost_usd
    return Savings(
        items=items,
        manual_share=answers / items if items else None,
        manual_share_with_spot_check=(answers + spot_check) / items if items else None,
        seconds_per_decision=pace,
        hours_by_hand=by_hand,
        hours_with=needed,
        hours_saved=_difference(by_hand, needed),
        cost_by_hand_usd=cost_by_hand,
        cost_with_usd=cost_with,
        money_saved_usd=_difference(cost_by_hand, cost_with),
    )


def rounded_parts(amounts: Sequence[float], digits: int = 2) -> list[float]:
    """Round amounts so that what is shown adds up: to the sum of all of them, rounded.

    Each is off by less than one unit of the last digit, and an amount of nothing stays nothing.

    Args:
        amounts: shape (lines,), such as hours or USD.
        digits: decimal places that are shown, at least 0.
    """
    parts, whole, shown = [], 0.0, 0.0
    for amount in amounts:
        whole += amount
        upto = round(whole, digits) if amount else shown
        parts.append(round(upto - shown, digits))
        shown = upto
    return parts


def _difference(whole: float | None, part: float | None) -> float | None:
    return None if whole is None or part is None else whole - part

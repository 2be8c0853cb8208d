"""Numbers as people read them."""

from __future__ import annotations

from django import template

from labelhub.autolabel.rank import ACCEPT_NOTHING, confidence_of

register = template.Library()
UNIT = "\N{NO-BREAK SPACE}%"  # a figure and its sign stay on one line


@register.filter
def percent(share: float | None, digits: int = 1) -> str:
    """A share in [0, 1] as a percentage; nothing known is “unknown”, never 100 %."""
    if share is None:
        return "unknown"
    return f"{100 * share:.{digits}f}{UNIT}"


@register.filter
def share_of(part: int, whole: int) -> str:
    """Part of a whole as a percentage."""
    return f"{100 * part / whole:.1f}{UNIT}" if whole else "unknown"


@register.filter
def as_threshold(rank: int) -> str:
    """A threshold rank as its confidence, or in words where it accepts nothing."""
    return "nothing accepted" if rank >= ACCEPT_NOTHING else f"{confidence_of(rank):g}"

"""Amounts of money as people read them."""

from __future__ import annotations

from decimal import Decimal

from django import template

from datasets.money import to_usd

register = template.Library()


@register.filter
def usd(amount: Decimal | float | None) -> str:
    """US dollars: cents, or as many digits as the first two of a small amount need; unknown is “unknown”."""
    if amount is None or amount == "":
        return "unknown"
    exact = Decimal(str(amount))
    digits = 2 if not exact else max(2, 1 - exact.adjusted())
    shown = f"{abs(exact):,.{digits}f}"
    if digits > 2:
        whole, _, part = shown.partition(".")
        shown = f"{whole}.{part.rstrip('0').ljust(2, '0')}"
    return f"{'−' if exact < 0 else ''}${shown}"


@register.filter
def nano(amount: int | None) -> str:
    """Billionths of a US dollar, as a run keeps them, for people."""
    return usd(to_usd(amount))

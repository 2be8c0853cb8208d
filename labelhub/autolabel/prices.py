"""What the language models cost: one dated table, and the arithmetic on it, in exact decimals.

Prices are US dollars per million tokens. They change; AS_OF says when these were read. A model without a price here is
not started, because a budget that nobody can compute cannot be kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

AS_OF = "2026-11-20"
SOURCE = "Anthropic's price list"
LONG_PROMPT = 100_000  # prompt tokens; some models charge more for all tokens of a call above it
_BATCH = Decimal("0.5")
_MILLIONTH = -6  # as a power of ten


@dataclass(frozen=True)
class Price:
    """What a model costs, in US dollars per million tokens.

    Attributes:
        input: tokens of the prompt that were neither read from the cache nor written to it.
        output: tokens of the answer, thinking included.
        cache_read: tokens of the prompt that were found in the cache.
        cache_write_5m: tokens that were written to the cache for five minutes.
        cache_write_1h: tokens that were written to the cache for an hour.
        above: what holds instead for a call with a prompt above LONG_PROMPT; None when nothing changes.
    """

    input: Decimal
    output: Decimal
    cache_read: Decimal
    cache_write_5m: Decimal
    cache_write_1h: Decimal
    above: Price | None = None

    def at(self, prompt_tokens: int) -> Price:
        """Return the price of a call with a prompt of this length."""
        return self.above if self.above and prompt_tokens > LONG_PROMPT else self


def _price(input: str, output: str, cache_read: str, above: Price | None = None) -> Price:
    """Return a price with the usual surcharge for writing to the cache: a quarter, or for an hour the same again."""
    one = Decimal(input)
    return Price(one, Decimal(output), Decimal(cache_read), one * Decimal("1.25"), one * 2, above)


PRICES: dict[str, Price] = {
    "claude-haiku-5-5": _price("0.10", "0.50", "0.01", above=_price("0.50", "2.50", "0.05")),
    "claude-sonnet-5-5": _price("2", "10", "0.20"),
    "claude-opus-5-5": _price("4", "20", "0.40"),
    "claude-haiku-4-5": _price("1", "5", "0.10"),
}


@dataclass(frozen=True)
class Usage:
    """The tokens of a call, each counted once: the prompt is the sum of all but ``output``.

    Attributes:
        input: tokens of the prompt that have nothing to do with the cache.
        output: tokens of the answer.
        cache_read: tokens read from the cache.
        cache_write: tokens written to the cache for five minutes.
        cache_write_1h: tokens written to the cache for an hour.
    """

    input: int
    output: int
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0

    @property
    def prompt(self) -> int:
        """All tokens of the prompt."""
        return self.input + self.cache_read + self.cache_write + self.cache_write_1h

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input + other.input,
            self.output + other.output,
            self.cache_read + other.cache_read,
            self.cache_write + other.cache_write,
            self.cache_write_1h + other.cache_write_1h,
        )


def price_of(model: str) -> Price | None:
    """Return what a model costs, or None when the table does not know it.

    A model is known by the longest name in the table that it is or continues after a hyphen, so
    ``claude-haiku-4-5-20251001`` has the price of ``claude-haiku-4-5``.
    """
    known = [name for name in PRICES if model == name or model.startswith(f"{name}-")]
    return PRICES[max(known, key=len)] if known else None


def cost_usd(price: Price, usage: Usage, batch: bool = False) -> Decimal:
    """Return what one call cost, in US dollars, exactly.

    Args:
        price: of the model that answered.
        usage: of this call alone; the price of a long prompt depends on the single call.
        batch: the call was part of a batch, which costs half.
    """
    here = price.at(usage.prompt)
    total = (
        usage.input * here.input
        + usage.output * here.output
        + usage.cache_read * here.cache_read
        + usage.cache_write * here.cache_write_5m
        + usage.cache_write_1h * here.cache_write_1h
    ).scaleb(_MILLIONTH)
    return total * _BATCH if batch else total


def most_usd(price: Price, bytes_in: int, max_output: int, batch: bool = False) -> Decimal:
    """Return what one call costs at most, in US dollars, before it is made.

    A token is at least one byte, so the prompt has at most as many tokens as bytes; each is counted at the dearest
    price that a prompt without hour-long caching can have, and the answer as if it filled its limit.

    Args:
        price: of the model that will be asked.
        bytes_in: all that is sent, in bytes of UTF-8.
        max_output: the limit on the answer, in tokens.
        batch: the call will be part of a batch, which costs half.
    """
    possible = [price, price.at(bytes_in)]
    dearest_in = max(max(p.input, p.cache_read, p.cache_write_5m) for p in possible)
    dearest_out = max(p.output for p in possible)
    total = (bytes_in * dearest_in + max_output * dearest_out).scaleb(_MILLIONTH)
    return total * _BATCH if batch else total

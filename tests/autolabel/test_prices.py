"""Prices: by the longest name, exact to the last digit, and never above what was announced."""

from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelhub.autolabel.prices import AS_OF, LONG_PROMPT, PRICES, Usage, cost_usd, most_usd, price_of

HAIKU = PRICES["claude-haiku-5-5"]
tokens = st.integers(0, 2_000_000)
usages = st.builds(Usage, tokens, tokens, tokens, tokens)
prices = st.sampled_from(sorted(PRICES)).map(PRICES.get)


def test_a_dated_model_has_the_price_of_its_name():
    assert price_of("claude-haiku-4-5-20251001") is PRICES["claude-haiku-4-5"]
    assert price_of("claude-haiku-5-5") is HAIKU


@pytest.mark.parametrize(
    "model",
    ["", "claude", "claude-haiku-5-50", "claude-haiku-5", "claude-sonnet-4-5", "gpt", "CLAUDE-HAIKU-5-5"],
)
def test_a_model_that_is_not_in_the_table_has_no_price(model):
    assert price_of(model) is None


def test_the_longest_name_wins(monkeypatch):
    monkeypatch.setitem(PRICES, "claude-haiku", PRICES["claude-opus-5-5"])
    assert price_of("claude-haiku-5-5-20261001") is HAIKU
    assert price_of("claude-haiku-9") is PRICES["claude-opus-5-5"]


def test_the_table_has_the_prices_of_its_date():
    assert date.fromisoformat(AS_OF) == date(2026, 11, 20)
    assert [(name, str(p.input), str(p.output), str(p.cache_read)) for name, p in PRICES.items()] == [
        ("claude-haiku-5-5", "0.10", "0.50", "0.01"),
        ("claude-sonnet-5-5", "2", "10", "0.20"),
        ("claude-opus-5-5", "4", "20", "0.40"),
        ("claude-haiku-4-5", "1", "5", "0.10"),
    ]
    assert HAIKU.above is not None
    assert (HAIKU.above.input, HAIKU.above.output, HAIKU.above.cache_read) == tuple(
        map(Decimal, ("0.50", "2.50", "0.05"))
    )
    for price in (*PRICES.values(), HAIKU.above):
        assert price.cache_write_5m == price.input * 5 / 4
        assert price.cache_write_1h == price.input * 2
        assert price.cache_read * 10 == price.input


@pytest.mark.parametrize(
    ("usage", "usd"),
    [
        (Usage(1_000, 200), "0.0002"),
        (Usage(0, 0, cache_read=10), "0.0000001"),
        (Usage(0, 0, cache_write=10), "0.00000125"),
        (Usage(0, 0, cache_write_1h=10), "0.000002"),
        (Usage(100_000, 1), "0.0100005"),
        (Usage(100_001, 1), "0.050003"),
        (Usage(1, 0, cache_read=100_000), "0.0050005"),
    ],
    ids=["plain", "read", "written", "written for an hour", "long", "too long", "long by the cache"],
)
def test_a_call_costs_what_the_list_says(usage, usd):
    assert cost_usd(HAIKU, usage) == Decimal(usd)
    assert cost_usd(HAIKU, usage, batch=True) * 2 == Decimal(usd)


@settings(deadline=None)
@given(prices, usages, st.booleans(), st.data())
def test_no_call_costs_more_than_was_announced(price, usage, batch, data):
    size = data.draw(st.integers(usage.prompt, usage.prompt + 1_000_000))
    limit = data.draw(st.integers(usage.output, usage.output + 10_000))
    assert cost_usd(price, usage, batch) <= most_usd(price, size, limit, batch)


@settings(deadline=None)
@given(prices, usages)
def test_costs_are_exact_and_add_up(price, usage):
    cost = cost_usd(price, usage)
    assert cost == cost.quantize(Decimal("1e-10"))
    assert cost_usd(price, usage, batch=True) + cost_usd(price, usage, batch=True) == cost


def test_the_bound_knows_that_a_long_prompt_is_dearer():
    below, above = most_usd(HAIKU, LONG_PROMPT, 0), most_usd(HAIKU, LONG_PROMPT + 1, 0)
    assert below == Decimal("0.0125")
    assert above > below * Decimal("4.9")


def test_usages_add_up():
    total = Usage(1, 2, 3, 4, 5) + Usage(10, 20, 30, 40, 50)
    assert total == Usage(11, 22, 33, 44, 55)
    assert total.prompt == 143

"""A language model on this machine, runs that ask it, and what must be true of any of them afterwards."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.db.models import Sum

from datasets import gates, model_settings, money, slices
from datasets.models import Call, Dataset, Item, Prediction, Run, Vote
from labelhub.autolabel.labelers import dialogue, llm
from labelhub.autolabel.prices import Usage, cost_usd, price_of
from labelhub.fakeclaude.replay import Replay
from labelhub.fakeclaude.server import Server, serve
from reviews import learning, tasks
from tests.reviews.things import WORDS, import_rows

KEY = "fake-key"
PLENTY = Decimal(5)  # USD; the runs of these tests cost cents
ITEMS_IN_A_TEST_SLICE = 40  # two calls: small datasets have several slices


def texts_of(n: int) -> list[str]:
    """Texts that speak of fruit and of tools in turn."""
    return [f"the {WORDS[('fruit', 'tool')[i % 2]][i // 2 % 4]} number {i} is here" for i in range(n)]


def replay_of(texts: Sequence[str], confidence: float = 0.95, **voters: Sequence[str]) -> Replay:
    """Answers for these texts: fruit and tool in turn; ``voters`` are those of other models."""
    labels = [("fruit", "tool")[i % 2] for i in range(len(texts))]
    lists = {"": [labels]} | {name.replace("_", "-"): [list(said)] for name, said in voters.items()}
    return Replay(texts, lists, [confidence] * len(texts))


def dataset_of(folder: Path, texts: Sequence[str]) -> Dataset:
    """A dataset of texts, none of them labeled."""
    return import_rows(folder, [f'"{text}"' for text in texts])


@contextlib.contextmanager
def speaking(settings: Any, replay: Replay | Path | None, **behavior: Any) -> Iterator[Server]:
    """A server that the site asks, for as long as this lasts."""
    with serve(replay, **behavior) as server:
        settings.ANTHROPIC_API_KEY, settings.ANTHROPIC_BASE_URL = KEY, server.url
        try:
            yield server
        finally:
            for client in model_settings._clients.values():
                client.close()
            model_settings._clients.clear()


def hurry(patch: pytest.MonkeyPatch) -> None:
    """Small slices, and waits of hundredths of a second instead of minutes; nothing else is different."""
    patch.setattr(slices, "ITEMS_IN_A_SLICE", ITEMS_IN_A_TEST_SLICE)
    patch.setattr(gates, "SHORTEST_SECONDS", 0.02)
    patch.setattr(gates, "LONGEST_SECONDS", 0.2)
    patch.setattr(dialogue, "_SHORTEST_SECONDS", 0.01)
    patch.setattr(dialogue, "_LONGEST_SECONDS", 0.05)
    patch.setattr(llm, "TIMEOUT_SECONDS", 0.6)
    patch.setattr(
        tasks, "time", SimpleNamespace(sleep=lambda s: time.sleep(s / 10), monotonic=time.monotonic)
    )


def at_most(by: User, **limits: Any) -> None:
    """Write the settings of the model; what is not named is the usual."""
    model_settings.save(by, **{"model": llm.DEFAULT_MODEL, "at_once": 4} | limits)


def begin(dataset: Dataset, by: User, method: str = "llm", budget: Decimal = PLENTY, **spend: Any) -> Run:
    """Start a run that somebody has to work."""
    return learning.learn(dataset, method, by, learning.Spend(budget, **spend), rings=False)


def work(run: Run, workers: int = 2, seconds: float = 60.0) -> Run:
    """Work a run by several workers until it is over or paused."""
    faults: list[BaseException] = []

    def carry() -> None:
        try:
            tasks.work_here(Run.objects.get(pk=run.pk))
        except BaseException as error:
            faults.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=carry, daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
    assert not any(thread.is_alive() for thread in threads), f"not over after {seconds} s"
    assert not faults, faults
    run.refresh_from_db()
    return run


def check_items(run: Run) -> None:
    """Every free item has exactly one prediction, with a label or with a reason why it has none."""
    assert run.state == "finished", run.problem
    free = Item.objects.filter(dataset=run.dataset_id, given_label=None, same_as=None, excluded=None).count()
    found = Prediction.objects.filter(run=run)
    assert found.count() == found.values("item").distinct().count() == free
    assert not found.filter(label=None, problem=None).exists()
    assert not found.filter(label=None, problem="no_answer").exclude(item__in=asked_about(run)).exists()


def asked_about(run: Run) -> set[int]:
    """The items in any call of a run."""
    return {pk for items in Call.objects.filter(run=run).values_list("items", flat=True) for pk in items}


def check_money(run: Run) -> None:
    """What the run says of its money is what its calls add up to, and no more than it may spend."""
    run.refresh_from_db()
    calls = Call.objects.filter(run=run)
    open_calls = calls.filter(settled_at=None, lost_at=None)
    lost = calls.filter(lost_at__isnull=False)
    settled = calls.filter(settled_at__isnull=False)
    assert run.reserved_nano == (open_calls.aggregate(n=Sum("reserved_nano"))["n"] or 0)
    spent = (settled.aggregate(n=Sum("cost_nano"))["n"] or 0) + (
        lost.aggregate(n=Sum("reserved_nano"))["n"] or 0
    )
    assert run.spent_nano == spent
    assert run.budget_nano is not None
    assert run.spent_nano + run.reserved_nano <= run.budget_nano
    assert money.spending(run).spent_usd == money.to_usd(spent)
    over = [call for call in settled if call.cost_nano is not None and call.cost_nano > call.reserved_nano]
    assert not over, "a call cost more than was reserved for it"


def check_paid_once(run: Run, server: Server) -> None:
    """No text was answered twice, and whatever was billed was counted."""
    stats = server.stats()
    for voter, told in stats["answers"].items():
        assert told["most_often"] <= 1, f"{voter} answered a text {told['most_often']} times"
    assert billed_usd(stats) <= money.to_usd(run.spent_nano), (
        billed_usd(stats),
        stats["usage"],
        run.spent_nano,
    )


def billed_usd(stats: dict[str, Any]) -> Decimal:
    """What all that a server has answered costs, the answers that never arrived included."""
    total = Decimal(0)
    for model, tiers in stats["usage"].items():
        price = price_of(model)
        assert price is not None
        for tier, sums in tiers.items():
            usage = Usage(
                sums["input_tokens"], sums["output_tokens"], sums["cache_read_input_tokens"],
                sums["cache_creation_input_tokens"],
            )  # fmt: skip
            # The price of a long prompt is for a single call, and none of these is long.
            total += cost_usd(replace(price, above=None), usage, batch=tier == "batch")
    return total


def check_all(run: Run, server: Server) -> None:
    """Everything above, of a run that has ended."""
    check_items(run)
    check_money(run)
    check_paid_once(run, server)
    assert run.reserved_nano == 0
    votes = Vote.objects.filter(call__run=run)
    assert votes.count() == votes.values("item", "version").distinct().count()

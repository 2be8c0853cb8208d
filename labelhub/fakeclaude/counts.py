"""What has been asked and answered since the start: for tests, and for people who wonder what a run did."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

SUMMED = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


class Counts:
    """Counters behind one lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0
        self._clear()

    def _clear(self) -> None:
        self._calls: Counter[tuple[str, int]] = Counter()
        self._faults: Counter[str] = Counter()
        self._answered: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._usage: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self._lost: Counter[str] = Counter()
        self._most_running = self._running
        self._number = 0

    def reset(self) -> None:
        """Forget everything but the requests that are under way."""
        with self._lock:
            self._clear()

    def next(self) -> int:
        """Return the number of a call that a fault can hit, from 1."""
        with self._lock:
            self._number += 1
            return self._number

    def start(self) -> None:
        """Count a request under way."""
        with self._lock:
            self._running += 1
            self._most_running = max(self._most_running, self._running)

    def end(self, path: str, status: int) -> None:
        """Count a request that is over; status 0 is a connection that was dropped."""
        with self._lock:
            self._running -= 1
            self._calls[path, status] += 1

    def fault(self, kind: str) -> None:
        """Count a fault."""
        with self._lock:
            self._faults[kind] += 1

    def billed(
        self,
        model: str,
        ask: int,
        tier: str,
        usage: dict[str, Any],
        answered: Iterable[str],
        lost: bool = False,
    ) -> None:
        """Count an answer that costs money.

        Args:
            answered: digests of the texts that it labels.
            lost: whether the answer was made and never arrived: then its tokens are billed, and no text is answered.
        """
        sums = {name: usage[name] for name in SUMMED}
        with self._lock:
            self._usage[model, tier].update({"calls": 1, **sums})
            if lost:
                self._lost.update({"calls": 1, **sums})
            else:
                self._answered[f"{model} {ask}"].update(answered)

    def report(self, texts: bool = True) -> dict[str, Any]:
        """Return all counts as one JSON object.

        ``calls``: how often by path and status ("0" is dropped). ``faults``: how often by kind. ``usage``: tokens
        that cost money by model and tier, ``lost`` those among them whose answer never arrived. ``answers``: by model
        and ask, how many texts were answered, and how often the one that was answered most often. ``texts``: how
        often each text was answered, by model and ask and the first 16 digits of its SHA-256. ``most_concurrent``:
        requests at once.
        """
        with self._lock:
            calls: defaultdict[str, dict[str, int]] = defaultdict(dict)
            for (path, status), count in self._calls.items():
                calls[path][str(status)] = count
            usage: defaultdict[str, dict[str, dict[str, int]]] = defaultdict(dict)
            for (model, tier), sums in self._usage.items():
                usage[model][tier] = dict(sums)
            found: dict[str, Any] = {
                "calls": calls,
                "faults": dict(self._faults),
                "usage": usage,
                "lost": dict(self._lost),
                "answers": {
                    name: {"texts": len(each), "most_often": max(each.values(), default=0)}
                    for name, each in self._answered.items()
                },
                "most_concurrent": self._most_running,
            }
            if texts:
                found["texts"] = {name: dict(each) for name, each in self._answered.items()}
            return found

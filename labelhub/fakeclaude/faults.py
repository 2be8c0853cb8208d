"""Which call goes wrong, and how: by shares, and the same ones for the same seed and order of calls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from random import Random
from typing import Any

TRANSPORT = ("rate_limit", "overloaded", "server", "timeout", "drop")  # no answer, or not all of it
CONTENT = (  # an answer that is no good
    "refusal",
    "truncation",
    "malformed",
    "wrong_ids",
    "off_schema",
    "prose",
    "bad_confidence",
)
STANDING = ("key", "forbidden", "credit", "spend_limit")  # until somebody does something about it
BATCHES = ("slow_batch", "batch_expired", "batch_errored")
KINDS = TRANSPORT + CONTENT + STANDING + BATCHES
PATIENT = 10.0  # seconds; with a longer timeout a mix of faults has no timeouts


@dataclass(frozen=True)
class Behavior:
    """How the server behaves; every field can be changed while it runs.

    Attributes:
        faults: share of the calls that go wrong in some passing way, all ways alike, in [0, 1].
        fault: shares of single kinds, in [0, 1], by kind; those of passing kinds and ``faults`` add up to 1 at most.
        seed: of the choice.
        delay_ms: milliseconds before every answer.
        rate: requests a minute, a tenth of them at once; None for any number.
        timeout_seconds: how long a "timeout" holds a request before it drops it.
        batch_seconds: until a batch ends; ten times that for a "slow_batch".
        obedient: follows instructions that stand in the texts.
        everywhere: faults also hit the lists of models and the counting of tokens.
    """

    faults: float = 0.0
    fault: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    delay_ms: float = 0.0
    rate: int | None = None
    timeout_seconds: float = 70.0
    batch_seconds: float = 2.0
    obedient: bool = False
    everywhere: bool = False

    def __post_init__(self) -> None:
        for kind, share in {"faults": self.faults, **self.fault}.items():
            if kind != "faults" and kind not in KINDS:
                raise ValueError(f"There is no fault “{kind}”; there are {', '.join(KINDS)}.")
            if not isinstance(share, int | float) or not 0 <= share <= 1:
                raise ValueError(f"The share of “{kind}” is a number from 0 to 1.")
        if sum(self.shares().values()) > 1 + 1e-9:
            raise ValueError("The shares of the passing faults add up to more than 1.")
        if min(self.delay_ms, self.timeout_seconds, self.batch_seconds) < 0:
            raise ValueError("Seconds and milliseconds are not negative.")
        if self.rate is not None and self.rate < 1:
            raise ValueError("The rate is at least one request a minute.")

    def shares(self) -> dict[str, float]:
        """Return the share of every passing kind of fault."""
        mixed = [k for k in TRANSPORT + CONTENT if k != "timeout" or self.timeout_seconds <= PATIENT]
        shares = dict.fromkeys(mixed, self.faults / len(mixed))
        for kind in TRANSPORT + CONTENT:
            shares[kind] = shares.get(kind, 0.0) + self.fault.get(kind, 0.0)
        return shares

    def changed(self, **changes: Any) -> Behavior:
        """Return a copy with some fields changed. Raises: ValueError on a field or a value that cannot be."""
        known = {one.name for one in fields(self)}
        if unknown := sorted(changes.keys() - known):
            raise ValueError(f"There is no option “{unknown[0]}”; there are {', '.join(sorted(known))}.")
        try:
            return replace(self, **changes)
        except (TypeError, AttributeError) as error:
            raise ValueError(f"A value has the wrong type: {error}.") from error

    def passing(self, *place: object) -> tuple[str | None, Random]:
        """Return what goes wrong in passing, or None, and the chance to shape it with.

        Args:
            place: the number of the call, counted from 1 among those that faults can hit; or a batch and a place in it.
        """
        chance = Random(":".join(map(str, (self.seed, *place))))
        left = chance.random()
        for kind, share in self.shares().items():
            left -= share
            if left < 0:
                return kind, chance
        return None, chance

    def standing(self, number: int) -> str | None:
        """Return the standing fault of a call, or None; the first of ``STANDING`` that applies."""
        return next((kind for kind in STANDING if self.applies(kind, number)), None)

    def applies(self, kind: str, *place: object) -> bool:
        """Return whether a single kind of fault applies at some place, such as a request of a batch."""
        share = self.fault.get(kind, 0.0)
        return share > 0 and Random(":".join(map(str, (self.seed, kind, *place)))).random() < share


class Bucket:
    """A token bucket: a rate of requests a minute, a tenth of a minute's worth at once."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._rate: int | None = None
        self._left = self._at = 0.0

    def wait_for(self, rate: int | None) -> float:
        """Take one request; return 0.0, or the seconds until one would be left if none is."""
        if rate is None:
            return 0.0
        with self._lock:
            now, most = self._clock(), max(1.0, rate / 10)
            if rate != self._rate:
                self._rate, self._left, self._at = rate, most, now
            self._left = min(most, self._left + (now - self._at) * rate / 60)
            self._at = now
            if self._left >= 1:
                self._left -= 1
                return 0.0
            return (1 - self._left) * 60 / rate

"""Message batches: taken at once, worked off in the background at an even pace, kept in memory."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import orjson

from labelhub.fakeclaude.check import Refused
from labelhub.fakeclaude.faults import Behavior

log = logging.getLogger("labelhub.fakeclaude")
KEPT = timedelta(hours=24)  # until a batch expires
SLOWER = 10  # times as long for a slow batch
Work = Callable[[int, int, dict[str, Any]], dict[str, Any]]
"""What a request comes to: (number of the batch, place in it, parameters) to a message. Raises: Refused."""


class Batch:
    """One batch, at work in a thread of its own from the moment that it is made.

    Args:
        number: of the batch, from 1: chance depends on it.
        requests: ids and parameters, (n,).
        work: makes one message.
        behavior: how long it takes, and which requests go wrong.
        closing: set when the server stops.
    """

    def __init__(
        self,
        number: int,
        requests: list[tuple[str, dict[str, Any]]],
        work: Work,
        behavior: Behavior,
        closing: threading.Event,
    ) -> None:
        self.number = number
        self.id = f"msgbatch_{secrets.token_hex(12)}"
        self.created_at = datetime.now(UTC)
        self.ended_at: datetime | None = None
        self.cancel_initiated_at: datetime | None = None
        self._requests: list[tuple[str, dict[str, Any]] | None] = list(requests)
        self._lines: list[bytes] = []
        self._outcomes: Counter[str] = Counter()
        self._work, self._behavior, self._closing = work, behavior, closing
        self._canceled = threading.Event()
        self._ended = threading.Event()
        threading.Thread(target=self._run, name=self.id, daemon=True).start()

    def _run(self) -> None:
        slow = self._behavior.applies("slow_batch", self.number)
        seconds = self._behavior.batch_seconds * (SLOWER if slow else 1)
        started, count = time.monotonic(), len(self._requests)
        for place, request in enumerate(self._requests):
            assert request is not None
            due = started + seconds * (1.0 if slow else (place + 1) / count)
            while (left := due - time.monotonic()) > 0.01 and not self._stopped(left):
                pass  # another request may be due soon: they are worked off in bursts of ten milliseconds
            name, params = request
            result = {"type": "canceled"} if self._canceled.is_set() else self._result(place, params)
            self._requests[place] = None  # lets go of the parameters
            self._lines.append(orjson.dumps({"custom_id": name, "result": result}) + b"\n")
            self._outcomes[result["type"]] += 1
            if self._closing.is_set():
                return
        Random(f"{self._behavior.seed}:{self.number}").shuffle(self._lines)
        self.ended_at = datetime.now(UTC)
        self._ended.set()

    def _stopped(self, seconds: float) -> bool:
        return self._canceled.wait(min(seconds, 0.2)) or self._closing.is_set()

    def _result(self, place: int, params: dict[str, Any]) -> dict[str, Any]:
        if self._behavior.applies("batch_expired", self.number, place):
            return {"type": "expired"}
        try:
            if self._behavior.applies("batch_errored", self.number, place):
                raise Refused(500, "Internal server error")
            return {"type": "succeeded", "message": self._work(self.number, place, params)}
        except Refused as refused:
            return {"type": "errored", "error": refused.body()}
        except Exception:
            log.exception("a request of a batch failed")
            return {"type": "errored", "error": Refused(500, "Internal server error").body()}

    @property
    def ended(self) -> bool:
        """Whether all results are there."""
        return self._ended.is_set()

    def cancel(self) -> None:
        """Stop with what is done. Raises: Refused when the batch has ended."""
        if self.ended:
            raise Refused(400, f"Batch {self.id} has already ended and cannot be canceled.")
        self.cancel_initiated_at = self.cancel_initiated_at or datetime.now(UTC)
        self._canceled.set()

    def abandon(self) -> None:
        """Do no more work on it; for one that nobody will ask for again."""
        self._canceled.set()

    def lines(self) -> list[bytes]:
        """Return the results, one line of JSON each, in no order. Raises: Refused while they are not all there."""
        if not self.ended:
            raise Refused(404, f"Batch {self.id} has no results yet.")
        return self._lines

    def describe(self, url: str) -> dict[str, Any]:
        """Return the batch as the API words it; ``url`` is the address of the server.

        As in the API, requests count as processing until all of them are done.
        """
        ended = self.ended
        outcomes = self._outcomes if ended else Counter[str]()
        counts = {name: outcomes[name] for name in ("succeeded", "errored", "canceled", "expired")}
        status = "ended" if ended else "canceling" if self.cancel_initiated_at else "in_progress"
        return {
            "id": self.id,
            "type": "message_batch",
            "processing_status": status,
            "request_counts": {**counts, "processing": 0 if ended else len(self._requests)},
            "created_at": self.created_at,
            "expires_at": self.created_at + KEPT,
            "ended_at": self.ended_at if ended else None,
            "cancel_initiated_at": self.cancel_initiated_at,
            "archived_at": None,
            "results_url": f"{url}/v1/messages/batches/{self.id}/results" if ended else None,
        }


class Batches:
    """All batches since the start, newest first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made = 0
        self._all: dict[str, Batch] = {}

    def add(self, make: Callable[[int], Batch]) -> Batch:
        """Make a batch from its number, and keep it."""
        with self._lock:
            self._made += 1
            batch = make(self._made)
            self._all = {batch.id: batch, **self._all}
        return batch

    def find(self, name: str) -> Batch:
        """Return a batch by its id. Raises: Refused."""
        with self._lock:
            found = self._all.get(name)
        if found is None:
            raise Refused(404, f"Batch {name[:80]} does not exist.")
        return found

    def remove(self, name: str) -> None:
        """Forget a batch that has ended. Raises: Refused."""
        if not self.find(name).ended:
            raise Refused(400, f"Batch {name} is still at work: cancel it first.")
        with self._lock:
            del self._all[name]

    def newest_first(self) -> list[Batch]:
        """Return all batches."""
        with self._lock:
            return list(self._all.values())

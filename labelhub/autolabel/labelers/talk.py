"""A whole list of texts put to a language model from one process: threads send, the rules of ``dialogue`` decide.

What a notebook needs. A run in the server asks slice by slice instead, with its answers kept as they come.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any

from ..prices import Usage, cost_usd, price_of
from .dialogue import PER_CALL, Chunk, Dialogue
from .llm import CallFailed, Claude, Reply
from .prompt import Prompt, cut
from .reply import Said, read

THREADS = 8
GIVE_UP_AFTER = 8  # failures in a row, without any answer

_LONGEST_PAUSE = 4.0  # seconds between attempts while nothing succeeds: some twenty until giving up
_LONGEST_WAIT = 1.0  # seconds between two looks, so that Ctrl-C is noticed on every system


@dataclass(frozen=True)
class Talk:
    """What came of asking.

    Attributes:
        outcomes: one per text, in order: what the model said, or a problem code. Texts that were no longer asked
            about have "llm_error".
        usage: tokens of all answers together, those that could not be used included.
        cost_usd: what they cost, or None when the model has no price in our table.
        calls: requests that were sent.
        failure: None, or why there are no answers: the fatal failure or the last of GIVE_UP_AFTER in a row that ended
            the asking, or the last one of all where not a single call was answered.
    """

    outcomes: list[Said | str]
    usage: Usage
    cost_usd: Decimal | None
    calls: int
    failure: CallFailed | None


def ask_all(
    client: Claude,
    prompt: Prompt,
    model: str,
    texts: Sequence[str],
    *,
    ask: int = 1,
    threads: int = THREADS,
    seed: int = 0,
    per_call: int = PER_CALL,
    on_cost: Callable[[Decimal], None] | None = None,
) -> Talk:
    """Ask a model about every text; return when each has its outcome or asking has stopped.

    Texts that are sent alike, because they are equal or become so by cutting, are asked about once. The first call goes
    by itself: it fills the cache that the others read, and a wrong key fails once, not once per thread. What fails
    for a reason that passes is repeated as ``Dialogue`` says, and from the second failure in a row on, everything
    pauses. After a fatal failure, or GIVE_UP_AFTER failures in a row, nothing more is sent; answers on their way
    are still taken in, since they are paid for. Calls that were under way together fail together, so of those
    only one counts.

    Args:
        client: the door to the model.
        prompt: the question.
        model: the model's id.
        texts: what to ask about, may be empty.
        ask: which wording of the question, from 1.
        threads: calls at a time, at least 1.
        seed: of the jitter in delays.
        per_call: most texts in a call.
        on_cost: called in this thread with the cost in USD of each answer, when it comes. An exception that it
            raises stops asking and is passed on.
    Raises: ValueError when ``threads`` or ``per_call`` is below 1. After an interruption no thread is waited
        for: each ends with the call that it is in, and none keeps the process alive.
    """
    if threads < 1:
        raise ValueError(f"Asking needs at least one thread, not {threads}.")
    as_sent = [cut(text) for text in texts]
    distinct = list(dict.fromkeys(as_sent))
    dialogue = Dialogue([len(text) for text in distinct], per_call)
    labels = [name for name, _ in prompt.labels]
    price, lots = price_of(model), random.Random(seed)
    usage, spent, calls, answered = Usage(0, 0), Decimal(0), 0, False
    failure: CallFailed | None = None
    latest: CallFailed | None = None
    patience = _Patience(lots)
    with _Senders(client) as senders:
        while not dialogue.finished:
            now = time.monotonic()
            room = threads if answered and patience.strikes < 2 else 1
            asking = failure is None and now >= patience.until
            while asking and senders.busy < room and (chunk := dialogue.next(now)):
                params = client.request(prompt, model, [distinct[i] for i in chunk.places], ask)
                if chunk.roomier:
                    params = {**params, "max_tokens": 2 * params["max_tokens"]}
                senders.send(chunk, params, now)
                calls += 1
            if failure is not None and not senders.busy:
                break
            due = None  # where all threads are busy, an answer is waited for and not a moment
            if failure is None and senders.busy < room:
                due = dialogue.ready_at() if asking else patience.until
            came = senders.wait(_LONGEST_WAIT if due is None else due - now)
            if came is None:
                continue
            if isinstance(came.result, CallFailed):
                latest, now = came.result, time.monotonic()
                if not latest.fatal:
                    dialogue.failed(came.chunk, latest, now, lots.random())
                    patience.tried(came.sent_at, now)
                if latest.fatal or patience.strikes >= GIVE_UP_AFTER:
                    failure = failure or latest
                continue
            reply, answered = came.result, True
            patience.renewed()
            dialogue.heard(came.chunk, read(reply.stop_reason, reply.text, len(came.chunk.places), labels))
            usage += reply.usage
            if price is not None:
                cost = cost_usd(price, reply.usage)
                spent += cost
                if on_cost is not None:
                    on_cost(cost)
    by_text = {text: dialogue.outcomes.get(i, "llm_error") for i, text in enumerate(distinct)}
    total = None if price is None else spent
    return Talk(
        [by_text[text] for text in as_sent], usage, total, calls, failure if answered else failure or latest
    )


class _Patience:
    """How long to hold back while calls fail, and nothing succeeds in between."""

    def __init__(self, lots: random.Random) -> None:
        self._lots = lots
        self._last = -math.inf
        self.renewed()

    def renewed(self) -> None:
        """A call was answered."""
        self.strikes, self.until = 0, -math.inf

    def tried(self, sent_at: float, now: float) -> None:
        """A call failed; one that was under way when another failed is not held against the other side twice."""
        if sent_at <= self._last:
            return
        self.strikes, self._last = self.strikes + 1, now
        if self.strikes > 1:
            self.until = now + min(0.25 * 2**self.strikes, _LONGEST_PAUSE) * (0.5 + self._lots.random())


@dataclass(frozen=True)
class _Came:
    """What a thread brought back."""

    chunk: Chunk
    sent_at: float
    result: Reply | CallFailed


class _Senders:
    """Threads that send one request each, so that a slow answer holds up no other."""

    def __init__(self, client: Claude) -> None:
        self._client = client
        self._todo: SimpleQueue[tuple[Chunk, float, dict[str, Any]] | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[Chunk, float, Reply | BaseException]] = SimpleQueue()
        self._started = 0
        self.busy = 0

    def __enter__(self) -> _Senders:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for _ in range(self._started):
            self._todo.put(None)

    def send(self, chunk: Chunk, params: dict[str, Any], now: float) -> None:
        """Send a request from a thread that has nothing to do."""
        self.busy += 1
        if self._started < self.busy:
            self._started += 1
            threading.Thread(target=self._work, name="labelhub-ask", daemon=True).start()
        self._todo.put((chunk, now, params))

    def wait(self, seconds: float) -> _Came | None:
        """Return what came back, or None when nothing did in so many seconds, or in one.

        Raises: what the client raised, if that is no CallFailed.
        """
        try:
            chunk, sent_at, result = self._done.get(timeout=min(max(seconds, 0.0), _LONGEST_WAIT))
        except Empty:
            return None
        self.busy -= 1
        if isinstance(result, BaseException) and not isinstance(result, CallFailed):
            raise result
        return _Came(chunk, sent_at, result)

    def _work(self) -> None:
        while (job := self._todo.get()) is not None:
            chunk, sent_at, params = job
            try:
                self._done.put((chunk, sent_at, self._client.send(params)))
            except BaseException as error:  # a thread that dies in silence would be waited for without end
                self._done.put((chunk, sent_at, error))

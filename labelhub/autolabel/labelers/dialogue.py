"""What to ask a language model next about a list of texts, whatever came back so far.

Pure bookkeeping: it knows no network, no clock and no database, so one set of rules serves a run with many workers
and a notebook. The driver asks ``next`` for a chunk, sends it, and reports with ``heard`` or ``failed``. However the
answers look and in whatever order they come, every text gets exactly one outcome within a bounded number of calls,
and a text that has its outcome is never sent again: an answer is paid for once.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .llm import CallFailed
    from .reply import Reading, Said

MOST_TRIES = 5  # of one call, when the connection or the other side fails
PER_CALL = 20  # texts
MOST_CHARACTERS = 40_000  # per call

_SHORTEST_SECONDS, _LONGEST_SECONDS = 0.5, 30.0
_LONGEST_TOLD = 3600.0  # seconds; a server that names a longer time is not waited for that long
_TOGETHER, _SINGLY = (
    2,
    3,
)  # a text left out of an answer is asked again with others twice, then once by itself


@dataclass(frozen=True, slots=True)
class Chunk:
    """Texts that go into one call.

    Attributes:
        places: positions in the list; the first has id 1 in the call, the next id 2, and so on.
        tries: how often this call failed for a reason that passes, in [0, MOST_TRIES).
        roomier: the answer was cut off once: allow it twice the length.
        missed: how many answers left these texts out.
        repeated: the same call was made once before and its answer could not be read.
    """

    places: tuple[int, ...]
    tries: int = 0
    roomier: bool = False
    missed: int = 0
    repeated: bool = False


class Dialogue:
    """The open questions about a list of texts, and the outcomes so far.

    - Texts that an answer leaves out are asked again: together twice, then each by itself, then "no_answer".
    - An answer of which nothing can be used is asked for again by halves. For one text, "truncated" is asked once more
      with more room and "malformed" once more as it was; "refused" and "too_long" are final at once.
    - A call that failed for a reason that passes is repeated after a delay that doubles, or after as long as the
      other side asks for, whichever is longer; after MOST_TRIES its texts have the problem "llm_error".
      Where the rate limit names a time, nothing at all goes out before.
    - A rejected call of several texts is repeated text by text; of one, it is "llm_rejected".

    Args:
        sizes: characters of each text as it is sent, that is, after cutting.
        per_call: most texts in a call, at least 1.
        most_characters: most characters in a call; a longer text goes by itself.
    Raises: ValueError when per_call is below 1.
    """

    def __init__(
        self, sizes: Sequence[int], per_call: int = PER_CALL, most_characters: int = MOST_CHARACTERS
    ) -> None:
        if per_call < 1:
            raise ValueError(f"A call needs at least one text, not {per_call}.")
        self.outcomes: dict[int, Said | str] = {}
        self._count = len(sizes)
        self._ready = deque(_chunks(sizes, per_call, most_characters))
        self._delayed: list[tuple[float, int, Chunk]] = []  # a heap: moment, order of arrival, chunk
        self._delays = 0
        self._sent: set[Chunk] = set()
        self._hold = -math.inf  # nothing goes out before this moment

    @property
    def finished(self) -> bool:
        """Every text has its outcome."""
        return len(self.outcomes) == self._count

    @property
    def waiting(self) -> int:
        """Chunks that were sent and not answered."""
        return len(self._sent)

    def next(self, now: float) -> Chunk | None:
        """Return a chunk to send now and count it as sent, or None when there is nothing to send yet.

        Args:
            now: seconds on the driver's clock, the same clock as in ``failed``.
        """
        if now < self._hold:
            return None
        if self._delayed and self._delayed[0][0] <= now:
            chunk = heapq.heappop(self._delayed)[2]
        elif self._ready:
            chunk = self._ready.popleft()
        else:
            return None
        self._sent.add(chunk)
        return chunk

    @property
    def has_ready(self) -> bool:
        """A chunk could go out that waits for no moment."""
        return bool(self._ready)

    def put_back(self, chunk: Chunk) -> None:
        """Take back a chunk that ``next`` gave and that was not sent after all; it comes first again.

        Raises: ValueError when the chunk is not waiting for an answer.
        """
        self._take_back(chunk)
        self._ready.appendleft(chunk)

    def ready_at(self) -> float | None:
        """Return the earliest moment when a delayed chunk may go, or None when nothing is delayed."""
        if self._ready:
            return None if self._hold == -math.inf else self._hold
        return max(self._delayed[0][0], self._hold) if self._delayed else None

    def heard(self, chunk: Chunk, reading: Reading) -> list[int]:
        """Take in an answer.

        Args:
            chunk: what was sent.
            reading: what was read in the answer; ids that it says nothing about count as missing.
        Returns: the positions that have their outcome by this, in order.
        Raises: ValueError when the chunk is not waiting for an answer.
        """
        self._take_back(chunk)
        if reading.whole is not None:
            return self._unusable(chunk, reading.whole)
        settled: list[int] = []
        missing: list[int] = []
        for number, place in enumerate(chunk.places, 1):
            outcome = reading.said.get(number) or reading.problems.get(number)
            if outcome is None:
                missing.append(place)
            else:
                self.outcomes[place] = outcome
                settled.append(place)
        return sorted(settled + self._left_out(chunk, tuple(missing)))

    def failed(
        self, chunk: Chunk, failure: CallFailed, now: float, jitter: float, counts: bool = True
    ) -> list[int]:
        """Take in a call without an answer.

        Args:
            chunk: what was sent.
            failure: why there is no answer, not a fatal one: after those, the driver stops.
            now: seconds on the driver's clock.
            jitter: a random number in [0, 1), so that calls that failed together do not come back together.
            counts: this is one of the tries that the call has; false where nobody gets an answer, whatever he asks.
        Returns: the positions that have their outcome by this, in order.
        Raises: ValueError when the failure is fatal, or the chunk is not waiting for an answer.
        """
        if failure.fatal:
            raise ValueError(f"nothing can be asked after the failure “{failure.kind}”")
        self._take_back(chunk)
        if not failure.transient:
            if len(chunk.places) == 1:
                return self._settle(chunk.places, "llm_rejected")
            self._again(*(replace(chunk, places=(place,), tries=0) for place in chunk.places))
            return []
        told = min(failure.retry_after or 0.0, _LONGEST_TOLD)
        if failure.kind == "busy" and told > 0:
            self._hold = max(self._hold, now + told)
        if counts and chunk.tries + 1 >= MOST_TRIES:
            return self._settle(chunk.places, "llm_error")
        seconds = min(_SHORTEST_SECONDS * 2**chunk.tries, _LONGEST_SECONDS) * (0.5 + jitter)
        self._delays += 1
        heapq.heappush(
            self._delayed,
            (now + max(seconds, told), self._delays, replace(chunk, tries=chunk.tries + counts)),
        )
        return []

    def _unusable(self, chunk: Chunk, problem: str) -> list[int]:
        """Ask by halves, or once more where that can help, or settle."""
        chunk = replace(chunk, tries=0)
        if len(chunk.places) > 1:
            middle = len(chunk.places) // 2
            self._again(
                replace(chunk, places=chunk.places[:middle]), replace(chunk, places=chunk.places[middle:])
            )
        elif problem == "truncated" and not chunk.roomier:
            self._again(replace(chunk, roomier=True))
        elif problem == "malformed" and not chunk.repeated:
            self._again(replace(chunk, repeated=True))
        else:
            return self._settle(chunk.places, problem)
        return []

    def _left_out(self, chunk: Chunk, missing: tuple[int, ...]) -> list[int]:
        """Ask again for texts that an answer left out, or settle them."""
        if not missing:
            return []
        chunk = replace(chunk, places=missing, tries=0, missed=chunk.missed + 1)
        if chunk.missed <= _TOGETHER:
            self._again(chunk)
        elif chunk.missed == _SINGLY:
            self._again(*(replace(chunk, places=(place,)) for place in missing))
        else:
            return self._settle(missing, "no_answer")
        return []

    def _again(self, *chunks: Chunk) -> None:
        """Ask before anything new, so that what was begun is finished first."""
        self._ready.extendleft(reversed(chunks))

    def _settle(self, places: tuple[int, ...], problem: str) -> list[int]:
        self.outcomes.update(dict.fromkeys(places, problem))
        return sorted(places)

    def _take_back(self, chunk: Chunk) -> None:
        if chunk not in self._sent:
            raise ValueError(f"no answer was awaited for the texts at {chunk.places}")
        self._sent.remove(chunk)


def _chunks(sizes: Sequence[int], per_call: int, most_characters: int) -> list[Chunk]:
    """Fill chunks in the order of the list."""
    chunks: list[Chunk] = []
    places: list[int] = []
    characters = 0
    for place, size in enumerate(sizes):
        if places and (len(places) == per_call or characters + size > most_characters):
            chunks.append(Chunk(tuple(places)))
            places, characters = [], 0
        places.append(place)
        characters += size
    if places:
        chunks.append(Chunk(tuple(places)))
    return chunks

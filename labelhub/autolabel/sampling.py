"""Seeded samples from a named pool: who is drawn, in which order, from exactly what.

A sample is evidence only if nobody could choose it and everybody can repeat it. So the seed is an argument
(the server takes a fresh one from the operating system), the draw is a pure function of seed and pool, and
the pool has a fingerprint that is stored with the sample.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from labelhub.autolabel.certify import UNIT, most_errors_allowed, tolerated

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LINES_AT_ONCE = 10_000


def draw(seed: int, ids: Sequence[int] | NDArray[np.int64], n: int) -> list[int]:
    """Draw ``n`` items of the pool, simple random without replacement, in the order of answering.

    Every first part of the answer is a simple random sample too, so people may stop or be counted at any
    rank.

    Args:
        seed: 128 bits, fresh for each sample and chosen by nobody who knows the pool.
        ids: the items of the pool, strictly ascending, so that the draw depends on the pool and not on a
            query.
        n: sample size, in [0, len(ids)].
    Returns: item ids; ``Generator(PCG64(seed)).permutation(ids)[:n]``.
    Raises: ValueError on a seed, an order or a size outside its range.
    Source: docs/statistics.md, "The draw".
    """
    import numpy as np

    if not 0 <= seed < 2**128:
        raise ValueError("a seed has 128 bits")
    pool = np.asarray(ids, dtype=np.int64)
    if pool.ndim != 1 or not bool(np.all(pool[1:] > pool[:-1])):
        raise ValueError("the pool must be a list of ascending ids without repeats")
    if not 0 <= n <= len(pool):
        raise ValueError(f"cannot draw {n} of {len(pool)} items")
    drawn: list[int] = np.random.Generator(np.random.PCG64(seed)).permutation(pool)[:n].tolist()
    return drawn


def pool_hash(ids: Iterable[int], ranks: Iterable[int], labels: Iterable[str]) -> str:
    r"""Return the fingerprint of a frozen pool: SHA-256 over its items, ranks and labels, as 64 hex digits.

    Hashed is one line per item in ascending order of id, in ASCII: the id and the rank as decimal numbers and
    the label as a JSON string (non-ASCII as ``\uXXXX``), separated by one tab, closed by one line feed. So
    ``7<TAB>850000000123<TAB>"spam"<LF>``; the empty pool is the hash of nothing. Reads its arguments once, as
    a stream; memory does not grow with the pool.

    Args:
        ids: item ids, strictly ascending.
        ranks: the rank of each item.
        labels: the machine's label of each item.
    Raises: ValueError when ids do not ascend or the three differ in length.
    """
    digest = hashlib.sha256()
    quoted: dict[str, str] = {}  # a pool has few labels: quoting each once is most of the speed
    previous = None
    rows = zip(ids, ranks, labels, strict=True)
    while batch := list(islice(rows, LINES_AT_ONCE)):
        lines = []
        for item, rank, label in batch:
            if previous is not None and item <= previous:
                raise ValueError("the pool must come in ascending order of id, without repeats")
            previous = item
            text = quoted.get(label)
            if text is None:
                text = quoted[label] = json.dumps(label)
            lines.append(f"{item}\t{rank}\t{text}\n")
        digest.update("".join(lines).encode("ascii"))
    return digest.hexdigest()


def spot_check_size(
    accepted: int, target_error: float = 0.05, alpha: float = 0.05, share: float = 0.04, most: int = 600
) -> int:
    """Return how many accepted labels to check: a share, but enough to prove the target with one error.

    ``min(accepted, max(n1, min(ceil(share * accepted), most)))``, where n1 is the least sample that still
    proves the target when it shows one error. For a large pool at 5 %, n1 is 93 at alpha .05 and 99 at .04,
    the alpha of a first attempt: pass the alpha that the check will be tested at.

    Args:
        accepted: labels that the check is drawn from.
        target_error: share of them that may be wrong, in [0, 1).
        alpha: chance of a false proof, in (0, 1).
        share: part to check, in [0.03, 0.05].
        most: largest sample that ``share`` asks for.
    Returns: a sample size; everything when the pool is too small for one error to be tolerated.
    Raises: ValueError on a number outside its range.
    Source: docs/statistics.md, "Spot check".
    """
    if not 0.03 <= share <= 0.05:
        raise ValueError(f"a spot check takes 3 to 5 % of the accepted labels, not {share:.1%}")
    if accepted < 0 or most < 0 or not 0 < alpha < 1:
        raise ValueError(f"no spot check of {accepted} labels at alpha {alpha}, at most {most}")
    by_share = min(math.ceil(share * accepted - UNIT), most)
    by_test = _least_with_one_error(accepted, tolerated(accepted, target_error), alpha)
    return min(accepted, max(by_test, by_share))


def _least_with_one_error(pool: int, budget: int, alpha: float) -> int:
    """Return the least sample that proves the budget with one error, or the whole pool where none does."""
    low, high = 0, pool
    while low < high:
        middle = (low + high) // 2
        if most_errors_allowed(pool, budget, middle, alpha) >= 1:
            high = middle
        else:
            low = middle + 1
    return high

"""Which reviewed examples a language model is shown: near to what it will label, unlike each other, each label once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..types import Example
from .views import Floats, Ints, Pieces, see_meaning

LONGEST_EXAMPLE = 600  # characters; a longer one costs more than it teaches
MOST_SHOWN = 12  # examples in a prompt, and no more than two per label
MOST_TEXTS = 400  # texts that stand for all
MOST_CANDIDATES = 5_000
TOO_ALIKE = 0.95  # cosine
_NOTHING = 1e-6


def choose_examples(pool: Sequence[Example], texts: Sequence[str], most: int, seed: int) -> list[int]:
    """Return the places of the examples to show, in the order in which they were chosen.

    Each step takes the example that adds most to how near every text is to its nearest example shown (greedy facility
    location on the cosine of static embeddings); first among the labels that have none yet, then among all. When
    nothing is left to gain, every text gets a further neighbor. Two examples that are nearly the same are never shown
    together, even where a label then has none.

    Args:
        pool: reviewed examples; empty ones and those above LONGEST_EXAMPLE characters are passed over.
        texts: what will be labeled, or a part of it; the pool stands in when there are none.
        most: how many to choose at most.
        seed: of the sample of texts and, for a large pool, of candidates; not negative.
    Raises: ValueError when ``most`` is negative; FileNotFoundError without the package of the word vectors.
    Source: greedy maximisation of a submodular function, Nemhauser, Wolsey and Fisher 1978.
    """
    if most < 0:
        raise ValueError(f"cannot choose {most} examples")
    rng = np.random.default_rng(seed)
    candidates = _candidates(pool, rng)
    if not candidates or not most:
        return []
    seen = see_meaning(Pieces([pool[i].text for i in candidates]))
    alike = _alike(seen, texts, rng)
    labels = np.array([pool[i].label for i in candidates], dtype=object)
    free = np.ones(len(candidates), bool)
    without = free.copy()  # candidates of labels that have no example yet
    near = np.zeros(len(alike), np.float32)  # of each text to its nearest chosen example
    chosen: list[int] = []
    while len(chosen) < most and free.any():
        among = np.flatnonzero(free & without) if (free & without).any() else np.flatnonzero(free)
        gain = _gain(alike, near, among)
        if gain.max() < _NOTHING and near.any():
            near[:] = 0
            gain = _gain(alike, near, among)
        best = int(among[np.argmax(gain)])
        chosen.append(best)
        near = np.maximum(near, alike[:, best])
        free &= seen @ seen[best] <= TOO_ALIKE
        free[best] = False  # a text without any known word is like nothing, not even itself
        without &= labels != labels[best]
    return [candidates[i] for i in chosen]


def most_to_show(labels: int) -> int:
    """Return how many examples a prompt with so many labels shows at most."""
    return min(MOST_SHOWN, 2 * labels)


def _candidates(pool: Sequence[Example], rng: np.random.Generator) -> list[int]:
    """Return the places of the examples that may be shown, ascending; of a large pool a sample with every label."""
    usable = [i for i, e in enumerate(pool) if e.text.strip() and len(e.text) <= LONGEST_EXAMPLE]
    if len(usable) <= MOST_CANDIDATES:
        return usable
    drawn = [usable[i] for i in rng.permutation(len(usable))]
    first = {pool[i].label: i for i in reversed(drawn)}
    return sorted({*drawn[:MOST_CANDIDATES], *first.values()})


def _alike(seen: Floats, texts: Sequence[str], rng: np.random.Generator) -> Floats:
    """Return how near each of a sample of texts is to each candidate, in [0, 1], shape (texts, candidates)."""
    if texts:
        places: Ints = np.arange(len(texts))
        if len(texts) > MOST_TEXTS:
            places = np.sort(rng.choice(len(texts), MOST_TEXTS, replace=False))
        targets = see_meaning(Pieces([texts[i] for i in places]))
    else:
        targets = seen if len(seen) <= MOST_TEXTS else seen[rng.choice(len(seen), MOST_TEXTS, replace=False)]
    return np.maximum(targets @ seen.T, 0)


def _gain(alike: Floats, near: Floats, among: Ints) -> Floats:
    """Return what each of some candidates would add to the nearness of all texts."""
    gain: Floats = np.maximum(alike[:, among] - near[:, None], 0).sum(0)
    return gain

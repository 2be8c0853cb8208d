"""Features kept between rounds: what was seen of a dataset's texts, in a file, for the next process.

A file is named after what its content follows from: a digest of the texts, the seed and the version of the
feature code. So it never has to be updated, and two processes that write it at once write the same. It is a
safetensors file, but written and read without that package, which would hold every array in memory twice. A
file that is cut short, damaged or not ours is deleted and made anew; a folder that cannot be written to costs
time only.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from labelhub.autolabel.features import TextFeatures

VERSION = 1  # of the features and of the file: to be raised when either changes
MOST_BYTES = 4_000_000_000  # of all files in a folder

_SUFFIX = ".features"
_PART = ".part"  # of files that are being written; one whose writer died is never used, and so goes first
_ALIGN = 64  # bytes
_TEXTS_AT_A_TIME = 10_000
_NAMES = {"U8": "uint8", "U16": "uint16", "I64": "int64", "F16": "float16", "F32": "float32"}
_KINDS = {np.dtype(kind): name for name, kind in _NAMES.items()}

Arrays = dict[str, npt.NDArray[Any]]
log = logging.getLogger(__name__)


def load_or_make(
    folder: Path, texts: Sequence[str], seed: int = 0, most_bytes: int = MOST_BYTES, sentence: bool = False
) -> TextFeatures:
    """Return the features of a dataset, from the folder if they are there, else made and put there.

    Args:
        folder: made if it is missing; used for nothing else.
        texts: of the dataset, in order; at least 1.
        seed, sentence: see ``TextFeatures.of``.
        most_bytes: the folder's limit; see ``forget``. Larger features are not kept at all.
    Returns: the same features whether loaded or made. Loaded arrays are mapped from the file, read-only.
    Raises: as ``TextFeatures.of``, if they are not there.
    """
    key = digest(texts, seed, sentence)
    path = folder / f"{key}{_SUFFIX}"
    found = _load(path, key, texts)
    if found is not None:
        return found
    features = TextFeatures.of(texts, seed, sentence)
    arrays = features.to_arrays()
    header = _header(key, arrays)
    size = len(header) + sum(array.nbytes for array in arrays.values())
    try:
        if size <= most_bytes:
            folder.mkdir(parents=True, exist_ok=True)
            forget(folder, most_bytes - size)
            _write(path, header, arrays)
    except OSError as error:
        log.warning("Features cannot be kept in %s, so each round makes them anew: %s", folder, error)
    return features


def forget(folder: Path, most_bytes: int) -> None:
    """Delete features until at most so many bytes are left in a folder, those used longest ago first.

    Features in use are safe: their process keeps the deleted file. Other files are left alone.

    Raises: OSError when the folder cannot be read or a file cannot be deleted.
    """
    used = []
    for path in folder.iterdir():
        if path.suffix in (_SUFFIX, _PART):
            try:
                facts = path.stat()
            except FileNotFoundError:  # another process was quicker
                continue
            used.append((facts.st_mtime, facts.st_size, path))
    kept = 0
    for _, size, path in sorted(used, reverse=True):
        kept += size
        if kept > most_bytes:
            path.unlink(missing_ok=True)


def digest(texts: Sequence[str], seed: int, sentence: bool = False) -> str:
    """Return SHA-256 over the texts, how they are seen, and the version of the code, in hexadecimal."""
    sha = hashlib.sha256(f"{VERSION} {seed} {sentence} {len(texts)}".encode())
    for start in range(0, len(texts), _TEXTS_AT_A_TIME):
        part = texts[start : start + _TEXTS_AT_A_TIME]
        sha.update(np.array([len(text) for text in part], np.int64).tobytes())  # where one ends
        sha.update("".join(part).encode("utf-8", "surrogatepass"))
    return sha.hexdigest()


def _load(path: Path, key: str, texts: Sequence[str]) -> TextFeatures | None:
    """Return the features in a file, or None; a file that does not hold them is deleted."""
    try:
        features = TextFeatures.from_arrays(texts, _read(path, key))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # json, numpy and the disk each have their own
        log.warning("The features in %s cannot be read and are made anew: %s", path, error)
        with suppress(OSError):  # what cannot be deleted may still be replaced
            path.unlink(missing_ok=True)
        return None
    with suppress(OSError):  # a folder may be read-only
        os.utime(path)  # used now
    return features


def _header(key: str, arrays: Arrays) -> bytes:
    """Return the beginning of a safetensors file; the arrays follow in the order of the dictionary."""
    header: dict[str, Any] = {"__metadata__": {"key": key, "crc32": str(_checksum(arrays))}}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        header[name] = {"dtype": _KINDS[array.dtype], "shape": array.shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % _ALIGN)
    return len(text).to_bytes(8, "little") + text


def _write(path: Path, header: bytes, arrays: Arrays) -> None:
    """Write a file that appears under its name only when it is whole."""
    file = tempfile.NamedTemporaryFile(dir=path.parent, suffix=_PART, delete=False)  # noqa: SIM115
    try:
        with file:
            file.write(header)
            for array in arrays.values():
                file.write(_bytes(array))
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).replace(path)
    except BaseException:
        Path(file.name).unlink(missing_ok=True)
        raise


def _read(path: Path, key: str) -> Arrays:
    """Map the arrays of a file. Raises: one error or another when it is not such a file, or not whole."""
    raw = np.memmap(path, np.uint8, "r")
    body = 8 + int.from_bytes(raw[:8].tobytes(), "little")
    header = json.loads(raw[8:body].tobytes())
    facts = header.pop("__metadata__")
    arrays = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        array = np.asarray(raw[body + start : body + end]).view(_NAMES[entry["dtype"]])
        arrays[name] = array.reshape(entry["shape"])
    if facts["key"] != key or facts["crc32"] != str(_checksum(arrays)):
        raise ValueError("it is damaged, or another file")
    return arrays


def _checksum(arrays: Arrays) -> int:
    total = 0
    for array in arrays.values():
        total = zlib.crc32(_bytes(array), total)
    return total


def _bytes(array: npt.NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data

"""A fitted labeler as bytes and back: numbers, strings and JSON, never code."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

FORMAT = 1

Arrays = dict[str, npt.NDArray[Any]]


def write_state(facts: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Return facts (anything JSON can hold) and arrays as one compressed NumPy archive.

    The same content gives the same bytes.
    """
    text = json.dumps({"format": FORMAT, **facts}, ensure_ascii=False).encode("utf-8", "replace")
    file = io.BytesIO()
    named: dict[str, Any] = {"facts": np.frombuffer(text, np.uint8), **arrays}
    np.savez_compressed(file, **named)
    return file.getvalue()


def read_state(state: bytes) -> tuple[dict[str, Any], Arrays]:
    """Undo ``write_state``. Raises: ValueError when the bytes are not such an archive."""
    try:
        with np.load(io.BytesIO(state), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        facts = json.loads(arrays.pop("facts").tobytes())
    except Exception as error:  # zipfile, zlib, json and numpy each have their own
        raise ValueError("These bytes are not a learned labeler.") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise ValueError("This labeler was learned by another version of LabelHub: learn it again.")
    return facts, arrays


def pack(strings: Iterable[str]) -> npt.NDArray[np.uint8]:
    """Return strings without line breaks as one array of bytes."""
    return np.frombuffer("\n".join(strings).encode("utf-8"), np.uint8)


def unpack(array: npt.NDArray[np.uint8]) -> list[str]:
    """Undo ``pack``."""
    text = array.tobytes().decode("utf-8")
    return text.split("\n") if text else []

"""Tokens and the prompt cache, counted in bytes: four bytes of UTF-8 are a token, rounded up.

A count of bytes is no tokenizer, but it is the same for everybody, and close for English text.
"""

from __future__ import annotations

import hashlib
import threading
from typing import Any

import orjson

BYTES_PER_TOKEN = 4
LEAST_CACHED = 512  # tokens from which the prompt cache keeps a prefix
SECONDS = {"5m": 300.0, "1h": 3600.0}  # how long it keeps it after the last use
_MOST_KEPT = 1_000  # prefixes


def tokens(size: int) -> int:
    """Return the tokens of some bytes."""
    return -(-size // BYTES_PER_TOKEN)


class Cache:
    """The prompt cache: which beginnings of prompts have been seen, and until when they are kept."""

    def __init__(self) -> None:
        self._until: dict[bytes, float] = {}
        self._lock = threading.Lock()

    def count(self, params: dict[str, Any], now: float, found: bool | None = None) -> dict[str, Any]:
        """Return the input side of a request's usage, and remember its cached beginning.

        Args:
            params: the checked parameters of the request.
            now: seconds, on a clock that only goes forward.
            found: whether the beginning is taken as kept, without looking and without remembering; None to look.
        """
        size, kept, ttl = _sizes(params)
        written = read = 0
        if tokens(len(kept)) >= LEAST_CACHED:
            if found is None:
                schema = orjson.dumps((params.get("output_config") or {}).get("format"))
                found = self._look(
                    params["model"].encode() + b"\0" + schema + b"\0" + kept, now, SECONDS[ttl]
                )
            written, read = (0, tokens(len(kept))) if found else (tokens(len(kept)), 0)
            size -= len(kept)
        return {
            "input_tokens": tokens(size),
            "cache_creation_input_tokens": written,
            "cache_read_input_tokens": read,
            "cache_creation": {
                "ephemeral_5m_input_tokens": written if ttl == "5m" else 0,
                "ephemeral_1h_input_tokens": written if ttl == "1h" else 0,
            },
        }

    def _look(self, prefix: bytes, now: float, seconds: float) -> bool:
        key = hashlib.sha256(prefix).digest()
        with self._lock:
            found = self._until.get(key, 0.0) > now
            self._until[key] = now + seconds
            if len(self._until) > _MOST_KEPT:
                self._until = {key: until for key, until in self._until.items() if until > now}
        return found


def _sizes(params: dict[str, Any]) -> tuple[int, bytes, str]:
    """Return the bytes of all that is sent, the cached beginning of the system prompt, and how long it is kept."""
    system = params.get("system", "")
    blocks: list[dict[str, Any]] = [{"text": system}] if isinstance(system, str) else system
    texts = [block["text"].encode() for block in blocks]
    marked = [place for place, block in enumerate(blocks) if block.get("cache_control")]
    kept = b"".join(texts[: marked[-1] + 1]) if marked else b""
    ttl = blocks[marked[-1]]["cache_control"].get("ttl", "5m") if marked else "5m"
    size = sum(map(len, texts))
    for message in params["messages"]:
        content = message["content"]
        parts = [content] if isinstance(content, str) else [block["text"] for block in content]
        size += sum(len(part.encode()) for part in parts)
    form = (params.get("output_config") or {}).get("format")
    return size + (len(orjson.dumps(form["schema"])) if form else 0), kept, ttl

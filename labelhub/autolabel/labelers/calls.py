"""What a call to the Anthropic API comes to: an answer or a failure, as values that know nothing of the network.

Reads plain JSON. What the API adds is passed over; what it leaves out makes the answer unreadable, which is a failure of
the server and not an answer.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from ..prices import Usage
from .prompt import visible

LONGEST_REASON = 300  # characters of an explanation by the API that are passed on

T = TypeVar("T")

TRANSIENT = frozenset({"busy", "overloaded", "server", "timeout", "connection"})
SENTENCES = {
    "busy": "Anthropic asks for fewer requests per minute; try again a little later.",
    "overloaded": "Anthropic is overloaded at the moment; try again later.",
    "server": "Anthropic had an error of its own; try again later.",
    "timeout": "Anthropic did not answer in time; try again later.",
    "connection": "Anthropic could not be reached, or the connection broke; try again later.",
    "rejected": "Anthropic refused this request",  # the API's own reason follows
    "key": "Anthropic does not accept the API key: put a valid one into ANTHROPIC_API_KEY.",
    "forbidden": "This API key may not do that: use another key, or have its permissions changed in the Anthropic Console.",
    "credit": "The credit at Anthropic is used up: add credit in the Anthropic Console, then go on.",
    "spend_limit": "The spend limit at Anthropic is reached: raise it in the Anthropic Console, then go on.",
    "model": "Anthropic does not know this model, or has retired it: choose another model.",
}
UNREADABLE = "Anthropic's answer cannot be read; try again later."


class CallFailed(Exception):
    """A call without an answer.

    Attributes:
        kind: "busy", "overloaded", "server", "timeout", "connection" (transient); "rejected" (this request is at fault);
            "key", "forbidden", "credit", "spend_limit", "model" (fatal: no other request would fare better).
        sentence: for people; says what to do. Never holds the key.
        retry_after: seconds that the API asks to wait, or None.
        request_id: for a question to Anthropic, or None.
        status: of HTTP, or None when there was no response.
        unsent: no connection came about, so the request never left.
    """

    def __init__(
        self,
        kind: str,
        sentence: str,
        retry_after: float | None = None,
        request_id: str | None = None,
        status: int | None = None,
        unsent: bool = False,
    ) -> None:
        super().__init__(kind, sentence, retry_after, request_id, status)
        self.kind, self.sentence, self.retry_after = kind, sentence, retry_after
        self.request_id, self.status, self.unsent = request_id, status, unsent

    def __str__(self) -> str:
        return self.sentence

    @property
    def transient(self) -> bool:
        """True when the same request may succeed later."""
        return self.kind in TRANSIENT

    @property
    def may_be_paid(self) -> bool:
        """True when the answer may have been made, and is charged for, though nothing readable came of it."""
        if self.kind in ("timeout", "connection"):
            return not self.unsent
        return self.kind == "server" and (self.status is None or self.status < 400)

    @property
    def fatal(self) -> bool:
        """True when a person has to do something before any request can succeed."""
        return not self.transient and self.kind != "rejected"


@dataclass(frozen=True)
class Reply:
    """An answer as it came.

    Attributes:
        stop_reason: why the model stopped; see ``reply.read``.
        text: the text blocks of the message, joined.
        raw: the whole message as JSON, to be kept.
        usage: what was used, to be paid even for an answer that is of no use.
        model: as the API names it.
        request_id: for a question to Anthropic; None in a batch.
        fake: it came from the local stand-in for the API.
    """

    stop_reason: str | None
    text: str
    raw: str
    usage: Usage
    model: str
    request_id: str | None
    fake: bool = False


@dataclass(frozen=True)
class Model:
    """A model as the API lists it: lifecycle is "active", "deprecated" or "retired"."""

    id: str
    name: str
    lifecycle: str
    retires_at: datetime | None = None

    @property
    def sentence(self) -> str:
        """What to know before using it; empty when there is nothing."""
        when = f" on {self.retires_at.day} {self.retires_at:%B %Y}" if self.retires_at else ""
        if self.lifecycle == "retired":
            return f"{self.id} was retired{when}; choose another model."
        if self.lifecycle == "deprecated":
            return f"{self.id} will be retired{when or ' soon'}."
        return ""


@dataclass(frozen=True)
class BatchState:
    """Where a batch stands: status is "in_progress", "canceling" or "ended"; total counts its requests."""

    id: str
    status: str
    total: int
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None = None


@dataclass(frozen=True)
class BatchProblem:
    """A request of a batch without an answer: kind is "errored", "expired" or "canceled"; it cost nothing."""

    kind: str
    sentence: str


def understood(read: Callable[[], T]) -> T:
    """Return what can be read from a response. Raises: CallFailed when it is not built as it should be."""
    with suppress(ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError):
        return read()
    raise CallFailed("server", UNREADABLE)


def reply_of(message: Mapping[str, Any], raw: str, request_id: str | None, fake: bool) -> Reply:
    """Return a message of the API as a reply. Raises: see ``understood``; a message without usage is none."""
    usage = message["usage"]
    written = usage.get("cache_creation") or {}
    hour = int(written.get("ephemeral_1h_input_tokens") or 0)
    minutes = written.get("ephemeral_5m_input_tokens")
    if minutes is None:
        minutes = (usage.get("cache_creation_input_tokens") or 0) - hour
    return Reply(
        stop_reason=message["stop_reason"],
        text="".join(block["text"] for block in message["content"] if block["type"] == "text"),
        raw=raw,
        usage=Usage(
            input=int(usage["input_tokens"]),
            output=int(usage["output_tokens"]),
            cache_read=int(usage.get("cache_read_input_tokens") or 0),
            cache_write=int(minutes),
            cache_write_1h=hour,
        ),
        model=str(message["model"]),
        request_id=request_id,
        fake=fake,
    )


def model_of(info: Mapping[str, Any]) -> Model:
    """Return a model of the API's list. Raises: see ``understood``."""
    return Model(
        id=str(info["id"]),
        name=str(info.get("display_name") or info["id"]),
        lifecycle=str(info.get("lifecycle") or "active"),
        retires_at=_moment(info.get("retires_at")),
    )


def batch_of(info: Mapping[str, Any]) -> BatchState:
    """Return where a batch of the API stands. Raises: see ``understood``."""
    return BatchState(
        id=str(info["id"]),
        status=str(info["processing_status"]),
        total=sum(int(count) for count in info["request_counts"].values()),
        created_at=datetime.fromisoformat(info["created_at"]),
        expires_at=datetime.fromisoformat(info["expires_at"]),
        ended_at=_moment(info.get("ended_at")),
    )


def result_of(line: Mapping[str, Any], key: str, fake: bool) -> tuple[str, Reply | BatchProblem]:
    """Return a line of a batch's results. Raises: see ``understood``."""
    name, result = str(line["custom_id"]), line["result"]
    kind = result["type"]
    if kind == "succeeded":
        return name, reply_of(
            result["message"], json.dumps(result["message"], ensure_ascii=False), None, fake
        )
    if kind == "errored":
        error = (result.get("error") or {}).get("error") or {}
        sentence = "Anthropic could not answer this request of the batch"
        return name, BatchProblem(kind, with_reason(sentence, str(error.get("message") or ""), key))
    if kind == "expired":
        return name, BatchProblem(
            kind, "The batch ended after its 24 hours before this request was answered."
        )
    return name, BatchProblem("canceled", "The batch was canceled before this request was answered.")


def with_reason(sentence: str, reason: str, key: str) -> str:
    """Return a sentence with the API's reason, in which neither the key nor anything like one is left."""
    reason = re.sub(r"sk-[\w-]{4,}", "…", reason.replace(key, "…") if key else reason)
    reason = " ".join(visible(reason).split())[:LONGEST_REASON].rstrip(" .")
    return f"{sentence}: {reason}." if reason else f"{sentence}."


def _moment(told: str | None) -> datetime | None:
    return datetime.fromisoformat(told) if told else None


def kind_of(status: int, type: str | None, code: str | None, reason: str) -> str:
    """Return the kind of a failure from what the response says: status, type, code and reason of the error."""
    if (
        status == 402
        or type == "billing_error"
        or (status == 400 and "credit balance is too low" in reason.lower())
    ):
        return "credit"
    if status == 429:
        return "spend_limit" if code and code.endswith("spend_limit_reached") else "busy"
    if status in (503, 529):
        return "overloaded"
    if status in (408, 409) or status >= 500 or status < 400:
        return "server"
    return {401: "key", 403: "forbidden", 404: "model"}.get(status, "rejected")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a response asks to wait, at least 0; None when it does not say so."""
    told = headers.get("retry-after", "")
    seconds: float | None = None
    with suppress(ValueError):
        seconds = float(told)
    with suppress(ValueError):
        seconds = float(headers.get("retry-after-ms", "")) / 1000
    if seconds is None:
        with suppress(ValueError, OverflowError):
            seconds = parsedate_to_datetime(told).timestamp() - time.time()
    return max(seconds, 0.0) if seconds is not None and math.isfinite(seconds) else None

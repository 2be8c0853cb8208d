"""The items of a request, answered from the recorded labels, and spoiled where a fault says so."""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import Any

import orjson

from labelhub.autolabel.labelers.prompt import WORDINGS
from labelhub.fakeclaude.replay import Replay
from labelhub.fakeclaude.usage import BYTES_PER_TOKEN, tokens

_ITEM = re.compile(r'<item id="([^"]*)">(.*?)</item>', re.DOTALL)
_SENTENCE = re.compile(r"[^.!?\n]+")
_ORDER = re.compile(
    r"\b(answer|ignore|disregard|label|classify|output|respond|reply|say|return|choose|must|instructions?|"
    r"assistant|system|override|confidence)\b",
    re.IGNORECASE,
)
QUOTED_WORDS = 6


@dataclass(frozen=True)
class Asked:
    """What a request asks for.

    Attributes:
        ask: the number of the wording, from 1.
        items: ids and texts, as they stand in the last message.
        labels: the labels that the schema allows, or None where it is not a list of labels.
        quotes: whether the schema has a quote; text_ids: whether its ids are strings.
    """

    model: str
    ask: int
    items: tuple[tuple[str, str], ...]
    labels: tuple[str, ...] | None
    quotes: bool
    text_ids: bool


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        text: what the model says; None for a refusal.
        stop_reason: why it stops.
        answered: digests of the texts that got a label here which the schema allows.
    """

    text: str | None
    stop_reason: str
    answered: tuple[str, ...] = ()


def asked(params: dict[str, Any]) -> Asked:
    """Return what checked parameters ask for."""
    content = params["messages"][-1]["content"]
    body = content if isinstance(content, str) else "\n".join(block["text"] for block in content)
    form = (params.get("output_config") or {}).get("format")
    item = _item_schema(form["schema"]) if form else {}
    labels = item.get("label", {}).get("enum")
    return Asked(
        model=params["model"],
        ask=_ask(body),
        items=tuple((name, html.unescape(text)) for name, text in _ITEM.findall(body)),
        labels=tuple(labels) if labels is not None else None,
        quotes="quote" in item,
        text_ids=item.get("id", {}).get("type") == "string",
    )


def answer(
    wanted: Asked,
    replay: Replay,
    obedient: bool = False,
    fault: str | None = None,
    chance: Random | None = None,
) -> Answer:
    """Answer a request.

    Args:
        wanted: from ``asked``.
        replay: the recorded labels; a text that is not among them is left out.
        obedient: whether instructions in a text are followed: the last label named in one, confidence 1.
        fault: one of ``faults.CONTENT``, or None.
        chance: which way it goes wrong, where there are several.
    """
    if fault == "refusal":
        return Answer(None, "refusal")
    if wanted.labels is None:
        return _spoiled("I can only label lists of items.", fault, chance)
    entries, digests = [], []
    for name, text in wanted.items:
        said = _obeyed(text, wanted.labels) if obedient else None
        if said is None and (row := replay.find(text)) is not None:
            said = replay.say(row, wanted.model, wanted.ask)
        if said is None or said[0] not in wanted.labels:
            continue
        number = int(name) if name.isdecimal() and not wanted.text_ids else name
        entry: dict[str, Any] = {"id": number, "label": said[0], "confidence": said[1]}
        if wanted.quotes:
            entry["quote"] = " ".join(text.split()[:QUOTED_WORDS])
        entries.append(entry)
        digests.append(hashlib.sha256(text.encode()).hexdigest()[:16])
    spoiled = _misled(entries, wanted, fault) if entries else set()
    return _spoiled(
        orjson.dumps({"labels": entries}).decode(),
        fault,
        chance,
        tuple(digest for place, digest in enumerate(digests) if place not in spoiled),
    )


def message(
    params: dict[str, Any], given: Answer, usage: dict[str, Any], name: str, tier: str
) -> dict[str, Any]:
    """Return the API's message: an answer, cut at ``max_tokens``, with its usage.

    Args:
        params: of the request; usage: its input side, from ``usage.Cache``.
        name: the id of the message; tier: "standard" or "batch".
    """
    text, stop_reason = given.text, given.stop_reason
    most = params["max_tokens"] * BYTES_PER_TOKEN
    if text is not None and len(said := text.encode()) > most:
        text, stop_reason = said[:most].decode(errors="ignore"), "max_tokens"
    refused = {"type": "refusal", "category": "general_harms", "explanation": "The request was declined."}
    spent = params["max_tokens"] if stop_reason == "max_tokens" else tokens(len((text or "").encode()))
    return {
        "id": name,
        "type": "message",
        "role": "assistant",
        "model": params["model"],
        "content": [{"type": "text", "text": text, "citations": None}] if text is not None else [],
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "stop_details": refused if stop_reason == "refusal" else None,
        "usage": {**usage, "output_tokens": spent, "service_tier": tier},
    }


def _item_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the properties of one item in the schema of a list of labels, or an empty dict."""
    try:
        properties = schema["properties"]["labels"]["items"]["properties"]
        return properties if "id" in properties and "enum" in properties["label"] else {}
    except (KeyError, TypeError):
        return {}


def _ask(body: str) -> int:
    """Return the number of the ask whose wording a message begins with; 1 if it has none of them."""
    start = body.lstrip()
    fitting = [(len(w), number) for number, w in enumerate(WORDINGS, start=1) if start.startswith(w)]
    return max(fitting)[1] if fitting else 1


def _obeyed(text: str, labels: Iterable[str]) -> tuple[str, float] | None:
    """Return the label that an instruction in the text demands, or None."""
    for sentence in reversed(_SENTENCE.findall(text)):
        if not _ORDER.search(sentence):
            continue
        found = [
            (match.end(), len(label), label)
            for label in labels
            for match in re.finditer(rf"(?<!\w){re.escape(label)}(?!\w)", sentence, re.IGNORECASE)
        ]
        if found:
            return max(found)[2], 1.0
    return None


def _misled(entries: list[dict[str, Any]], wanted: Asked, fault: str | None) -> set[int]:
    """Spoil single entries; return the places, in the original order, of those that are no answer any more."""
    first = entries[0]
    if fault == "off_schema":
        first["label"] = "a label that nobody offered"
        return {0}
    if fault == "bad_confidence":
        first["confidence"] = 1.7
        if len(entries) > 1:
            entries[1]["confidence"] = "95%"
        return {0, 1}
    if fault == "wrong_ids":
        assert wanted.labels is not None
        last = len(entries) - 1
        stranger = {
            **entries[-1],
            "id": f"{len(wanted.items) + 7}" if wanted.text_ids else len(wanted.items) + 7,
        }
        other = next((label for label in wanted.labels if label != first["label"]), first["label"])
        if last:
            del entries[-1]
        entries += [{**first, "label": other}, stranger]
        return {0, last}
    return set()


def _spoiled(text: str, fault: str | None, chance: Random | None, answered: tuple[str, ...] = ()) -> Answer:
    """Return the answer, spoiled as a whole where the fault says so."""
    if fault == "truncation":
        return Answer(text[: len(text) * 3 // 5], "max_tokens")
    if fault == "malformed":
        ways = (
            "I would rather talk about the weather.",
            text[:-2],
            text.replace('"labels"', "labels"),
            '{"labels": [{"id": 1, "label": "x", "confidence": NaN}]}',
            "",
        )
        return Answer((chance or Random(0)).choice(ways), "end_turn")
    if fault == "prose":
        text = f"Here are the labels you asked for:\n\n```json\n{text}\n```\n\nTell me if you need more."
    return Answer(text, "end_turn", answered)

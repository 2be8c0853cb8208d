"""The endpoints: which path and method does what, what a call counts as, and where a fault comes in between."""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from random import Random
from typing import Any

from labelhub.fakeclaude import catalogue
from labelhub.fakeclaude.answers import answer, asked, message
from labelhub.fakeclaude.batches import Batch, Batches
from labelhub.fakeclaude.check import Refused, check_batch, check_headers, check_model, check_request, parse
from labelhub.fakeclaude.counts import Counts
from labelhub.fakeclaude.faults import CONTENT, Behavior, Bucket
from labelhub.fakeclaude.replay import Replay
from labelhub.fakeclaude.usage import Cache

LARGEST_MESSAGE = 32 * 2**20  # bytes, as the API takes
RATE_LIMIT = "This request would exceed your organization's rate limit."
_BATCH = re.compile(r"/v1/messages/batches/([^/]+)(/results|/cancel)?")
_MODEL = re.compile(r"/v1/models/([^/]+)")
Query = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Reply:
    """What goes back.

    Attributes:
        body: a JSON object, or lines that go out as they are.
        retry_after: seconds for the header, or None.
        hold: seconds to keep the client waiting first.
        drop: "before" closes the connection instead of an answer, "within" in the middle of one, "" not at all.
    """

    status: int
    body: dict[str, Any] | list[bytes]
    content_type: str = "application/json"
    retry_after: float | None = None
    hold: float = 0.0
    drop: str = ""


@dataclass(frozen=True)
class Stumble:
    """What goes wrong with a call that is answered: a kind of fault, where its connection drops, and chance."""

    kind: str | None = None
    drop: str = ""
    chance: Random | None = None

    @property
    def content(self) -> str | None:
        """The kind of fault, if it is one of the content."""
        return self.kind if self.kind in CONTENT else None


SMOOTH = Stumble()


class Api:
    """The state of the server, and one method for each endpoint."""

    def __init__(self, replay: Replay, behavior: Behavior, url: str) -> None:
        self.replay, self.behavior, self.url = replay, behavior, url
        self.counts = Counts()
        self.closing = threading.Event()
        self._bucket = Bucket(time.monotonic)
        self._cache, self._batches = Cache(), Batches()

    def reset(self) -> None:
        """Forget counts, batches and the prompt cache."""
        for batch in self._batches.newest_first():
            batch.abandon()
        self._cache, self._batches = Cache(), Batches()
        self.counts.reset()

    def route(self, path: str) -> str:
        """Return a path with ``{id}`` instead of an id, as it is counted."""
        if match := _BATCH.fullmatch(path):
            return f"/v1/messages/batches/{{id}}{match[2] or ''}"
        return "/v1/models/{id}" if _MODEL.fullmatch(path) else path

    def answer(self, method: str, path: str, query: Query, headers: Mapping[str, str], body: bytes) -> Reply:
        """Answer a request. Raises: Refused for every answer that is an error."""
        if path.startswith("/fake/"):
            return Reply(200, self._fake(method, path, query, body))
        endpoint = self._endpoint(method, path)
        check_headers(headers, has_body=method == "POST" and not path.endswith("/cancel"))
        stumble = self._stumble(path)
        if stumble.drop == "before" and stumble.kind == "drop":  # it broke on the way in: nothing was made
            return Reply(200, {}, drop=stumble.drop)
        reply = self._message(body, stumble) if path == "/v1/messages" else endpoint(query, body)
        hold = self.behavior.timeout_seconds if stumble.kind == "timeout" else 0.0
        return replace(reply, drop=stumble.drop, hold=hold)

    def _endpoint(self, method: str, path: str) -> Callable[[Query, bytes], Reply]:
        """Return what answers. Raises: Refused for a path or a method that is not there."""
        endpoints: dict[str, dict[str, Callable[[Query, bytes], Reply]]] = {
            "/v1/messages": {"POST": lambda _, body: self._message(body, SMOOTH)},
            "/v1/messages/count_tokens": {"POST": lambda _, body: self._count(body)},
            "/v1/models": {"GET": lambda query, _: self._models(query)},
            "/v1/messages/batches": {
                "GET": lambda query, _: self._list_batches(query),
                "POST": lambda _, body: self._create_batch(body),
            },
        }
        if match := _BATCH.fullmatch(path):
            name, what = match[1], match[2]
            if what == "/results":
                endpoints[path] = {"GET": lambda *_: self._results(name)}
            elif what == "/cancel":
                endpoints[path] = {"POST": lambda *_: self._cancel(name)}
            elif path not in endpoints:
                endpoints[path] = {
                    "GET": lambda *_: Reply(200, self._batches.find(name).describe(self.url)),
                    "DELETE": lambda *_: self._delete(name),
                }
        elif match := _MODEL.fullmatch(path):
            wanted = match[1]
            endpoints[path] = {"GET": lambda *_: self._model(wanted)}
        if path not in endpoints:
            raise Refused(404, f"Not found: {path[:100]}")
        if method not in endpoints[path]:
            raise Refused(405, f"Method not allowed: {method}")
        return endpoints[path][method]

    def _stumble(self, path: str) -> Stumble:
        """Return what goes wrong with the answer; raise what is no answer at all."""
        behavior = self.behavior
        asking = path.startswith("/v1/messages") and path != "/v1/messages/count_tokens"
        number = self.counts.next() if asking or behavior.everywhere else 0
        if standing := behavior.standing(number):
            self._refuse_standing(standing, asking)
        if not number:
            return SMOOTH
        if wait := self._bucket.wait_for(behavior.rate):
            raise Refused(429, RATE_LIMIT, retry_after=wait)
        fault, chance = behavior.passing(number)
        if fault is None or (fault in CONTENT and path != "/v1/messages"):
            return SMOOTH
        self.counts.fault(fault)
        if fault == "rate_limit":
            raise Refused(429, RATE_LIMIT, retry_after=1)
        if fault == "overloaded":
            raise Refused(529, "Overloaded")
        if fault == "server":
            raise Refused(500, "Internal server error")
        if fault == "drop":
            return Stumble(fault, chance.choice(("before", "within")), chance)
        return Stumble(fault, "before" if fault == "timeout" else "", chance)

    def _refuse_standing(self, kind: str, asking: bool) -> None:
        """Raise the error of a standing fault; money only matters to calls that cost some."""
        if kind in ("credit", "spend_limit") and not asking:
            return
        self.counts.fault(kind)
        if kind == "key":
            raise Refused(401, "invalid x-api-key")
        if kind == "forbidden":
            raise Refused(403, "Your API key does not have permission to use the specified resource.")
        if kind == "credit":
            raise Refused(
                400,
                "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to "
                "upgrade or purchase credits.",
            )
        raise Refused(
            429,
            "You have reached your specified API usage limits.",
            error_code="enforced_spend_limit_reached",
        )

    # --- messages

    def _message(self, body: bytes, stumble: Stumble) -> Reply:
        if len(body) > LARGEST_MESSAGE:
            raise Refused(413, "Request exceeds the maximum size")
        params = parse(body)
        check_request(params)
        return Reply(200, self._say(params, stumble))

    def _say(
        self, params: dict[str, Any], stumble: Stumble, tier: str = "standard", cached: bool | None = None
    ) -> dict[str, Any]:
        """Return the message that answers checked parameters, and count what it costs. Raises: Refused."""
        wanted = asked(params)
        given = answer(wanted, self.replay, self.behavior.obedient, stumble.content, stumble.chance)
        usage = self._cache.count(params, time.monotonic(), cached)
        self._check_length(params["model"], usage)
        said = message(params, given, usage, f"msg_{secrets.token_hex(12)}", tier)
        digests = given.answered if said["stop_reason"] == "end_turn" else ()
        self.counts.billed(wanted.model, wanted.ask, tier, said["usage"], digests, lost=bool(stumble.drop))
        return said

    def _check_length(self, model: str, usage: dict[str, Any]) -> None:
        total = sum(usage[f"{name}input_tokens"] for name in ("", "cache_creation_", "cache_read_"))
        most = check_model(model)["max_input_tokens"]
        if total > most:
            raise Refused(400, f"prompt is too long: {total} tokens > {most} maximum")

    def _count(self, body: bytes) -> Reply:
        params = parse(body)
        check_request(params, counting=True)
        usage = Cache().count(params, 0.0, found=True)
        return Reply(200, {"input_tokens": usage["input_tokens"] + usage["cache_read_input_tokens"]})

    # --- models

    def _models(self, query: Query) -> Reply:
        wanted = query.get("lifecycle", query.get("lifecycle[]", ("active", "deprecated")))
        found = [info for info in catalogue.CATALOGUE.values() if info["lifecycle"] in wanted]
        return Reply(200, page(found, query))

    def _model(self, name: str) -> Reply:
        found = catalogue.find(name)
        if found is None:
            raise Refused(404, f"model: {name[:80]}")
        return Reply(200, found)

    # --- batches

    def _create_batch(self, body: bytes) -> Reply:
        requests = check_batch(parse(body))
        batch = self._batches.add(
            lambda number: Batch(number, requests, self._batched, self.behavior, self.closing)
        )
        return Reply(200, batch.describe(self.url))

    def _batched(self, number: int, place: int, params: dict[str, Any]) -> dict[str, Any]:
        """Return the message for one request of a batch; every second one finds the prompt cache filled."""
        check_request(params)
        fault, chance = self.behavior.passing("batch", number, place)
        stumble = Stumble(fault, "", chance)
        if stumble.content:
            self.counts.fault(stumble.content)
        return self._say(params, stumble, tier="batch", cached=place % 2 == 1)

    def _list_batches(self, query: Query) -> Reply:
        return Reply(200, page([batch.describe(self.url) for batch in self._batches.newest_first()], query))

    def _results(self, name: str) -> Reply:
        return Reply(200, self._batches.find(name).lines(), content_type="application/x-jsonl")

    def _cancel(self, name: str) -> Reply:
        batch = self._batches.find(name)
        batch.cancel()
        return Reply(200, batch.describe(self.url))

    def _delete(self, name: str) -> Reply:
        self._batches.remove(name)
        return Reply(200, {"id": name, "type": "message_batch_deleted"})

    # --- what the API does not have

    def _fake(self, method: str, path: str, query: Query, body: bytes) -> dict[str, Any]:
        """Answer a question about the server itself. Raises: Refused."""
        if (method, path) == ("GET", "/fake/stats"):
            return self.counts.report(texts=query.get("texts") != ["0"])
        if (method, path) == ("POST", "/fake/reset"):
            self.reset()
            return {}
        if (method, path) == ("POST", "/fake/faults"):
            try:
                self.behavior = self.behavior.changed(**parse(body))
            except ValueError as error:
                raise Refused(400, str(error)) from error
        elif (method, path) != ("GET", "/fake/faults"):
            raise Refused(404, "There are /fake/stats, /fake/faults and /fake/reset.")
        return asdict(self.behavior)


def page(found: list[dict[str, Any]], query: Query) -> dict[str, Any]:
    """Return one page of a list as the API cuts it: ``limit`` (1 to 1,000), ``after_id`` or ``before_id``.

    Raises: Refused on a limit out of range, or an id that is not in the list.
    """
    limit = query.get("limit", ["20"])[0]
    if not limit.isdecimal() or not 1 <= int(limit) <= 1000:
        raise Refused(400, "limit: Input should be from 1 to 1000")
    names = [one["id"] for one in found]
    more = False
    for side in ("after_id", "before_id"):
        if side in query:
            name = query[side][0]
            if name not in names:
                raise Refused(400, f"{side}: {name[:80]} is not in the list")
            place = names.index(name)
            found = found[place + 1 :] if side == "after_id" else found[:place]
    if "before_id" in query:
        more, found = len(found) > int(limit), found[-int(limit) :]
    else:
        more, found = len(found) > int(limit), found[: int(limit)]
    return {
        "data": found,
        "has_more": more,
        "first_id": found[0]["id"] if found else None,
        "last_id": found[-1]["id"] if found else None,
    }

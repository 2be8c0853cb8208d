"""The Anthropic API: requests, answers, models and batches; the only door to the package ``anthropic``.

Every failure leaves as a ``CallFailed`` of a known kind, with a sentence for people. Nothing is tried again in here: who
calls decides that, since only the caller knows the budget and the other calls under way. The key leaves this file in
one header and nowhere else: no exception made here holds it, or refers to an object that does.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from .calls import (
    SENTENCES,
    UNREADABLE,
    BatchProblem,
    BatchState,
    CallFailed,
    Model,
    Reply,
    T,
    batch_of,
    kind_of,
    model_of,
    reply_of,
    result_of,
    retry_after,
    understood,
    with_reason,
)
from .prompt import Prompt, visible

if TYPE_CHECKING:
    import anthropic

__all__ = [
    "DEFAULT_MODEL",
    "TIMEOUT_SECONDS",
    "BatchProblem",
    "BatchState",
    "CallFailed",
    "Claude",
    "Model",
    "Reply",
    "bytes_of",
    "max_tokens",
]

DEFAULT_MODEL = "claude-haiku-5-5"
DEFAULT_ADDRESS = "https://api.anthropic.com"
TIMEOUT_SECONDS = 60.0
CONNECT_SECONDS = 10.0
MOST_CONNECTIONS = 64
_NO_KEY = "There is no API key for Anthropic: put one into ANTHROPIC_API_KEY."
_BROKEN_KEY = (
    "The API key for Anthropic holds characters that no key has: copy it into ANTHROPIC_API_KEY once more."
)
# Set by the local stand-in for the API, so that its answers never pass for real ones.
FAKE_HEADER = "x-labelhub-fake"


class Claude:
    """A client of the API, to be shared by threads.

    Attributes:
        fake: the last response came from the local stand-in for the API.
    """

    def __init__(self, key: str, base_url: str = "", timeout: float = TIMEOUT_SECONDS) -> None:
        """Keep the settings; the first call connects.

        Args:
            key: of the API. Without one, every call fails with the kind "key", and nothing is sent.
            base_url: of another server that speaks the same language; empty for Anthropic's own.
            timeout: seconds to wait for the next byte.
        """
        self._key, self._base_url, self._timeout = key.strip(), base_url.strip(), timeout
        self._opened: anthropic.Anthropic | None = None
        self._opening = threading.Lock()
        self.fake = False

    def __repr__(self) -> str:
        return f"Claude(base_url={self._base_url or DEFAULT_ADDRESS!r})"

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        with self._opening:
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def request(self, prompt: Prompt, model: str, texts: Sequence[str], ask: int = 1) -> dict[str, Any]:
        """Return the parameters of one call, for ``send``, ``count_tokens`` and ``submit``; sends nothing."""
        form = {"type": "json_schema", "schema": prompt.schema(ask)}
        cached = {"type": "ephemeral"}  # for five minutes, each use renews them
        return {
            "model": model,
            "max_tokens": max_tokens(len(texts), prompt.quotes),
            "system": [{"type": "text", "text": prompt.system(ask), "cache_control": cached}],
            "messages": [{"role": "user", "content": prompt.body(texts, ask)}],
            "output_config": {"format": form, "effort": "low"} if _knows_effort(model) else {"format": form},
        }

    def send(self, params: Mapping[str, Any]) -> Reply:
        """Return the answer to one request. Raises: CallFailed."""
        message, response = self._json(lambda c: c.messages.with_raw_response.create(**params))
        request_id = response.headers.get("request-id")
        return understood(lambda: reply_of(message, response.text, request_id, self._from_fake(response)))

    def count_tokens(self, params: Mapping[str, Any]) -> int:
        """Return how many input tokens a request has; costs nothing. Raises: CallFailed."""
        counted = {name: value for name, value in params.items() if name != "max_tokens"}
        answer, _ = self._json(lambda c: c.messages.with_raw_response.count_tokens(**counted))
        return understood(lambda: int(answer["input_tokens"]))

    def models(self) -> list[Model]:
        """Return the models that this key may see, in the API's order. Raises: CallFailed."""
        found: list[Model] = []
        for page in self._pages(lambda c, after: c.models.with_raw_response.list(limit=1000, **after)):
            found += understood(partial(_each, model_of, page))
        return found

    def check_model(self, model: str) -> str | None:
        """Return None when a model can be used, else one sentence that says why not.

        A server that does not list models is taken at its word: None. A model that is to be retired can still be used;
        ``Model.sentence`` says until when.

        Raises: CallFailed when that cannot be found out.
        """
        if not model.strip():
            return "No model is chosen; choose one."
        try:
            answer, _ = self._json(lambda c: c.models.with_raw_response.retrieve(model))
        except CallFailed as failed:
            if failed.kind != "model":
                raise
        else:
            known = understood(lambda: model_of(answer))
            return known.sentence if known.lifecycle == "retired" else None
        try:
            others = [other.id for other in self.models() if other.lifecycle == "active"]
        except CallFailed as failed:
            if failed.kind == "model":
                return None
            raise
        advice = (
            f"such as {DEFAULT_MODEL if DEFAULT_MODEL in others else others[0]}"
            if others
            else "one that it knows"
        )
        return f"Anthropic knows no model {visible(model)[:60]}; choose another, {advice}."

    def submit(self, requests: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
        """Send a batch and return its id. It is paid for from then on: store the id before anything else.

        Args:
            requests: (custom id, parameters); ids differ, 1 to 64 letters, digits, hyphens and underscores.
        Raises: CallFailed. After "timeout" or "connection" the batch may exist: look for it with ``recent_batches``.
        """
        wanted: Any = [{"custom_id": name, "params": params} for name, params in requests]
        answer, _ = self._json(lambda c: c.messages.batches.with_raw_response.create(requests=wanted))
        return understood(lambda: str(answer["id"]))

    def batch(self, id: str) -> BatchState:
        """Return where a batch stands. Raises: CallFailed, of the kind "rejected" when there is no such batch."""
        answer, _ = self._json(lambda c: c.messages.batches.with_raw_response.retrieve(id), batch=id)
        return understood(lambda: batch_of(answer))

    def recent_batches(self, since: datetime) -> list[BatchState]:
        """Return the batches that were made at or after a moment (with a time zone), newest first. Raises: CallFailed."""
        found: list[BatchState] = []
        for page in self._pages(
            lambda c, after: c.messages.batches.with_raw_response.list(limit=100, **after)
        ):
            batches = understood(partial(_each, batch_of, page))
            found += [batch for batch in batches if batch.created_at >= since]
            if batches and batches[-1].created_at < since:
                break
        return found

    def results(self, id: str) -> Iterator[tuple[str, Reply | BatchProblem]]:
        """Return what came of each request of an ended batch, by custom id, in any order.

        Raises: CallFailed, also in the middle: what was read until then is good. Of the kind "rejected" when the batch
            has not ended, or does not exist.
        """
        lines = self._call(lambda c: c.messages.batches.results(id), batch=id)
        fake = self._from_fake(lines.http_response)
        try:
            while True:
                line = self._call(lambda _: next(lines, None), batch=id)
                if line is None:
                    return
                yield understood(partial(self._result, line, fake))
        finally:
            lines.close()

    def cancel(self, id: str) -> None:
        """Ask for the end of a batch; what was answered by then is kept and paid. Raises: CallFailed."""
        self._json(lambda c: c.messages.batches.with_raw_response.cancel(id), batch=id)

    def _client(self) -> anthropic.Anthropic:
        import anthropic
        import httpx2

        if not self._key:
            raise CallFailed("key", _NO_KEY)
        if not re.fullmatch(r"[\x21-\x7e]+", self._key):  # the HTTP library would quote it in its error
            raise CallFailed("key", _BROKEN_KEY)
        with self._opening:
            if self._opened is None:
                limits = httpx2.Limits(
                    max_connections=MOST_CONNECTIONS, max_keepalive_connections=MOST_CONNECTIONS
                )
                timeout = httpx2.Timeout(self._timeout, connect=min(self._timeout, CONNECT_SECONDS))
                # All is given that the package would otherwise look up in the environment or in files.
                self._opened = anthropic.Anthropic(
                    api_key=self._key,
                    base_url=self._base_url or DEFAULT_ADDRESS,
                    timeout=timeout,
                    max_retries=0,
                    open_telemetry=False,
                    http_client=anthropic.DefaultHttpxClient(limits=limits, timeout=timeout),
                )
            return self._opened

    def _call(self, work: Callable[[anthropic.Anthropic], Any], batch: str = "") -> Any:
        """Return what some work with the client returns. Raises: CallFailed for what the client raises."""
        import anthropic
        import httpx2

        try:
            return work(self._client())
        except (anthropic.AnthropicError, httpx2.HTTPError, httpx2.InvalidURL, json.JSONDecodeError) as error:
            failed = self._failed(error, batch)
        # Out here the exception has no context: the client's own one refers to the request, whose headers hold the key.
        raise failed from None

    def _json(
        self, work: Callable[[anthropic.Anthropic], Any], batch: str = ""
    ) -> tuple[dict[str, Any], Any]:
        """Return a response's JSON object, and the response. The package's types are not used: they check nothing."""
        response = self._call(work, batch).http_response
        self.fake = self._from_fake(response)
        answer = understood(lambda: json.loads(response.text))
        if not isinstance(answer, dict):
            raise CallFailed(
                "server", UNREADABLE, None, response.headers.get("request-id"), response.status_code
            )
        return answer, response

    def _pages(self, read: Callable[..., Any]) -> Iterator[dict[str, Any]]:
        """Yield the pages of a list until the last."""
        after: dict[str, Any] = {}
        while True:
            page, _ = self._json(partial(read, after=after))
            yield page
            last = page.get("last_id")
            if not page.get("has_more") or not last or after.get("after_id") == last:
                return
            after = {"after_id": last}

    def _result(self, line: Any, fake: bool) -> tuple[str, Reply | BatchProblem]:
        return result_of(line.to_dict(mode="json"), self._key, fake)

    def _from_fake(self, response: Any) -> bool:
        return FAKE_HEADER in response.headers

    def _failed(self, error: Exception, batch: str) -> CallFailed:
        import anthropic
        import httpx2

        unsent = isinstance(
            error.__cause__ or error,
            httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout | httpx2.InvalidURL,
        )
        if isinstance(error, anthropic.APITimeoutError | httpx2.TimeoutException):
            return CallFailed("timeout", SENTENCES["timeout"], unsent=unsent)
        if isinstance(error, anthropic.APIConnectionError | httpx2.HTTPError | httpx2.InvalidURL):
            return CallFailed("connection", SENTENCES["connection"], unsent=unsent)
        if batch and type(error) is anthropic.AnthropicError:  # without an address of the results
            return CallFailed("rejected", "The batch has not ended yet, so there are no results.")
        if not isinstance(error, anthropic.APIStatusError):
            return CallFailed("server", UNREADABLE)
        status, reason = error.status_code, error.api_message if isinstance(error.api_message, str) else ""
        kind = kind_of(status, error.type, error.error_code, reason)
        sentence = SENTENCES[kind]
        if batch and kind == "model":
            kind, sentence = "rejected", "Anthropic no longer has this batch, or never had it."
        elif kind == "rejected":
            sentence = with_reason(sentence, reason, self._key)
        return CallFailed(kind, sentence, retry_after(error.response.headers), error.request_id, status)


def max_tokens(count: int, quotes: bool) -> int:
    """Return the limit on the answer about so many texts, in tokens; with room for some thinking."""
    return (128 if quotes else 64) * count + 512


def bytes_of(params: Mapping[str, Any]) -> int:
    """Return the size of a request in bytes of UTF-8, an upper bound on its input tokens."""
    return len(json.dumps(params, ensure_ascii=False).encode("utf-8", "replace"))


def _knows_effort(model: str) -> bool:
    generation = re.match(r"claude-[a-z]+-(\d+)", model)
    return generation is not None and 5 <= int(generation[1]) < 1000  # not the date of an old-style name


def _each(one: Callable[[Any], T], page: Mapping[str, Any]) -> list[T]:
    return [one(info) for info in page["data"]]

"""What the API would refuse, refused with its status, its kind of error and its kind of sentence.

As strict as the schema of the SDK's parameters: a name that it does not know is refused, and so is a type that it
does not list. What the API knows and this server has no answer for (tools, streams, images) is refused as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from labelhub.fakeclaude import catalogue

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}
ANSWERED = {  # what a request may have
    "model",
    "max_tokens",
    "messages",
    "system",
    "output_config",
    "metadata",
    "service_tier",
    "stop_sequences",
    "cache_control",
    "thinking",
    "stream",
}
NOT_ANSWERED = {
    "tools",
    "tool_choice",
    "container",
    "diagnostics",
    "inference_geo",
    "speed",
}  # only by the API
ONLY_TO_ANSWER = {"max_tokens", "metadata", "service_tier", "stop_sequences", "stream"}  # not to count tokens
EFFORTS = ("low", "medium", "high", "xhigh", "max")
SCHEMA_TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")
SCHEMA_KEYS = {  # what structured outputs understand, by type
    "": {"type", "description", "title", "enum", "const", "default", "anyOf", "allOf", "$ref", "$defs"},
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "minItems"},
    "string": {"format"},
}
MOST_BREAKPOINTS = 4  # cache_control marks in a request
MOST_REQUESTS = 100_000  # in a batch
_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}")


class Refused(Exception):
    """An answer that is an error.

    Attributes:
        status: of HTTP, 400 to 599.
        sentence: the error's message.
        error_code: goes into ``error.details``, or "".
        retry_after: seconds for the header of that name, or None.
    """

    def __init__(
        self, status: int, sentence: str, error_code: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence
        self.error_code, self.retry_after = error_code, retry_after

    def body(self, request_id: str | None = None) -> dict[str, Any]:
        """Return the error as the API words it."""
        error: dict[str, Any] = {"type": ERROR_TYPES[self.status], "message": self.sentence}
        if self.error_code:
            error["details"] = {"error_code": self.error_code}
        return {"type": "error", "error": error, "request_id": request_id}


def check_headers(headers: Mapping[str, str], has_body: bool) -> None:
    """Check the key, in either of its two headers, the version and the type of the content. Raises: Refused."""
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    key = headers.get("x-api-key") or (bearer.strip() if scheme.lower() == "bearer" else "")
    if not key:
        raise Refused(401, "x-api-key header is required")
    if not key.startswith(("sk-", "fake")):
        raise Refused(401, "invalid x-api-key")
    version = headers.get("anthropic-version")
    if not version:
        raise Refused(400, "anthropic-version: header is required")
    if not _VERSION.fullmatch(version):
        raise Refused(400, f'anthropic-version: "{version[:40]}" is not a valid version')
    if has_body and headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused(400, "content-type: must be application/json")


def parse(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a request. Raises: Refused."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"The request body is not valid JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise Refused(400, "The request body must be a JSON object.")
    return parsed


def check_request(params: dict[str, Any], counting: bool = False) -> None:
    """Check the parameters of a message, or of a count of its tokens. Raises: Refused."""
    for name in params:
        if name in NOT_ANSWERED:
            raise Refused(400, f"{name}: the local server does not answer this part of the API")
        if name not in ANSWERED or (counting and name in ONLY_TO_ANSWER):
            raise Refused(400, f"{name}: Extra inputs are not permitted")
    for name in ("model", "messages") if counting else ("model", "max_tokens", "messages"):
        if name not in params:
            raise Refused(400, f"{name}: Field required")
    model = check_model(params["model"])
    if not counting:
        _check_limits(params, model)
    _check_messages(params["messages"])
    if "system" in params:
        _check_content("system", params["system"])
    if params.get("cache_control") is not None:
        _check_cache("cache_control", params["cache_control"])
    if "thinking" in params and params["thinking"] != {"type": "disabled"}:
        raise Refused(400, 'thinking: the local server only knows {"type": "disabled"}')
    if "output_config" in params:
        _check_output(params["output_config"], params["model"])
    if (marks := _breakpoints(params)) > MOST_BREAKPOINTS:
        raise Refused(400, f"A maximum of 4 blocks with cache_control may be provided. Found {marks}.")


def check_model(name: object) -> dict[str, Any]:
    """Return what the catalogue has about a model that answers. Raises: Refused for unknown and retired ones."""
    if not isinstance(name, str):
        raise Refused(400, "model: Input should be a valid string")
    found = catalogue.find(name)
    if found is None:
        raise Refused(404, f"model: {name}")
    if found["lifecycle"] == "retired":
        raise Refused(404, f"model: {name} was retired on {found['retires_at'][:10]}")
    return found


def check_batch(body: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the requests of a batch by their ids; their parameters are not checked here. Raises: Refused."""
    for name in body:
        if name != "requests":
            raise Refused(400, f"{name}: Extra inputs are not permitted")
    requests = body.get("requests")
    if not isinstance(requests, list) or not requests:
        raise Refused(400, "requests: List should have at least 1 item")
    if len(requests) > MOST_REQUESTS:
        raise Refused(400, f"requests: List should have at most {MOST_REQUESTS} items")
    found: dict[str, dict[str, Any]] = {}
    for place, request in enumerate(requests):
        where = f"requests.{place}"
        _check_object(where, request, {"custom_id", "params"}, {"custom_id", "params"})
        name = request["custom_id"]
        if not isinstance(name, str) or not _CUSTOM_ID.fullmatch(name):
            raise Refused(400, f"{where}.custom_id: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'")
        if name in found:
            raise Refused(400, f'{where}.custom_id: "{name}" is not unique within the batch')
        if not isinstance(request["params"], dict):
            raise Refused(400, f"{where}.params: Input should be an object")
        found[name] = request["params"]
    return list(found.items())


def _check_object(where: str, value: object, known: set[str], required: set[str]) -> None:
    if not isinstance(value, dict):
        raise Refused(400, f"{where}: Input should be an object")
    for name in value:
        if name not in known:
            raise Refused(400, f"{where}.{name}: Extra inputs are not permitted")
    for name in sorted(required - value.keys()):
        raise Refused(400, f"{where}.{name}: Field required")


def _check_limits(params: dict[str, Any], model: dict[str, Any]) -> None:
    most = params["max_tokens"]
    if not isinstance(most, int) or isinstance(most, bool):
        raise Refused(400, "max_tokens: Input should be a valid integer")
    if most < 1:
        raise Refused(400, "max_tokens: must be greater than or equal to 1")
    if most > model["max_tokens"]:
        raise Refused(
            400,
            f"max_tokens: {most} > {model['max_tokens']}, which is the maximum allowed number of output tokens "
            f"for {model['id']}",
        )
    if params.get("stream", False) is not False:
        raise Refused(400, "stream: the local server does not stream")
    if params.get("service_tier", "auto") not in ("auto", "standard_only"):
        raise Refused(400, "service_tier: Input should be 'auto' or 'standard_only'")
    if "metadata" in params:
        _check_object("metadata", params["metadata"], {"user_id"}, set())
        if not isinstance(params["metadata"].get("user_id", ""), str | None):
            raise Refused(400, "metadata.user_id: Input should be a valid string")
    stops = params.get("stop_sequences", [])
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop.strip() for stop in stops):
        raise Refused(400, "stop_sequences: Input should be a list of texts with more than whitespace")


def _check_messages(messages: object) -> None:
    if not isinstance(messages, list):
        raise Refused(400, "messages: Input should be a valid list")
    if not messages:
        raise Refused(400, "messages: at least one message is required")
    for place, message in enumerate(messages):
        where = f"messages.{place}"
        _check_object(where, message, {"role", "content"}, {"role", "content"})
        if message["role"] not in ("user", "assistant"):
            raise Refused(400, f"{where}.role: Input should be 'user' or 'assistant'")
        if message["role"] != ("user", "assistant")[place % 2]:
            raise Refused(400, f"{where}.role: roles must alternate, and the first is 'user'")
        _check_content(f"{where}.content", message["content"])
    if messages[-1]["role"] == "assistant":
        raise Refused(
            400,
            "This model does not support assistant message prefill. The conversation must end with a user message.",
        )


def _check_content(where: str, content: object) -> None:
    if isinstance(content, str):
        if not content.strip():
            raise Refused(400, f"{where}: text must contain more than whitespace")
        return
    if not isinstance(content, list):
        raise Refused(400, f"{where}: Input should be a valid string or a list of blocks")
    if not content:
        raise Refused(400, f"{where}: List should have at least 1 item")
    for place, block in enumerate(content):
        here = f"{where}.{place}"
        if isinstance(block, dict) and block.get("type", "text") != "text":
            raise Refused(400, f"{here}.type: the local server only reads blocks of the type 'text'")
        _check_object(here, block, {"type", "text", "cache_control", "citations"}, {"type", "text"})
        if not isinstance(block["text"], str):
            raise Refused(400, f"{here}.text: Input should be a valid string")
        if not block["text"].strip():
            raise Refused(400, f"{here}.text: text content blocks must contain non-whitespace text")
        if block.get("citations"):
            raise Refused(400, f"{here}.citations: the local server does not answer this part of the API")
        if block.get("cache_control") is not None:
            _check_cache(f"{here}.cache_control", block["cache_control"])


def _check_cache(where: str, value: object) -> None:
    _check_object(where, value, {"type", "ttl"}, {"type"})
    assert isinstance(value, dict)
    if value["type"] != "ephemeral":
        raise Refused(400, f"{where}.type: Input should be 'ephemeral'")
    if value.get("ttl", "5m") not in ("5m", "1h"):
        raise Refused(400, f"{where}.ttl: Input should be '5m' or '1h'")


def _breakpoints(params: dict[str, Any]) -> int:
    contents = [params.get("system"), *(message["content"] for message in params["messages"])]
    blocks = [block for content in contents if isinstance(content, list) for block in content]
    return sum(1 for block in [params, *blocks] if block.get("cache_control"))


def _check_output(config: object, model: str) -> None:
    _check_object("output_config", config, {"effort", "format"}, set())
    assert isinstance(config, dict)
    effort = config.get("effort")
    if effort is not None:
        if effort not in EFFORTS:
            raise Refused(400, f"output_config.effort: Input should be one of {', '.join(EFFORTS)}")
        if not catalogue.knows_effort(model):
            raise Refused(400, "This model does not support the effort parameter.")
    if config.get("format") is not None:
        where = "output_config.format"
        _check_object(where, config["format"], {"type", "schema"}, {"type", "schema"})
        if config["format"]["type"] != "json_schema":
            raise Refused(400, f"{where}.type: Input should be 'json_schema'")
        _check_schema(f"{where}.schema", config["format"]["schema"])


def _check_schema(where: str, schema: object) -> None:
    if not isinstance(schema, dict):
        raise Refused(400, f"{where}: Input should be an object")
    kind = schema.get("type", "")
    if kind and kind not in SCHEMA_TYPES:
        raise Refused(400, f"{where}.type: Input should be one of {', '.join(SCHEMA_TYPES)}")
    if not kind and not schema.keys() & {"enum", "const", "anyOf", "allOf", "$ref"}:
        raise Refused(400, f"{where}: Schema type is missing")
    unknown = [name for name in schema if name not in SCHEMA_KEYS[""] | SCHEMA_KEYS.get(kind, set())]
    if unknown:
        raise Refused(400, f"{where}: For '{kind}' type, properties {', '.join(unknown)} are not supported")
    if kind == "object":
        if schema.get("additionalProperties") is not False:
            raise Refused(
                400, f"{where}: For 'object' type, 'additionalProperties' must be explicitly set to false"
            )
        properties = schema.get("properties", {})
        if not isinstance(properties, dict):
            raise Refused(400, f"{where}.properties: Input should be an object")
        for name, inner in properties.items():
            _check_schema(f"{where}.properties.{name}", inner)
        required = schema.get("required", [])
        if not isinstance(required, list) or not all(name in properties for name in required):
            raise Refused(400, f"{where}.required: names a property that is not there")
    if kind == "array":
        if schema.get("minItems", 0) not in (0, 1):
            raise Refused(
                400, f"{where}: For 'array' type, 'minItems' values other than 0 or 1 are not supported"
            )
        if "items" in schema:
            _check_schema(f"{where}.items", schema["items"])
    if "enum" in schema:
        values = schema["enum"]
        plain = isinstance(values, list) and all(isinstance(v, str | int | float | None) for v in values)
        if not plain or not values or len({(type(v), v) for v in values}) < len(values):
            raise Refused(400, f"{where}.enum: Input should be a list of different plain values")
    for name, inner in schema.get("$defs", {}).items():
        _check_schema(f"{where}.$defs.{name}", inner)
    for name in ("anyOf", "allOf"):
        for place, inner in enumerate(schema.get(name, [])):
            _check_schema(f"{where}.{name}.{place}", inner)

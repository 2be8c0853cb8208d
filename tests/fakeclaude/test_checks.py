"""What the API would refuse is refused, with its status and a sentence that names the place."""

import copy
import json
from http.client import HTTPConnection
from urllib.parse import urlsplit

import anthropic
import pytest
from anthropic.types import message_count_tokens_params, message_create_params

from labelhub.fakeclaude import catalogue, check
from labelhub.fakeclaude.check import Refused, check_batch, check_request
from labelhub.fakeclaude.replay import Replay

REPLAY = Replay(["a"], {"": [["agrees"]]})
IN_HEADERS = {"user_profile_id", "workspace_id"}


def post(server, path, body, method="POST", **changes):
    """Send a request by hand; return status, headers, and body."""
    headers = {"x-api-key": "fake", "anthropic-version": "2026-10-21", "content-type": "application/json"}
    headers |= {name.replace("_", "-"): value for name, value in changes.items()}
    connection = HTTPConnection(urlsplit(server.url).netloc, timeout=5)
    connection.request(
        method, path, body, {name: value for name, value in headers.items() if value is not None}
    )
    answer = connection.getresponse()
    found = answer.status, answer.headers, json.loads(answer.read())
    connection.close()
    return found


class TestSchema:
    def test_it_knows_the_parameters_that_the_sdk_knows(self):
        sdk = message_create_params.MessageCreateParamsNonStreaming.__annotations__.keys()
        base = message_create_params.MessageCreateParamsBase.__annotations__.keys()
        assert check.ANSWERED | check.NOT_ANSWERED == (sdk | base) - IN_HEADERS
        counting = message_count_tokens_params.MessageCountTokensParams.__annotations__.keys() - IN_HEADERS
        assert counting <= check.ANSWERED | check.NOT_ANSWERED
        assert check.ONLY_TO_ANSWER & counting == set()

    def test_a_plain_request_is_fine(self, request_of):
        check_request(request_of(["a"]))
        check_request(
            {"model": "claude-opus-5", "max_tokens": 1, "messages": [{"role": "user", "content": "a"}]}
        )

    @pytest.mark.parametrize(
        "change, sentence",
        [
            ({"temperature": 0}, "temperature: Extra inputs"),
            ({"top_p": 0.9}, "top_p: Extra inputs"),
            ({"tools": []}, "tools: the local server"),
            ({"stream": True}, "stream"),
            ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking"),
            ({"max_tokens": 0}, "max_tokens"),
            ({"max_tokens": "9"}, "max_tokens"),
            ({"max_tokens": True}, "max_tokens"),
            ({"max_tokens": 10**6}, "max_tokens: 1000000 > 128000"),
            ({"messages": []}, "at least one message"),
            ({"messages": "hello"}, "messages: Input should be a valid list"),
            ({"messages": [{"role": "user"}]}, "messages.0.content: Field required"),
            ({"messages": [{"role": "user", "content": " "}]}, "messages.0.content"),
            ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages.0.content.0.type"),
            ({"messages": [{"role": "user", "content": "a", "name": "b"}]}, "messages.0.name: Extra"),
            ({"messages": [{"role": "user", "content": "a"}] * 2}, "messages.1.role: roles must alternate"),
            ({"messages": [{"role": "assistant", "content": "a"}]}, "messages.0.role"),
            (
                {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "{"}]},
                "does not support assistant message prefill",
            ),
            ({"system": [{"type": "text"}]}, "system.0.text: Field required"),
            (
                {"system": [{"type": "text", "text": "a", "cache_control": {"type": "x"}}]},
                "cache_control.type",
            ),
            (
                {
                    "system": [
                        {"type": "text", "text": "a", "cache_control": {"type": "ephemeral", "ttl": "9m"}}
                    ]
                },
                "cache_control.ttl",
            ),
            (
                {"system": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}] * 5},
                "A maximum of 4 blocks",
            ),
            ({"output_config": {"effort": "huge"}}, "output_config.effort"),
            ({"output_config": {"format": {"type": "json"}}}, "output_config.format.schema: Field required"),
            ({"metadata": {"name": "x"}}, "metadata.name: Extra"),
            ({"service_tier": "batch"}, "service_tier"),
            ({"stop_sequences": "x"}, "stop_sequences"),
        ],
        ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else "",
    )
    def test_anything_else_is_not(self, request_of, change, sentence):
        with pytest.raises(Refused, match=".") as caught:
            check_request(request_of(["a"], **change))
        assert caught.value.status == 400 and sentence in caught.value.sentence

    @pytest.mark.parametrize("name", ["model", "max_tokens", "messages"])
    def test_nothing_needed_is_missing(self, request_of, name):
        request = request_of(["a"])
        del request[name]
        with pytest.raises(Refused, match=f"{name}: Field required"):
            check_request(request)

    @pytest.mark.parametrize(
        "place, change, sentence",
        [
            ((), {"additionalProperties": True}, "must be explicitly set to false"),
            (("labels", "items"), {"additionalProperties": None}, "must be explicitly set to false"),
            (("labels", "items", "confidence"), {"minimum": 0}, "properties minimum are not supported"),
            (("labels", "items", "label"), {"maxLength": 9}, "properties maxLength are not supported"),
            (("labels",), {"maxItems": 9}, "properties maxItems are not supported"),
            (("labels",), {"minItems": 9}, "'minItems' values other than 0 or 1"),
            (("labels", "items", "label"), {"enum": ["a", "a"]}, "enum"),
            (("labels", "items", "label"), {"enum": []}, "enum"),
            (("labels", "items", "label"), {"type": "text"}, "type"),
            (("labels", "items"), {"required": ["nothing"]}, "required"),
        ],
        ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
    )
    def test_a_schema_is_what_structured_outputs_understand(self, request_of, place, change, sentence):
        request = copy.deepcopy(request_of(["a"]))
        schema = request["output_config"]["format"]["schema"]
        for name in place:
            schema = schema[name] if name == "items" else schema["properties"][name]
        schema.update(change)
        with pytest.raises(Refused, match=".") as caught:
            check_request(request)
        assert sentence in caught.value.sentence

    @pytest.mark.parametrize(
        "requests, sentence",
        [
            ([], "at least 1"),
            ([{"custom_id": "a b", "params": {}}], "custom_id: String should match"),
            ([{"custom_id": "a" * 65, "params": {}}], "custom_id: String should match"),
            ([{"custom_id": "a", "params": {}}] * 2, "not unique"),
            ([{"custom_id": "a"}], "params: Field required"),
            ([{"custom_id": "a", "params": {}, "x": 1}], "x: Extra inputs"),
            ([{"custom_id": str(n), "params": {}} for n in range(100_001)], "at most 100000"),
        ],
        ids=["none", "space", "long", "twice", "empty", "extra", "many"],
    )
    def test_a_batch_has_its_limits(self, requests, sentence):
        with pytest.raises(Refused, match=sentence):
            check_batch({"requests": requests})


class TestModels:
    @pytest.mark.parametrize(
        "model", ["claude-9", "claude-3-5-sonnet-20241022", "claude-sonnet-4-0", "gpt-4"]
    )
    def test_an_unknown_or_retired_one_does_not_answer(self, served, client, request_of, model):
        with pytest.raises(anthropic.NotFoundError, match=model):
            client(served(REPLAY)).messages.create(**request_of(["a"], model=model))

    def test_one_that_ends_soon_does(self, served, client, request_of):
        one = client(served(REPLAY))
        request = request_of(["a"], model="claude-sonnet-4-5")
        del request["output_config"]["effort"]
        assert one.messages.create(**request).stop_reason == "end_turn"
        info = one.models.retrieve("claude-sonnet-4-5")
        assert (info.lifecycle, f"{info.retires_at:%Y-%m-%d}") == ("deprecated", "2026-11-30")

    @pytest.mark.parametrize("model", ["claude-haiku-4-5", "claude-sonnet-4-5"])
    def test_effort_is_not_for_all(self, served, client, request_of, model):
        with pytest.raises(anthropic.BadRequestError, match="effort"):
            client(served(REPLAY)).messages.create(**request_of(["a"], model=model))

    def test_the_list_comes_in_pages_without_the_retired(self, served, client):
        one = client(served())
        page = one.models.list(limit=4)
        assert len(page.data) == 4 and page.has_more
        found = [model.id for model in one.models.list(limit=4)]
        assert found == [name for name, info in catalogue.CATALOGUE.items() if info["lifecycle"] != "retired"]
        assert found[0] == "claude-haiku-5-5"
        retired = list(one.models.list(lifecycle=["retired"]))
        assert {model.id for model in retired} == set(catalogue.RETIRED)
        assert all(model.retires_at for model in retired)

    def test_every_model_has_the_shape_of_the_sdk(self, served, client):
        for info in client(served()).models.list(lifecycle=["active", "deprecated", "retired"], limit=1000):
            anthropic.types.ModelInfo.model_validate(info.to_dict(), strict=False)
            assert info.display_name.startswith("Claude ")

    def test_one_that_is_not_there_is_not_found(self, served, client):
        with pytest.raises(anthropic.NotFoundError):
            client(served()).models.retrieve("claude-9")


class TestHttp:
    GOOD = json.dumps(
        {"model": "claude-haiku-5-5", "max_tokens": 1, "messages": [{"role": "user", "content": "a"}]}
    )

    def test_either_header_brings_the_key(self, served):
        server = served()
        assert post(server, "/v1/messages", self.GOOD)[0] == 200
        assert post(server, "/v1/messages", self.GOOD, x_api_key=None, authorization="Bearer sk-x")[0] == 200

    @pytest.mark.parametrize(
        "change", [{"x_api_key": None}, {"x_api_key": "secret"}], ids=["none", "strange"]
    )
    def test_without_a_key_there_is_no_answer(self, served, change):
        status, headers, body = post(served(), "/v1/messages", self.GOOD, **change)
        assert (status, body["error"]["type"]) == (401, "authentication_error")
        assert headers["request-id"] == body["request_id"]
        assert "secret" not in json.dumps(body)

    @pytest.mark.parametrize(
        "change",
        [
            {"anthropic_version": None},
            {"anthropic_version": "latest"},
            {"content_type": "text/plain"},
            {"content_encoding": "gzip"},
        ],
        ids=str,
    )
    def test_headers_are_checked(self, served, change):
        status, _, body = post(served(), "/v1/messages", self.GOOD, **change)
        assert (status, body["error"]["type"]) == (400, "invalid_request_error")

    @pytest.mark.parametrize("body", ["{", "[]", "", '{"max_tokens": NaN}'])
    def test_a_body_is_a_json_object(self, served, body):
        assert post(served(), "/v1/messages", body)[0] == 400

    @pytest.mark.parametrize(
        "method, path, status",
        [
            ("POST", "/v1/complete", 404),
            ("GET", "/", 404),
            ("GET", "/v1/messages", 405),
            ("DELETE", "/v1/models", 405),
            ("PUT", "/v1/messages", 400),
            ("GET", "/fake/other", 404),
            ("GET", "/v1/messages/batches/msgbatch_1/results", 404),
            ("GET", "/v1/models?limit=0", 400),
            ("GET", "/v1/models?after_id=x", 400),
        ],
    )
    def test_other_paths_and_methods_are_refused_as_the_api_does(self, served, method, path, status):
        found, headers, body = post(served(), path, None, method)
        assert found == status and body["type"] == "error"
        assert headers["x-labelhub-fake"] == "1" and headers["request-id"]

    def test_a_body_that_is_too_large_is_refused(self, served):
        status, _, body = post(served(), "/v1/messages", None, content_length=str(2**40))
        assert (status, body["error"]["type"]) == (413, "request_too_large")

    def test_it_listens_and_answers_on_this_machine_only(self, served):
        server = served()
        assert server.url.startswith("http://127.0.0.1:")
        assert post(server, "/v1/messages", self.GOOD, host="evil.example")[0] == 403
        assert post(server, "/fake/stats", None, "GET", host="evil.example:80")[0] == 403
        assert post(server, "/fake/stats", None, "GET", host="localhost:80")[0] == 200

    def test_every_answer_says_that_it_is_local(self, served, client):
        answer = client(served()).models.with_raw_response.list()
        assert answer.headers["x-labelhub-fake"] == "1"
        assert answer.headers["request-id"].startswith("req_")

    def test_a_request_without_a_schema_gets_a_sentence(self, served):
        _, _, body = post(served(), "/v1/messages", self.GOOD.replace('"max_tokens": 1', '"max_tokens": 99'))
        assert body["content"][0]["text"] == "I can only label lists of items."

"""The door to the Anthropic API, tried with the real package: requests, answers and models."""

import gzip
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from labelhub.autolabel.labelers.llm import (
    DEFAULT_MODEL,
    CallFailed,
    Claude,
    Model,
    Reply,
    bytes_of,
    max_tokens,
)
from labelhub.autolabel.labelers.reply import read
from labelhub.autolabel.prices import Usage
from tests.autolabel.canned import KEY, MESSAGE, PROMPT, SAID, TEXTS, Canned, error, failure, request

# Requests and answers


def test_a_request_is_answered_and_its_answer_is_kept_whole(claude, fake):
    reply = claude.send(request())
    reading = read(reply.stop_reason, reply.text, len(TEXTS), ["ham", "spam"])
    assert [reading.said[i].label for i in (1, 2, 3)] == SAID
    assert json.loads(reply.raw)["usage"]["output_tokens"] == reply.usage.output > 0
    assert reply.model == DEFAULT_MODEL
    assert reply.request_id
    assert reply.fake
    assert claude.fake


def test_the_system_block_is_cached_for_the_next_call(claude):
    first, second = claude.send(request()), claude.send(request(["buy now!"]))
    assert first.usage.cache_write > 0
    assert first.usage.cache_read == 0
    assert second.usage.cache_read == first.usage.cache_write
    assert second.usage.cache_write == 0


def test_a_request_holds_no_more_than_it_needs():
    params = request()
    assert sorted(params) == ["max_tokens", "messages", "model", "output_config", "system"]
    assert params["system"][0]["cache_control"] == {"type": "ephemeral"}
    assert params["output_config"]["format"] == {"type": "json_schema", "schema": PROMPT.schema()}
    assert params["max_tokens"] == max_tokens(3, quotes=False) == 64 * 3 + 512
    assert max_tokens(3, quotes=True) > max_tokens(3, quotes=False)


@pytest.mark.parametrize(
    ("model", "known"),
    [
        ("claude-haiku-5-5", True),
        ("claude-sonnet-5", True),
        ("claude-opus-6-1-20270101", True),
        ("claude-haiku-4-5-20251001", False),
        ("claude-3-5-sonnet-20241022", False),
        ("claude-mythos-preview", False),
    ],
)
def test_effort_is_asked_only_of_models_that_know_it(model, known):
    assert request(model=model)["output_config"].get("effort") == ("low" if known else None)


def test_older_models_take_the_request_as_well(claude):
    assert claude.send(request(model="claude-haiku-4-5")).stop_reason == "end_turn"


def test_the_bytes_of_a_request_are_no_fewer_than_those_of_its_texts(claude):
    params = request(["ü" * 100, "😀"])
    sent = [params["system"][0]["text"], params["messages"][0]["content"], json.dumps(PROMPT.schema())]
    assert bytes_of(params) >= sum(len(text.encode()) for text in sent)
    assert claude.count_tokens(params) <= bytes_of(params)


def test_only_text_blocks_are_read():
    message = {
        **MESSAGE,
        "content": [{"type": "thinking", "thinking": "hm", "signature": ""}, *MESSAGE["content"]],
    }
    with Canned(200, message) as server:
        reply = Claude(KEY, server.url).send(request())
    assert reply == Reply(
        "end_turn", "{}", json.dumps(message), Usage(7, 3), "claude-haiku-5-5", "req_1", False
    )


@pytest.mark.parametrize(
    ("written", "usage"),
    [
        ({"cache_creation_input_tokens": 5, "cache_read_input_tokens": 4}, Usage(7, 3, 4, 5, 0)),
        (
            {"cache_creation_input_tokens": None, "cache_read_input_tokens": None, "cache_creation": None},
            Usage(7, 3),
        ),
        (
            {
                "cache_creation_input_tokens": 5,
                "cache_creation": {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 3},
            },
            Usage(7, 3, 0, 2, 3),
        ),
    ],
    ids=["sum only", "none", "both"],
)
def test_what_the_cache_cost_is_counted_once(written, usage):
    with Canned(200, {**MESSAGE, "usage": {**MESSAGE["usage"], **written}}) as server:
        assert Claude(KEY, server.url).send(request()).usage == usage


def test_a_compressed_answer_is_read():
    with Canned(200, gzip.compress(json.dumps(MESSAGE).encode()), {"content-encoding": "gzip"}) as server:
        assert Claude(KEY, server.url).send(request()).usage == Usage(7, 3)


def test_threads_share_a_client(claude, fake):
    fake.change(delay_ms=50)
    try:
        with ThreadPoolExecutor(32) as pool:
            replies = list(pool.map(lambda text: claude.send(request([text])), TEXTS * 16))
    finally:
        fake.change(delay_ms=0)
    labels = [read(r.stop_reason, r.text, 1, ["ham", "spam"]).said[1].label for r in replies]
    assert labels == SAID * 16


def test_a_closed_client_opens_again(claude):
    claude.send(request())
    claude.close()
    claude.close()
    assert claude.send(request()).stop_reason == "end_turn"


def test_the_environment_has_no_say(monkeypatch):
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/other")
    with Canned(200, MESSAGE) as server:
        Claude(f" {KEY}\n", server.url).send(request())
    headers = {name.lower(): value for name, value in server.asked[0][1].items()}
    assert KEY in (headers.get("x-api-key"), headers.get("authorization", "").removeprefix("Bearer "))
    assert not any("other" in value for value in headers.values())


@pytest.mark.parametrize("address", ["", "http://127.0.0.1:9/other"])
def test_no_address_is_the_one_of_anthropic_whatever_the_environment_says(monkeypatch, address):
    monkeypatch.setenv("ANTHROPIC_BASE_URL", address)
    assert str(Claude(KEY)._client().base_url) == "https://api.anthropic.com"


def test_nothing_heavy_is_imported_before_the_first_call():
    code = (
        "import sys, labelhub.autolabel.labelers.llm as m; m.Claude('k'); print('anthropic' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


# Models


def test_it_lists_models_with_their_ends(claude):
    models = {model.id: model for model in claude.models()}
    assert models[DEFAULT_MODEL] == Model(DEFAULT_MODEL, "Claude Haiku 5.5", "active", None)
    assert models[DEFAULT_MODEL].sentence == ""
    old = models["claude-sonnet-4-5-20250929"]
    assert old.sentence == "claude-sonnet-4-5-20250929 will be retired on 30 November 2026."


def test_it_reads_a_list_of_models_page_by_page():
    info = {"id": "claude-a", "display_name": "A", "lifecycle": "active"}
    first = {"data": [info], "has_more": True, "last_id": "claude-a"}
    second = json.dumps(
        {"data": [{**info, "id": "claude-b"}], "has_more": False, "last_id": "claude-b"}
    ).encode()
    with Canned(200, first, then=[(200, second, ())]) as server:
        assert [model.id for model in Claude(KEY, server.url).models()] == ["claude-a", "claude-b"]
    assert "after_id=claude-a" in server.asked[1][0]


def test_a_server_that_always_says_that_there_is_more_does_not_hold_it_up():
    info = {"id": "claude-a", "display_name": "A", "lifecycle": "active"}
    with Canned(200, {"data": [info], "has_more": True, "last_id": "claude-a"}) as server:
        assert len(Claude(KEY, server.url).models()) == 2


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (DEFAULT_MODEL, None),
        ("claude-haiku-4-5", None),
        ("claude-sonnet-4-5", None),
        (
            "claude-3-7-sonnet-20250219",
            "claude-3-7-sonnet-20250219 was retired on 19 February 2026; choose another model.",
        ),
        ("claude-x", "Anthropic knows no model claude-x; choose another, such as claude-haiku-5-5."),
        ("a/../b?c", "Anthropic knows no model a/../b?c; choose another, such as claude-haiku-5-5."),
        (" ", "No model is chosen; choose one."),
    ],
)
def test_it_says_why_a_model_cannot_be_used(claude, model, sentence):
    assert claude.check_model(model) == sentence


def test_a_server_without_a_list_of_models_is_taken_at_its_word():
    with Canned(404, b"not here", {"content-type": "text/plain"}) as server:
        assert Claude(KEY, server.url).check_model("anything") is None


def test_a_check_that_fails_is_no_verdict():
    assert (
        failure(Canned(401, error("authentication_error")), lambda c: c.check_model("claude-a")).kind == "key"
    )
    assert (
        failure(Canned(529, error("overloaded_error")), lambda c: c.check_model("claude-a")).kind
        == "overloaded"
    )


@pytest.mark.filterwarnings("ignore:The model:DeprecationWarning")
def test_a_retired_model_fails_a_call(claude):
    with pytest.raises(CallFailed) as raised:
        claude.send(request(model="claude-3-7-sonnet-20250219"))
    assert (raised.value.kind, raised.value.fatal) == ("model", True)

"""A local Messages API for a test, and the real SDK to talk to it."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest

from labelhub.autolabel.labelers.prompt import Prompt
from labelhub.fakeclaude.server import Server, serve

DATA = Path(__file__).parent.parent / "data"
MODEL = "claude-haiku-5-5"
STANCE = Prompt((("agrees", ""), ("disagrees", ""), ("neutral", "")))


@pytest.fixture
def served() -> Iterator[Callable[..., Server]]:
    """Start servers that stop with the test: ``served(replay, **options)``."""
    servers: list[Server] = []

    def start(replay: Any = DATA / "stance_gpt4o.csv", **options: Any) -> Server:
        servers.append(serve(replay, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def client() -> Iterator[Callable[..., anthropic.Anthropic]]:
    """Make clients of the SDK that try once: ``client(server)``."""
    clients: list[anthropic.Anthropic] = []

    def make(server: Server, **options: Any) -> anthropic.Anthropic:
        given = {"api_key": "fake-key", "max_retries": 0, "timeout": 5.0, **options}
        clients.append(anthropic.Anthropic(base_url=server.url, **given))
        return clients[-1]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of models that end soon
        yield make
    for one in clients:
        one.close()


@pytest.fixture
def request_of() -> Callable[..., dict[str, Any]]:
    """Make the parameters of a request about some texts."""

    def make(texts: list[str], prompt: Prompt = STANCE, ask: int = 1, **changes: Any) -> dict[str, Any]:
        return {
            "model": MODEL,
            "max_tokens": 2_000,
            "system": [
                {"type": "text", "text": prompt.system(ask), "cache_control": {"type": "ephemeral"}},
            ],
            "messages": [{"role": "user", "content": prompt.body(texts, ask)}],
            "output_config": {
                "effort": "low",
                "format": {"type": "json_schema", "schema": prompt.schema(ask)},
            },
            **changes,
        }

    return make

"""The language model of tests that need no database: a stand-in that knows three texts, and a client of it."""

import pytest

from labelhub.autolabel.labelers.llm import Claude
from labelhub.fakeclaude.replay import Replay
from labelhub.fakeclaude.server import serve
from tests.autolabel.canned import KEY, SAID, TEXTS


@pytest.fixture(scope="module")
def fake():
    with serve(Replay(TEXTS, {"": [SAID]}), batch_seconds=0.2) as server:
        yield server


@pytest.fixture
def claude(fake):
    fake.reset()
    client = Claude(KEY, fake.url, 5.0)
    yield client
    client.close()

"""The engine that the gateway's benchmark has in the place of one speaks the wire, to the service's own client."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.core.entities.inference import AnswerOptions, GenerationRequest, TokenCounts
from app.implementations.serving.engine_client import HttpEngineClient
from app.implementations.serving.places import EnginePlaces
from benchmarks.gateway import table
from benchmarks.stub_engine import PIECE, TOKENS
from tests.running_engine import free_port
from tests.running_service import wait_until

ASKED = GenerationRequest("tiny", [1, 2, 3], AnswerOptions(max_tokens=TOKENS))


@pytest.fixture
def url() -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.stub_engine", "--port", str(port)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[3]) as process:
        try:
            wait_until(lambda: client_of(f"http://127.0.0.1:{port}").resident() == ["tiny"])
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def client_of(url: str) -> HttpEngineClient:
    return HttpEngineClient(EnginePlaces({"tiny": url}, None), 10)


def test_it_answers_whole_and_as_a_stream_and_remembers(url: str) -> None:
    client = client_of(url)
    generation = client.generate(ASKED)
    assert (generation.text, generation.tokens) == (PIECE * TOKENS, TokenCounts(32, TOKENS))
    assert httpx.get(f"{url}/last").json()["prompt"] == [1, 2, 3]
    pieces = list(client.stream(ASKED))
    assert "".join(piece.text for piece in pieces) == generation.text
    assert pieces[-1].tokens == generation.tokens
    assert httpx.get(f"{url}/last").json()["stream"] is True


def test_the_table_says_what_is_more_and_what_is_left() -> None:
    told = table({"ours": [3.0, 2.5], "bare": [1.0, 1.0]}, {"ours": [60.0, 70.0], "bare": [100.0, 100.0]}, 8)
    assert "1.75 (1.50–2.00) more" in told
    assert "65 (60–70) %" in told

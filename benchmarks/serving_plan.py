"""What ``benchmarks.serving`` asks of every engine."""

import random
from dataclasses import dataclass
from typing import Literal

ADAPTERS = 16
PROMPT = 32  # tokens, where decoding is measured
TOKENS = 64  # that an answer has
VOCABULARY = 40_000  # ids below that of every model here


@dataclass(frozen=True, slots=True)
class Scenario:
    """``decode``: tokens a second of all streams. ``first``: seconds to the first token. ``again``: of a prompt
    that was read before, by what it took then."""

    title: str
    kind: Literal["decode", "first", "again"]
    streams: int
    adapters: int
    prompt: int
    digits: int

    def models(self) -> list[str]:
        """One for each stream."""
        return [f"a{number % self.adapters}" if self.adapters else "base" for number in range(self.streams)]


SCENARIOS = (
    Scenario("16 streams, no adapter, tokens/s", "decode", 16, 0, PROMPT, 0),
    Scenario("16 streams over 4 adapters, tokens/s", "decode", 16, 4, PROMPT, 0),
    Scenario("16 streams over 16 adapters, tokens/s", "decode", 16, 16, PROMPT, 0),
    Scenario("1 stream with an adapter, tokens/s", "decode", 1, 1, PROMPT, 1),
    Scenario("first token after 512, with an adapter, s", "first", 1, 1, 512, 3),
    Scenario("1,000 tokens read before, by the first time", "again", 1, 1, 1000, 3),
)


def prompts(draw: random.Random, scenario: Scenario) -> list[list[int]]:
    """One for each stream."""
    return [[draw.randrange(100, VOCABULARY) for _ in range(scenario.prompt)] for _ in range(scenario.streams)]

"""Tokens to completion objects: one at the end, or a chunk at a time."""

import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from tokenizers import Tokenizer

from app.implementations.serving.core_link import CoreFailure, Ticket
from app.implementations.serving.detokenizer import StreamDetokenizer
from app.implementations.serving.messages import Token
from app.implementations.serving.stop_strings import StopStrings
from app.implementations.serving.wire import WireError, to_json

LEAST_LOGPROB = -9999.0  # JSON has no infinity; vLLM's stand-in


@dataclass
class Completion:
    """One completion that grows. ``prompt_tokens`` and ``completion_tokens`` count the stop token too, as vLLM."""

    model: str
    prompt_tokens: int
    tokenizer: Tokenizer
    with_logprobs: bool
    stops: Sequence[str] = ()
    completion_tokens: int = 0
    finish_reason: str | None = None
    id: str = field(default_factory=lambda: f"cmpl-{uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self._detokenizer = StreamDetokenizer(self.tokenizer)
        self._stops = StopStrings(self.stops)
        self._length = 0  # characters so far

    def take(self, tokens: Sequence[Token]) -> tuple[str, dict[str, Any] | None]:
        """The text that these add, and their logprobs block."""
        offset, self._length = self._length, self._length
        self.completion_tokens += len(tokens)
        self.finish_reason = tokens[-1].finish
        # The token that stopped it is no part of the answer.
        text = self._stops.push(self._detokenizer.push(t.token for t in tokens if t.finish != "stop"))
        if self.finish_reason:
            text += self._stops.push(self._detokenizer.finish())
            text += self._stops.finish()
        if self._stops.found is not None:
            self.finish_reason = "stop"
        self._length += len(text)
        return text, self._logprobs(tokens, offset) if self.with_logprobs else None

    def body(self, text: str, logprobs: dict[str, Any] | None) -> dict[str, Any]:
        choice = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": self.finish_reason}
        return {**self._head(), "choices": [choice]}

    def usage_only(self) -> dict[str, Any]:
        return {**self._head(), "choices": [], "usage": self.usage()}

    def usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }

    def _head(self) -> dict[str, Any]:
        return {"id": self.id, "object": "text_completion", "created": self.created, "model": self.model}

    def _logprobs(self, tokens: Sequence[Token], offset: int) -> dict[str, Any]:
        words = [self._word(t.token) for t in tokens]
        offsets = [offset + sum(map(len, words[:i])) for i in range(len(words))]
        return {
            "text_offset": offsets,
            "tokens": words,
            "token_logprobs": [_finite(t.logprob) for t in tokens],
            "top_logprobs": [
                {self._word(i): _finite(p) for i, p in [*t.top, (t.token, t.logprob)]} for t in tokens
            ],
        }

    def _word(self, token: int) -> str:
        return self.tokenizer.decode([token], skip_special_tokens=False)


def _finite(logprob: float | None) -> float:
    return LEAST_LOGPROB if logprob is None else max(logprob, LEAST_LOGPROB)


async def whole(completion: Completion, ticket: Ticket) -> dict[str, Any]:
    """The finished completion. Raises ``CoreFailure``."""
    texts: list[str] = []
    found: dict[str, list[Any]] = {}
    while not completion.finish_reason:
        text, logprobs = completion.take(await ticket.tokens())
        texts.append(text)
        for name, values in (logprobs or {}).items():
            found.setdefault(name, []).extend(values)
    return {**completion.body("".join(texts), found or None), "usage": completion.usage()}


async def events(
    completion: Completion, ticket: Ticket, first: Sequence[Token], include_usage: bool
) -> AsyncGenerator[bytes]:
    """Server-sent events, to ``[DONE]``; a failure on the way is an ``error`` event."""
    tokens = first
    try:
        while True:
            text, logprobs = completion.take(tokens)
            if text or logprobs or completion.finish_reason:
                yield _event(completion.body(text, logprobs))
            if completion.finish_reason:
                break
            tokens = await ticket.tokens()
    except CoreFailure as failure:
        yield _event(WireError(failure.status, failure.message, code="engine_failed").envelope())
        return
    if include_usage:
        yield _event(completion.usage_only())
    yield b"data: [DONE]\n\n"


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + to_json(value) + b"\n\n"

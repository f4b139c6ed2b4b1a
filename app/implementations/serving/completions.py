"""Tokens to completion objects: one at the end, or a chunk at a time."""

import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import uuid4

from tokenizers import Tokenizer

from app.implementations.serving.detokenizer import StreamDetokenizer
from app.implementations.serving.messages import Token
from app.implementations.serving.stop_strings import StopStrings
from app.implementations.serving.ticket import CoreFailure, Ticket
from app.implementations.serving.wire import WireError, to_json

LEAST_LOGPROB = -9999.0  # JSON has no infinity; vLLM's stand-in


@dataclass
class Completion:
    """One completion that grows, of ``n`` choices. Tokens are counted with the stop token, as vLLM does."""

    model: str
    prompt_tokens: int
    tokenizer: Tokenizer
    with_logprobs: bool
    stops: Sequence[str] = ()
    n: int = 1
    id: str = field(default_factory=lambda: f"cmpl-{uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))
    began: float = field(default_factory=time.monotonic)
    first_token: float | None = None  # when it came, on the same clock
    last_token: float | None = None
    failure: CoreFailure | None = None

    def __post_init__(self) -> None:
        self.choices = [Choice(i, self.tokenizer, self.with_logprobs, self.stops) for i in range(self.n)]

    @property
    def completion_tokens(self) -> int:
        return sum(choice.tokens for choice in self.choices)

    @property
    def finished(self) -> bool:
        return all(choice.finish_reason for choice in self.choices)

    @property
    def outcome(self) -> str:
        if self.failure is not None:
            return self.failure.code
        if not self.finished:
            return "cancelled"
        return "length" if any(choice.finish_reason == "length" for choice in self.choices) else "stop"

    async def grow(self, ticket: Ticket) -> Sequence["Grown"]:
        """The next that is known of some of its choices. Raises ``CoreFailure``."""
        try:
            tokens_of_all = await ticket.tokens()
        except CoreFailure as failure:
            self.failure = failure
            raise
        self.last_token = time.monotonic()
        self.first_token = self.first_token or self.last_token
        by_id: dict[int, list[Token]] = {}
        for token in tokens_of_all:
            by_id.setdefault(token.id, []).append(token)
        grown = []
        for sequence_id, tokens in by_id.items():
            choice = self.choices[ticket.ids.index(sequence_id)]
            if not choice.finish_reason:
                grown.append(Grown(choice, *choice.take(tokens)))
                if choice.finish_reason:
                    ticket.leave(sequence_id)
        return grown

    def body(self, choices: Sequence[dict[str, Any]]) -> dict[str, Any]:
        head = {"id": self.id, "object": "text_completion", "created": self.created, "model": self.model}
        return {**head, "choices": choices}

    def usage(self) -> dict[str, int]:
        """The prompt once, whatever ``n`` is."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }


class Choice:
    def __init__(self, index: int, tokenizer: Tokenizer, with_logprobs: bool, stops: Sequence[str]) -> None:
        self.tokens = 0
        self.finish_reason: str | None = None
        self._index = index
        self._tokenizer = tokenizer
        self._with_logprobs = with_logprobs
        self._detokenizer = StreamDetokenizer(tokenizer)
        self._stops = StopStrings(stops)
        self._length = 0  # characters so far

    def take(self, tokens: Sequence[Token]) -> tuple[str, dict[str, Any] | None]:
        """The text that these add, and their logprobs block."""
        offset = self._length
        self.tokens += len(tokens)
        self.finish_reason = tokens[-1].finish
        # The token that stopped it is no part of the answer.
        text = self._stops.push(self._detokenizer.push(t.token for t in tokens if t.finish != "stop"))
        if self.finish_reason:
            text += self._stops.push(self._detokenizer.finish())
            text += self._stops.finish()
        if self._stops.found is not None:
            self.finish_reason = "stop"
        self._length += len(text)
        return text, self._logprobs(tokens, offset) if self._with_logprobs else None

    def body(self, text: str, logprobs: dict[str, Any] | None) -> dict[str, Any]:
        return {"index": self._index, "text": text, "logprobs": logprobs, "finish_reason": self.finish_reason}

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
        return self._tokenizer.decode([token], skip_special_tokens=False)


class Grown(NamedTuple):
    choice: Choice
    text: str
    logprobs: dict[str, Any] | None


def _finite(logprob: float | None) -> float:
    return LEAST_LOGPROB if logprob is None else max(logprob, LEAST_LOGPROB)


async def whole(completion: Completion, ticket: Ticket) -> dict[str, Any]:
    """The finished completion. Raises ``CoreFailure``."""
    texts: dict[Choice, str] = dict.fromkeys(completion.choices, "")
    found: dict[Choice, dict[str, list[Any]]] = {choice: {} for choice in completion.choices}
    while not completion.finished:
        for choice, text, logprobs in await completion.grow(ticket):
            texts[choice] += text
            for name, values in (logprobs or {}).items():
                found[choice].setdefault(name, []).extend(values)
    choices = [choice.body(text, found[choice] or None) for choice, text in texts.items()]
    return {**completion.body(choices), "usage": completion.usage()}


async def events(
    completion: Completion, ticket: Ticket, first: Sequence[Grown], include_usage: bool
) -> AsyncGenerator[bytes]:
    """Server-sent events, one choice in each, to ``[DONE]``; a failure on the way is an ``error`` event."""
    grown = first
    try:
        while True:
            for choice, text, logprobs in grown:
                if text or logprobs or choice.finish_reason:
                    yield _event(completion.body([choice.body(text, logprobs)]))
            if completion.finished:
                break
            grown = await completion.grow(ticket)
    except CoreFailure as failure:
        yield _event(WireError(failure.status, failure.message, code=failure.code).envelope())
        return
    if include_usage:
        yield _event({**completion.body([]), "usage": completion.usage()})
    yield b"data: [DONE]\n\n"


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + to_json(value) + b"\n\n"

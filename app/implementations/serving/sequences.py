"""Requests under way: what the model has read of each, who is read next, and when they end."""

import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from app.implementations.serving.adapters import Attached
from app.implementations.serving.kv_cache import NoRoom
from app.implementations.serving.messages import FinishReason, Submit, Token
from app.implementations.serving.model import Chunk, ServedModel
from app.implementations.serving.sampler import Sampler, logprobs
from app.implementations.serving.schemas import Guide

PROMPT_TOKENS = 256  # of all prompts together that are read in a turn, beside the tokens of those that answer


@dataclass(slots=True, eq=False)
class Running:
    """``ids``: prompt and answer; the first ``read`` of them are in the cache."""

    request: Submit
    adapter: Attached | None
    sampler: Sampler
    cache: Any
    ids: list[int]
    stops: frozenset[int]
    read: int = 0
    guide: Guide | None = None
    since: float = field(default_factory=time.monotonic)
    started: bool = False

    @classmethod
    def start(cls, request: Submit, adapter: Attached | None, model: ServedModel) -> "Running":
        stops = frozenset(request.sampling.stop_token_ids)
        sampler = Sampler(request.sampling, request.prompt_ids)
        return cls(request, adapter, sampler, model.new_cache(), list(request.prompt_ids), stops)

    @property
    def unread(self) -> int:
        return len(self.ids) - self.read

    def chunk(self, tokens: int) -> Chunk:
        """Its next so many unread tokens."""
        ids = self.ids[self.read : self.read + tokens]
        adapter = self.adapter.weights if self.adapter else None
        return Chunk(ids, self.cache, adapter, last=tokens == self.unread)

    def recall(self, model: ServedModel) -> None:
        """What was read before of its tokens. ``NoRoom``."""
        adapter = self.adapter.weights if self.adapter else None
        self.read = model.recall(self.cache, self.ids, adapter, self.request.sharing)

    def remember(self, model: ServedModel) -> None:
        """Its prompt, when all of it has just been read."""
        adapter = self.adapter.weights if self.adapter else None
        if self.read == len(self.request.prompt_ids):
            model.remember(self.cache, self.request.prompt_ids, adapter, self.request.sharing)

    def draw(self, logits: torch.Tensor) -> Token:
        """The next token, all others being read.

        ``ValueError`` where the logits are no numbers; ``SchemaRefused``.
        """
        token = self.sampler.draw(self.guide.allow(logits) if self.guide else logits)
        if self.guide:
            self.guide.take(token)
        self.ids.append(token)
        finish: FinishReason | None = None
        if token in self.stops:
            finish = "stop"
        elif len(self.ids) - len(self.request.prompt_ids) >= self.request.sampling.max_tokens:
            finish = "length"
        if self.request.sampling.logprobs is None:
            return Token(self.request.id, token, finish)
        chosen, top = logprobs(logits, token, self.request.sampling.logprobs)
        return Token(self.request.id, token, finish, chosen, top)


class Schedule:
    """Who runs and who waits: next is who has the fewest running, by ``sharing``; then who came first.

    When the caches have no room for a running sequence's next tokens, the youngest gives its place up and waits
    again; it is read anew later, with what it has answered.
    """

    def __init__(self, model: ServedModel, most_running: int) -> None:
        self._model = model
        self._most_running = most_running
        self._running: list[Running] = []  # oldest first
        self._waiting: deque[Running] = deque()
        self._started: list[tuple[int, float, int]] = []

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        return not self._running and not self._waiting

    def add(self, sequence: Running) -> None:
        self._waiting.append(sequence)

    def turn(self) -> Sequence[tuple[Running, Chunk]]:
        """One token of each that answers, and prompts up to ``PROMPT_TOKENS``, long ones in pieces: a burst of
        them must not hold up the rest."""
        room = PROMPT_TOKENS
        chosen: list[tuple[Running, Chunk]] = []
        for sequence in self._candidates():
            tokens = sequence.unread
            if tokens > 1:
                tokens = min(tokens, room)
                room -= tokens
            if not tokens or sequence not in self._running:
                continue
            if self._reserve(sequence, tokens):
                chosen.append((sequence, sequence.chunk(tokens)))
        return [(sequence, chunk) for sequence, chunk in chosen if sequence in self._running]

    def remove(self, ids: Iterable[int]) -> None:
        if gone := frozenset(ids):
            for sequence in (*self._running, *self._waiting):
                if sequence.request.id in gone:
                    self._model.release(sequence.cache)
            self._running = [s for s in self._running if s.request.id not in gone]
            self._waiting = deque(s for s in self._waiting if s.request.id not in gone)

    def take_started(self) -> Sequence[tuple[int, float, int]]:
        """Since it was last asked, as ``Turn`` tells it."""
        started, self._started = self._started, []
        return started

    def adapters_in_use(self) -> frozenset[Attached]:
        return frozenset(s.adapter for s in (*self._running, *self._waiting) if s.adapter)

    def _candidates(self) -> Sequence[Running]:
        """Those that run, and as many of those that wait as the turn's tokens and the places allow."""
        unread = sum(s.unread for s in self._running if s.unread > 1)
        while self._waiting and len(self._running) < self._most_running and unread < PROMPT_TOKENS:
            sequence = self._next()
            try:
                sequence.recall(self._model)
            except NoRoom:
                break
            self._waiting.remove(sequence)
            self._running.append(sequence)
            if not sequence.started:
                sequence.started = True
                waited = time.monotonic() - sequence.since
                self._started.append((sequence.request.id, waited, sequence.read))
            unread += sequence.unread
        return list(self._running)

    def _next(self) -> Running:
        held = Counter(sequence.request.sharing for sequence in self._running)
        return min(self._waiting, key=lambda sequence: held[sequence.request.sharing])

    def _reserve(self, sequence: Running, tokens: int) -> bool:
        """False: it was the youngest, and has given way itself."""
        while True:
            try:
                self._model.reserve(sequence.cache, tokens)
            except NoRoom:
                youngest = self._running.pop()
                self._model.release(youngest.cache)
                youngest.read = 0
                self._waiting.appendleft(youngest)
                if youngest is sequence:
                    return False
            else:
                return True

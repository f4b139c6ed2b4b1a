"""One request under way: what the model has read of it, and when it ends."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from transformers import DynamicCache

from app.implementations.serving.adapters import Attached
from app.implementations.serving.messages import FinishReason, Submit, Token
from app.implementations.serving.model import BaseModel
from app.implementations.serving.sampler import Sampler, logprobs

JOINING_TOKENS = 256  # once so many are to be read in a turn, nobody else joins it


@dataclass(slots=True, eq=False)
class Running:
    """A sequence with its own cache. Each ``advance`` reads what is unread and draws one token."""

    request: Submit
    adapter: Attached | None
    sampler: Sampler
    cache: DynamicCache
    unread: list[int]
    made: int = 0
    stops: frozenset[int] = field(default_factory=frozenset)

    @classmethod
    def start(cls, request: Submit, adapter: Attached | None, model: BaseModel) -> "Running":
        stops = frozenset(request.stop_token_ids)
        return cls(request, adapter, Sampler(request), model.new_cache(), list(request.prompt_ids), stops=stops)

    def advance(self, model: BaseModel) -> Token:
        logits = model.step(self.unread, self.cache)
        token = self.sampler.draw(logits)
        self.unread = [token]
        self.made += 1
        finish: FinishReason | None = None
        if token in self.stops:
            finish = "stop"
        elif self.made >= self.request.max_tokens:
            finish = "length"
        if self.request.logprobs is None:
            return Token(self.request.id, token, finish)
        chosen, top = logprobs(logits, token, self.request.logprobs)
        return Token(self.request.id, token, finish, chosen, top)


class Schedule:
    """Who runs and who waits, first come, first served."""

    def __init__(self, most_running: int) -> None:
        self._most_running = most_running
        self._running: list[Running] = []
        self._waiting: deque[Running] = deque()

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

    def turn(self) -> Sequence[Running]:
        """Everyone who runs, those of one adapter side by side: switching costs milliseconds.

        Those that wait join until their prompts are ``JOINING_TOKENS``: a burst of long ones must not hold up the
        rest.
        """
        joining = 0
        while self._waiting and len(self._running) < self._most_running and joining < JOINING_TOKENS:
            self._running.append(self._waiting.popleft())
            joining += len(self._running[-1].unread)
        return sorted(self._running, key=lambda s: s.adapter.key if s.adapter else "")

    def remove(self, ids: Iterable[int]) -> None:
        if gone := frozenset(ids):
            self._running = [s for s in self._running if s.request.id not in gone]
            self._waiting = deque(s for s in self._waiting if s.request.id not in gone)

    def adapters_in_use(self) -> frozenset[Attached]:
        return frozenset(s.adapter for s in (*self._running, *self._waiting) if s.adapter)

"""The core: torch, sampling and the loop. No HTTP and no text.

Busy Python beside the loop made a step a hundred times slower, so it lives in another process.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from app.implementations.serving.adapter_files import AdapterRefused
from app.implementations.serving.adapters import Adapters, Attached
from app.implementations.serving.channel import Channel
from app.implementations.serving.messages import (
    MOST_RUNNING,
    Answer,
    Attach,
    Cancel,
    Detach,
    Evicted,
    Failed,
    Message,
    Ready,
    Submit,
    Token,
    Turn,
)
from app.implementations.serving.model import Chunk, ServedModel
from app.implementations.serving.schemas import Compiled, SchemaRefused, Schemas
from app.implementations.serving.sequences import Running, Schedule

logger = logging.getLogger(__name__)

Pairs = Sequence[tuple[Running, Chunk]]


class Core:
    """Every sequence that runs advances by one token a turn; between turns, messages are read.

    ``adapter_bytes``: what the adapters in memory may take together. ``tokenizer``: the file, for JSON schemas.
    """

    def __init__(
        self,
        model: ServedModel,
        channel: Channel,
        adapter_bytes: int,
        tokenizer: Path,
        most_running: int = MOST_RUNNING,
    ) -> None:
        self._model = model
        self._channel = channel
        self._adapters = Adapters(model, adapter_bytes)
        self._schedule = Schedule(model, most_running)
        self._schemas = Schemas(tokenizer, model.vocabulary, model.end_ids, channel.wake)
        self._compiling: list[tuple[Running, Future[Compiled]]] = []  # not in the schedule yet

    def run(self) -> None:
        """Until the front closes its end: raises ``FrontGone``."""
        model = self._model
        self._channel.send(Ready(model.context, model.vocabulary, model.end_ids))
        while True:
            for message in self._channel.receive(wait=self._schedule.idle):
                self._handle(message)
            self._add_compiled()
            if not self._schedule.idle:
                self._turn()
            for name in self._adapters.collect(self._adapters_in_use()):
                self._channel.send(Evicted(name))

    def _handle(self, message: Message) -> None:
        match message:
            case Submit():
                self._submit(message)
            case Cancel(id=request_id):
                self._schedule.remove([request_id])
                self._compiling = [pair for pair in self._compiling if pair[0].request.id != request_id]
                if self._schedule.idle:  # then no turn follows that would say so
                    self._tell([])
            case Attach():
                self._channel.send(self._attach(message))
            case Detach(id=request_id, name=name):
                known = self._adapters.detach(name)
                self._channel.send(Answer(request_id, None if known else "no such adapter is loaded"))
            case _:
                logger.error("the front sent a %s", type(message).__name__)

    def _attach(self, message: Attach) -> Answer:
        try:
            size = self._adapters.attach(message.name, message.folder, message.pinned)
        except AdapterRefused as refusal:
            return Answer(message.id, str(refusal))
        return Answer(message.id, None, size)

    def _submit(self, request: Submit) -> None:
        # Resolved here and not at its first turn: an adapter that somebody waits for is not evicted.
        adapter = self._adapters.get(request.adapter) if request.adapter else None
        if request.adapter and adapter is None:
            self._channel.send(Failed(request.id, 404, "the adapter has been unloaded", "model_not_found"))
        else:
            sequence = Running.start(request, adapter, self._model)
            if request.sampling.schema is None:
                self._schedule.add(sequence)
            else:
                self._compile(sequence, request.sampling.schema)

    def _compile(self, sequence: Running, schema: str) -> None:
        try:
            self._compiling.append((sequence, self._schemas.compile(schema)))
        except SchemaRefused as refusal:
            self._refuse(sequence, refusal)

    def _add_compiled(self) -> None:
        """Those whose schema has been compiled meanwhile."""
        done = [pair for pair in self._compiling if pair[1].done()]
        self._compiling = [pair for pair in self._compiling if pair not in done]
        for sequence, future in done:
            fault = future.exception()
            if fault is None:
                sequence.guide = future.result().guide()
                self._schedule.add(sequence)
            elif isinstance(fault, SchemaRefused):
                self._refuse(sequence, fault)
            else:
                self._fail(sequence, fault)

    def _refuse(self, sequence: Running, refusal: SchemaRefused) -> None:
        self._schedule.remove([sequence.request.id])
        code = "invalid_schema" if refusal.status == 400 else "engine_busy"
        self._channel.send(Failed(sequence.request.id, refusal.status, refusal.message, code))

    def _adapters_in_use(self) -> frozenset[Attached]:
        compiling = (sequence.adapter for sequence, _ in self._compiling)
        return self._schedule.adapters_in_use() | {adapter for adapter in compiling if adapter}

    def _turn(self) -> None:
        pairs = self._schedule.turn()
        tokens = self._advance(pairs)
        self._schedule.remove(token.id for token in tokens if token.finish)
        self._tell(tokens, len(pairs))

    def _tell(self, tokens: Sequence[Token], batch: int = 0) -> None:
        running, waiting = self._schedule.running, self._schedule.waiting + len(self._compiling)
        held = self._model.kv_bytes, self._adapters.bytes
        self._channel.send(Turn(tokens, running, waiting, *held, batch, self._schedule.take_started()))

    def _advance(self, pairs: Pairs) -> list[Token]:
        """What fails together is tried alone: it ends its own request and no other."""
        if not pairs:
            return []
        try:
            logits = self._model.step([chunk for _, chunk in pairs])
        except Exception as error:
            if len(pairs) > 1:
                logger.exception("a turn of %d requests failed: each alone", len(pairs))
                return [token for pair in pairs for token in self._advance([pair])]
            self._fail(pairs[0][0], error)
            return []
        for sequence, chunk in pairs:
            sequence.read += len(chunk.ids)
            sequence.remember(self._model)
        wanted = [sequence for sequence, chunk in pairs if chunk.last]
        drawn = [self._draw(sequence, row) for sequence, row in zip(wanted, logits, strict=True)]
        return [token for token in drawn if token is not None]

    def _draw(self, sequence: Running, logits: Any) -> Token | None:
        try:
            return sequence.draw(logits)
        except SchemaRefused as refusal:
            self._refuse(sequence, refusal)
            return None
        except (ValueError, RuntimeError) as error:
            self._fail(sequence, error)
            return None

    def _fail(self, sequence: Running, error: BaseException) -> None:
        logger.error("request %d failed", sequence.request.id, exc_info=error)
        self._schedule.remove([sequence.request.id])
        reason = "the engine failed on this request; its log says why"
        self._channel.send(Failed(sequence.request.id, 500, reason))

"""Answers that are JSON of a schema: which tokens may come next. Schemas are compiled in a thread, and kept."""

import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from weakref import WeakSet

import torch
from llguidance import LLMatcher, LLTokenizer
from tokenizers import Tokenizer

from app.implementations.serving.grammars import matcher

TRIAL_MODULE = "app.processes.schema_trial"
TRIAL_SECONDS = 20.0  # by the clock; its own limit is two of the processor's
MOST_KEPT = 32  # compiled schemas; none takes more than some ten megabytes


class SchemaRefused(Exception):
    """``status`` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Guide:
    """Where one sequence's answer is in its schema."""

    def __init__(self, state: LLMatcher) -> None:
        self._state = state

    def allow(self, logits: torch.Tensor) -> torch.Tensor:
        """Minus infinity for what may not come next. ``SchemaRefused``: it has become too much on the way."""
        allowed = torch.frombuffer(bytearray(self._state.compute_logit_bias()), dtype=torch.uint8)
        self._check()
        return logits.masked_fill(allowed[: len(logits)] == 0, float("-inf"))

    def take(self, token: int) -> None:
        """``SchemaRefused``."""
        self._state.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._state.is_error():
            raise SchemaRefused(400, "the schema is too complex for the answer that was begun")


class Compiled:
    def __init__(self, start: LLMatcher) -> None:
        self._start = start
        self._guides: WeakSet[Guide] = WeakSet()

    @property
    def in_use(self) -> bool:
        return len(self._guides) > 0

    def guide(self) -> Guide:
        guide = Guide(self._start.deep_copy())
        self._guides.add(guide)
        return guide


def _failed_by_chance(future: "Future[Compiled]") -> bool:
    """The next time may be better."""
    fault = future.exception() if future.done() else None
    return fault is not None and not (isinstance(fault, SchemaRefused) and fault.status == 400)


class Schemas:
    """``tokenizer``: the file. ``wake`` is called in the thread whenever one is done."""

    def __init__(self, tokenizer: Path, vocabulary: int, end_ids: Sequence[int], wake: Callable[[], None]) -> None:
        self._file = tokenizer
        self._vocabulary = vocabulary
        self._end_ids = list(end_ids)
        self._wake = wake
        self._tokenizer: LLTokenizer | None = None
        self._thread = ThreadPoolExecutor(1, "schemas")
        self._known: OrderedDict[str, Future[Compiled]] = OrderedDict()  # least recently asked for first

    def compile(self, schema: str) -> "Future[Compiled]":
        """Raises ``SchemaRefused``, and so may the outcome."""
        future = self._known.pop(schema, None)
        if future is None or _failed_by_chance(future):
            self._make_room()
            future = self._thread.submit(self._compile, schema)
            future.add_done_callback(lambda _: self._wake())
        self._known[schema] = future
        return future

    def _make_room(self) -> None:
        if len(self._known) < MOST_KEPT:
            return
        for schema, future in self._known.items():
            if future.done() and (future.exception() or not future.result().in_use):
                del self._known[schema]
                return
        raise SchemaRefused(503, f"{MOST_KEPT} other JSON schemas are in use at this time; try again")

    def _compile(self, schema: str) -> Compiled:
        self._try_out(schema)
        if self._tokenizer is None:
            tokenizer = Tokenizer.from_file(str(self._file))
            size = max(self._vocabulary, tokenizer.get_vocab_size())
            self._tokenizer = LLTokenizer(tokenizer.to_str(), n_vocab=size, eos_token=self._end_ids)
        try:
            return Compiled(matcher(self._tokenizer, schema))
        except ValueError as error:
            raise SchemaRefused(400, f"the JSON schema cannot be used: {error}") from None

    def _try_out(self, schema: str) -> None:
        command = [sys.executable, "-m", TRIAL_MODULE]
        try:
            trial = subprocess.run(
                command, input=schema, capture_output=True, text=True, timeout=TRIAL_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise SchemaRefused(503, "the JSON schema could not be checked in time; try again") from None
        if trial.returncode == 1:
            raise RuntimeError(f"{TRIAL_MODULE}: {trial.stderr}")
        if trial.returncode:
            fault = trial.stdout.strip() or "it would take too much memory or time"
            raise SchemaRefused(400, f"the JSON schema cannot be used: {fault}")

"""To learn from: a model in this process, to talk to and to measure by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.core.entities.datasets import Conversation, Message
from app.core.entities.identity import DEFAULT_PROJECT_ID
from app.core.entities.inference import SamplingOptions
from app.core.errors import Invalid
from app.core.interfaces.components import ChatTokenizer, LanguageModel
from app.core.interfaces.stores import Stores
from app.core.services.models.resolver import ModelResolver, Subject

if TYPE_CHECKING:
    from flask import Flask

ANSWER_TOKENS = 64
GREEDY = SamplingOptions(ANSWER_TOKENS)
UNFINISHED = "\ufffd"  # what half of a character decodes to


@dataclass(frozen=True, slots=True)
class Answer:
    question: str
    expected: str
    answer: str


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What a model makes of conversations that it was not trained on."""

    model: str
    rows: int
    tokens: int  # the assistant's
    loss: float  # mean of those
    answers: Sequence[Answer]

    @property
    def perplexity(self) -> float:
        """Between how many tokens it wavers: about the whole vocabulary before training, 1 for certainty."""
        return math.exp(self.loss)


class Chat:
    """A conversation with one model. What was said is read anew with each message; the model keeps nothing."""

    def __init__(self, name: str, model: LanguageModel, tokenizer: ChatTokenizer) -> None:
        self.name = name
        self._model = model
        self._tokenizer = tokenizer
        self._messages: list[Message] = []

    def forget(self) -> None:
        self._messages.clear()

    def say(self, text: str, sampling: SamplingOptions) -> Iterator[str]:
        """The answer in pieces as it is made. ``Invalid`` for a message longer than the model's context.

        Where the conversation has grown too long for it, its oldest questions and answers are dropped.
        """
        self._messages.append({"role": "user", "content": text})
        tokens = self._model.tokens(self._prompt(), sampling)
        answer = ""
        try:
            for piece in self._pieces(tokens):
                answer += piece
                yield piece
        finally:  # cut short, it has said what it has said
            self._messages.append({"role": "assistant", "content": answer})

    def _prompt(self) -> list[int]:
        while len(prompt := self._tokenizer.encode_prompt(self._messages)) >= self._model.context:
            if len(self._messages) == 1:
                self.forget()
                raise Invalid(f"this is longer than the model's context of {self._model.context} tokens")
            del self._messages[:2]
        return prompt

    def _pieces(self, tokens: Iterator[int]) -> Iterator[str]:
        """Text as soon as no later token can change it: a character may be several tokens."""
        ids: list[int] = []
        shown = text = ""
        for token in tokens:
            ids.append(token)
            text = self._tokenizer.decode(ids)
            if not text.endswith(UNFINISHED):
                yield text[len(shown) :]
                shown = text
        if text != shown:
            yield text[len(shown) :]


class LabService:
    """``models`` builds a LanguageModel: that is when torch is loaded, in the calling process."""

    def __init__(self, stores: Stores, models: Callable[..., LanguageModel], threads: int) -> None:
        self._resolver = ModelResolver(stores.versions, stores.bases, stores.artifacts)
        self._datasets = stores.datasets
        self._models = models
        self._threads = threads

    def chat(self, model: str, seed: int | None = None) -> Chat:
        """With a base model or a version (``name``, ``name:3``, ``name@alias``).

        Equal seeds and messages give equal answers.
        """
        subject = self._resolver.subject(DEFAULT_PROJECT_ID, model)
        return Chat(subject.name, self._load(subject, seed), subject.tokenizer)

    def measure(
        self,
        model: str,
        dataset_path: str,
        *,
        split: str = "test",
        answers: int = 5,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> HeldOut:
        """The loss on a split of a file, and greedy answers to some of its questions, spread over it.

        ``Invalid`` lists the faults of the data.
        """
        check = self._datasets.check(dataset_path, trusted=True)
        if check.faults:
            raise Invalid(f"{dataset_path} has faults", code="invalid_data", faults=check.faults)
        subject = self._resolver.subject(DEFAULT_PROJECT_ID, model)
        prepared = self._datasets.prepare(dataset_path, check.digest, subject.seed, trusted=True)
        rows = [row for row in self._datasets.rows(prepared, split) if row.messages]
        loaded = self._load(subject, None)
        loss, tokens = 0.0, 0
        for place, row in enumerate(rows):
            encoded = subject.tokenizer.encode_training(row.messages, loaded.context)
            loss += loaded.loss(encoded)
            tokens += encoded.supervised
            on_progress(place + 1, len(rows))
        if not tokens:
            raise Invalid(f"the split {split!r} holds no conversation to measure", code="nothing_to_score")
        chosen = rows[:: max(1, len(rows) // answers)][:answers] if answers else []
        return HeldOut(
            subject.name,
            len(rows),
            tokens,
            loss / tokens,
            [_ask(loaded, subject.tokenizer, row) for row in chosen],
        )

    def _load(self, subject: Subject, seed: int | None) -> LanguageModel:
        return self._models(
            folder=subject.model_folder(),
            adapter_folder=subject.adapter_folder,
            stop_token_ids=subject.tokenizer.stop_token_ids,
            seed=seed,
            threads=self._threads,
        )


def lab_service(app: Flask) -> LabService:
    """Build the service over the stores of ``app``."""
    from app.bootstrap import build_stores
    from app.extensions import db

    settings = app.extensions["settings"]
    with app.app_context():
        stores = build_stores(settings, db.engine)
    return LabService(stores, _model_by_hand, settings.cores)


def _model_by_hand(**arguments: Any) -> LanguageModel:
    from app.implementations.by_hand.language_model import ModelByHand

    return ModelByHand(**arguments)


def _ask(model: LanguageModel, tokenizer: ChatTokenizer, row: Conversation) -> Answer:
    *asked, expected = row.messages
    made = list(model.tokens(tokenizer.encode_prompt(asked), GREEDY))
    return Answer(asked[-1]["content"], expected["content"], tokenizer.decode(made))

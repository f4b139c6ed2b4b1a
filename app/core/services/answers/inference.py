"""Answers from base models and published versions."""

import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import fields, replace
from functools import partial
from typing import TypeVar

from app.core.entities.answer_stream import AnswerStream, ReadCalls
from app.core.entities.datasets import Message
from app.core.entities.engines import EngineName
from app.core.entities.identity import Principal
from app.core.entities.inference import (
    Answer,
    AnswerOptions,
    ChatRequest,
    CompletionRequest,
    Generation,
    GenerationRequest,
    LabelPrediction,
    LabelRequest,
    Piece,
    Prediction,
)
from app.core.entities.models import not_generative
from app.core.entities.tool_calls import Tool, ToolCall, ToolCallStream, split_tool_calls
from app.core.errors import Fault, Invalid, Unavailable
from app.core.interfaces.operations import EngineClient, UsageLog, Wanted
from app.core.interfaces.services.answers import Inference
from app.core.services.answers.targets import Target, Targets
from app.core.services.answers.usage import metered
from app.core.services.people.rates import RateService

T = TypeVar("T")
MOST_AT_ONCE = 32  # texts of batches that this process has at the engines


class InferenceService(Inference):
    """Renders with the template of who is to answer, and asks the engine of its base model."""

    def __init__(self, targets: Targets, engines: EngineClient, usage: UsageLog, rates: RateService) -> None:
        self._targets = targets
        self._engines = engines
        self._usage = usage
        self._rates = rates
        self._pool = ThreadPoolExecutor(MOST_AT_ONCE, "predict")  # starts none before its first batch

    def predict(
        self,
        principal: Principal,
        texts: Sequence[str],
        options: AnswerOptions,
        model: str | None = None,
        is_wanted: Wanted | None = None,
    ) -> Sequence[Prediction] | Sequence[LabelPrediction]:
        target = self._target(principal, model)
        if target.label_length is not None:
            return self._labels(principal, target, texts, options)
        prompts = _each("texts", len(texts), lambda place: target.tokenizer.encode_prompt([_user(texts[place])]))
        requests = _requests(principal, target, prompts, options)
        generations = self._together("texts", principal, target, requests, is_wanted)
        return [_prediction(target, generation) for generation in generations]

    def chat(self, principal: Principal, request: ChatRequest, is_wanted: Wanted | None = None) -> Prediction:
        target = self._writing(principal, request.model, request.conversation)
        prompt = target.tokenizer.encode_prompt(request.messages, request.tools)
        [asked] = _requests(principal, target, [prompt], request.options)
        generation = self._generate(principal, target, asked, is_wanted)
        return _prediction(target, generation, _read_calls(target, request.tools))

    def stream(self, principal: Principal, request: ChatRequest, is_wanted: Wanted | None = None) -> AnswerStream:
        target = self._writing(principal, request.model, request.conversation)
        prompt = target.tokenizer.encode_prompt(request.messages, request.tools)
        [asked] = _requests(principal, target, [prompt], request.options)
        pieces = self._pieces(principal, target, asked, is_wanted)
        reads = _read_calls(target, request.tools)
        return AnswerStream(target.name, target.tokenizer.opens_thinking, pieces, reads)

    def complete(
        self, principal: Principal, request: CompletionRequest, is_wanted: Wanted | None = None
    ) -> Sequence[Prediction]:
        target = self._writing(principal, request.model)
        prompts = _each("prompt", len(request.prompts), lambda place: _beginning(target, request.prompts[place]))
        asked = _requests(principal, target, prompts, request.options)
        generations = self._together("prompt", principal, target, asked, is_wanted)
        return [_continuation(target, generation) for generation in generations]

    def stream_completion(
        self, principal: Principal, request: CompletionRequest, is_wanted: Wanted | None = None
    ) -> AnswerStream:
        target = self._writing(principal, request.model)
        [prompt] = request.prompts
        [asked] = _requests(principal, target, [_beginning(target, prompt)], request.options)
        return AnswerStream(target.name, None, self._pieces(principal, target, asked, is_wanted))

    def _target(self, principal: Principal, model: str | None, conversation: str | None = None) -> Target:
        """Without ``model``, the first resident base."""
        self._rates.admit(principal)
        if model:
            return self._targets.find(principal.project_id, model, conversation)
        resident = self._engines.resident()
        if not resident:
            raise Unavailable("no engine answers: no base model is resident", code="base_not_resident")
        return self._targets.base(resident[0])

    def _writing(self, principal: Principal, model: str | None, conversation: str | None = None) -> Target:
        target = self._target(principal, model, conversation)
        if target.label_length is not None:
            raise not_generative(target.name)
        return target

    def _labels(
        self, principal: Principal, target: Target, texts: Sequence[str], options: AnswerOptions
    ) -> Sequence[LabelPrediction]:
        _check_nothing_drawn(target, options)
        rows = _each("texts", len(texts), lambda place: _plain(target, texts[place]))
        engine = EngineName(target.base_model, target.own_engine)
        with metered(self._usage, self._rates, principal, target) as meter:
            meter.prompt_tokens = sum(map(len, rows))
            scores = self._engines.classify(LabelRequest(engine, rows, options.deadline_seconds))
        return [
            LabelPrediction(max(shares, key=lambda label: shares[label]), shares, target.name, len(row))
            for row, shares in zip(rows, scores, strict=True)
        ]

    def _generate(
        self, principal: Principal, target: Target, request: GenerationRequest, is_wanted: Wanted | None
    ) -> Generation:
        with metered(self._usage, self._rates, principal, target) as meter:
            meter.prompt_tokens = len(request.prompt_ids)
            generation = self._engines.generate(request, is_wanted)
            meter.completion_tokens = generation.tokens.completion
            meter.finish_reason = generation.choices[0].finish_reason
        return generation

    def _pieces(
        self, principal: Principal, target: Target, request: GenerationRequest, is_wanted: Wanted | None
    ) -> Generator[Piece]:
        stream = self._engines.stream(request, is_wanted)
        with metered(self._usage, self._rates, principal, target) as meter, closing(stream) as pieces:
            meter.prompt_tokens = len(request.prompt_ids)
            for piece in pieces:
                if piece.text:
                    meter.first_token()
                    meter.completion_tokens += 1  # until the engine says how many: not of a stream that is closed
                if piece.tokens:
                    meter.completion_tokens = piece.tokens.completion
                meter.finish_reason = piece.finish_reason or meter.finish_reason
                yield piece

    def _together(
        self,
        field: str,
        principal: Principal,
        target: Target,
        requests: Sequence[GenerationRequest],
        is_wanted: Wanted | None,
    ) -> Sequence[Generation]:
        """In order. The deadline is that of all, the wait for a thread included."""
        if len(requests) == 1:
            return [self._generate(principal, target, requests[0], is_wanted)]
        started = time.monotonic()

        def ask(request: GenerationRequest) -> Generation:
            deadline = request.options.deadline_seconds
            if deadline is None:
                return self._generate(principal, target, request, is_wanted)
            left = deadline - (time.monotonic() - started)
            if left <= 0:
                raise Unavailable("the engine took too long to answer", code="engine_timeout")
            hurried = replace(request, options=replace(request.options, deadline_seconds=left))
            return self._generate(principal, target, hurried, is_wanted)

        futures = [self._pool.submit(ask, request) for request in requests]
        try:
            return _each(field, len(futures), lambda place: futures[place].result())
        finally:
            for future in futures:
                future.cancel()  # what has not begun, where another has failed


def _requests(
    principal: Principal, target: Target, prompts: Sequence[Sequence[int]], options: AnswerOptions
) -> Sequence[GenerationRequest]:
    return [
        GenerationRequest(
            base_model=target.base_model,
            prompt_ids=prompt,
            options=options,
            stop_token_ids=() if options.ignore_eos else target.tokenizer.stop_token_ids,
            adapter=target.adapter,
            sharing=principal.project_id,
            version=target.own_engine,
        )
        for prompt in prompts
    ]


def _beginning(target: Target, text: str | Sequence[int]) -> Sequence[int]:
    if not isinstance(text, str):
        return text
    return target.tokenizer.encode_text(text)[:-1]  # it goes on


def _each(field: str, count: int, one: Callable[[int], T]) -> list[T]:
    """Of each text of ``field``. ``Invalid`` with the faults of all, where there is more than one text."""
    done: list[T] = []
    faults: list[Fault] = []
    for place in range(count):
        try:
            done.append(one(place))
        except Invalid as error:
            if count == 1:
                raise
            faults.append(Fault(f"{field}.{place}", error.code, error.message))
    if faults:
        raise Invalid("the request has faults", faults=faults)
    return done


def _plain(target: Target, text: str) -> Sequence[int]:
    """As the text of a training row; what is beyond the length of those is cut off, as it was of theirs."""
    ids = target.tokenizer.encode_plain(text, target.label_length).input_ids
    if not ids:
        raise Invalid("has nothing that this model's tokenizer keeps", code="no_token")
    return ids


def _check_nothing_drawn(target: Target, options: AnswerOptions) -> None:
    usual = AnswerOptions(max_tokens=options.max_tokens, deadline_seconds=options.deadline_seconds)
    options = replace(options, stop=tuple(options.stop))
    given = [one.name for one in fields(options) if getattr(options, one.name) != getattr(usual, one.name)]
    if given:
        told = f"{target.name} tells labels and draws nothing: leave it out"
        raise Invalid("the request has faults", faults=[Fault(name, "not_generative", told) for name in given])


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _read_calls(target: Target, tools: Sequence[Tool]) -> ReadCalls | None:
    """What tells calls of ``tools`` apart, where it is known how this model writes them."""
    form = target.tokenizer.tool_format
    names = {tool["function"]["name"] for tool in tools}
    return partial(ToolCallStream, form, names) if form and names else None


def _prediction(target: Target, generation: Generation, read_calls: ReadCalls | None = None) -> Prediction:
    answers = []
    for choice in generation.choices:
        reasoning, text = target.tokenizer.split_reasoning(choice.text)
        calls: Sequence[ToolCall] = ()
        if read_calls:
            text, calls = split_tool_calls(text, read_calls())
        reason = "tool_calls" if calls and choice.finish_reason == "stop" else choice.finish_reason
        answers.append(Answer(text, reasoning, reason, choice.logprobs, calls))
    return Prediction(answers, target.name, generation.tokens)


def _continuation(target: Target, generation: Generation) -> Prediction:
    answers = [Answer(choice.text, None, choice.finish_reason, choice.logprobs) for choice in generation.choices]
    return Prediction(answers, target.name, generation.tokens)

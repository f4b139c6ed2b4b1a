"""Predictions, and the pieces of one that streams, in the shapes of OpenAI's wire."""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from app.core.entities.answer_stream import AnswerStream
from app.core.entities.inference import Answer, AnswerPiece, Prediction, TokenCounts, TokenLogprob
from app.core.entities.tool_calls import ToolCall
from app.core.errors import AppError, Unavailable
from app.gateway.errors import envelope
from app.gateway.streams import frame

DONE = b"data: [DONE]\n\n"

Shape = dict[str, Any]


def chat_completion(said: Prediction, top: int) -> Shape:
    """``top``: how many of the likeliest tokens stand beside each."""
    choices = [
        {
            "index": index,
            "message": _message(answer),
            "logprobs": None if answer.logprobs is None else _chat_logprobs(answer.logprobs, top),
            "finish_reason": answer.finish_reason,
        }
        for index, answer in enumerate(said.answers)
    ]
    return {**_head("chatcmpl", "chat.completion", said.model), "choices": choices, "usage": _usage(said.tokens)}


def completion(said: Sequence[Prediction]) -> Shape:
    """Of one prediction for each prompt."""
    answers = [answer for prediction in said for answer in prediction.answers]
    choices = [
        {
            "index": index,
            "text": answer.text,
            "logprobs": None if answer.logprobs is None else _text_logprobs(answer.logprobs, 0),
            "finish_reason": answer.finish_reason,
        }
        for index, answer in enumerate(answers)
    ]
    counts = TokenCounts(sum(one.tokens.prompt for one in said), sum(one.tokens.completion for one in said))
    return {**_head("cmpl", "text_completion", said[0].model), "choices": choices, "usage": _usage(counts)}


class ChatChoices:
    """The choices of each chunk of a chat: its role, what is new, how it ends."""

    head = ("chatcmpl", "chat.completion.chunk")

    def __init__(self, top: int) -> None:
        self._top = top
        self._calls: dict[int, int] = {}  # how many each choice has made

    def of(self, piece: AnswerPiece) -> Iterator[Shape]:
        if piece.choice not in self._calls:
            self._calls[piece.choice] = 0
            yield self._choice(piece, {"role": "assistant", "content": "", "refusal": None})
        said = {"reasoning_content": piece.reasoning, "content": piece.text}
        delta = {name: text for name, text in said.items() if text}
        if delta or piece.logprobs:
            logprobs = _chat_logprobs(piece.logprobs, self._top) if piece.logprobs else None
            yield self._choice(piece, delta, logprobs=logprobs)
        for call in piece.tool_calls:  # whole: what it is is not clear before
            yield self._choice(piece, {"tool_calls": [{"index": self._calls[piece.choice], **_call(call)}]})
            self._calls[piece.choice] += 1
        if piece.finish_reason:
            yield self._choice(piece, {}, finish_reason=piece.finish_reason)

    def _choice(self, piece: AnswerPiece, delta: Shape, **others: Any) -> Shape:
        return {"index": piece.choice, "delta": delta, "logprobs": None, "finish_reason": None, **others}


class TextChoices:
    """The choices of each chunk of a text that goes on."""

    head = ("cmpl", "text_completion")

    def __init__(self) -> None:
        self._lengths: dict[int, int] = {}

    def of(self, piece: AnswerPiece) -> Iterator[Shape]:
        before = self._lengths.get(piece.choice, 0)
        self._lengths[piece.choice] = before + len("".join(one.token for one in piece.logprobs))
        yield {
            "index": piece.choice,
            "text": piece.text,
            "logprobs": _text_logprobs(piece.logprobs, before) if piece.logprobs else None,
            "finish_reason": piece.finish_reason,
        }


class Chunks:
    """An answer as server-sent events. ``is_late``: whether the stream has to end before its answer does."""

    def __init__(
        self,
        answer: AnswerStream,
        choices: ChatChoices | TextChoices,
        include_usage: bool,
        is_late: Callable[[], bool],
    ) -> None:
        self._answer = answer
        self._choices = choices
        self._include_usage = include_usage
        self._is_late = is_late

    def __iter__(self) -> Iterator[bytes]:
        head = _head(*self._choices.head, self._answer.model)
        no_usage = {"usage": None} if self._include_usage else {}
        try:
            for piece in self._answer:
                if piece.tokens:
                    if self._include_usage:
                        yield frame(None, {**head, "choices": [], "usage": _usage(piece.tokens)})
                    continue
                for choice in self._choices.of(piece):
                    yield frame(None, {**head, "choices": [choice], **no_usage})
                if self._is_late():
                    raise Unavailable("the service stops; ask again shortly", code="stopping")
        except AppError as error:
            yield frame(None, envelope(error.status, error.code, error.message))
        else:
            yield DONE

    def close(self) -> None:
        self._answer.close()


def _head(prefix: str, kind: str, model: str) -> Shape:
    return {
        "id": f"{prefix}-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
    }


def _message(answer: Answer) -> Shape:
    content = None if answer.tool_calls and not answer.text else answer.text
    message: Shape = {"role": "assistant", "content": content, "refusal": None}
    if answer.reasoning is not None:
        message["reasoning_content"] = answer.reasoning
    if answer.tool_calls:
        message["tool_calls"] = [_call(call) for call in answer.tool_calls]
    return message


def _call(call: ToolCall) -> Shape:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _usage(counts: TokenCounts) -> Shape:
    return {
        "prompt_tokens": counts.prompt,
        "completion_tokens": counts.completion,
        "total_tokens": counts.prompt + counts.completion,
    }


def _chat_logprobs(logprobs: Sequence[TokenLogprob], top: int) -> Shape:
    content = [
        {
            **_token(one.token, one.logprob),
            "top_logprobs": [_token(token, logprob) for token, logprob in _likeliest(one.top, top)],
        }
        for one in logprobs
    ]
    return {"content": content, "refusal": None}


def _likeliest(found: Mapping[str, float], most: int) -> list[tuple[str, float]]:
    """Without the token itself, where it is none of them."""
    return sorted(found.items(), key=lambda item: -item[1])[:most]


def _token(token: str, logprob: float) -> Shape:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


def _text_logprobs(logprobs: Sequence[TokenLogprob], offset: int) -> Shape:
    """``offset``: characters of the answer before the first of them."""
    offsets = []
    for one in logprobs:
        offsets.append(offset)
        offset += len(one.token)
    return {
        "tokens": [one.token for one in logprobs],
        "token_logprobs": [one.logprob for one in logprobs],
        "top_logprobs": [dict(one.top) for one in logprobs],
        "text_offset": offsets,
    }

"""What /api/v1/predict and /api/v1/chat answer: a ``Prediction``, or the frames of an ``AnswerStream``."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import marshmallow as ma

from app.core.entities.answer_stream import AnswerStream
from app.core.entities.inference import AnswerPiece, TokenLogprob
from app.core.errors import AppError
from app.gateway.streams import frame

_REASON = {"enum": ["stop", "length"]}
_REASONING = {"description": "what the model thought first; null where it does not think aloud"}
_MODEL = {"description": "what answered", "example": "support-assistant:1"}


class PredictionSchema(ma.Schema):
    """Of a model that writes; or ``label`` and ``scores`` of one that tells labels, and none of its fields."""

    text = ma.fields.String(attribute="first.text")
    reasoning = ma.fields.String(attribute="first.reasoning", allow_none=True, metadata=_REASONING)
    model = ma.fields.String(metadata=_MODEL)
    finish_reason = ma.fields.String(attribute="first.finish_reason", metadata=_REASON)
    prompt_tokens = ma.fields.Integer()
    completion_tokens = ma.fields.Integer(attribute="tokens.completion")
    label = ma.fields.String(metadata={"description": "of a model with a label head: the likeliest"})
    scores = ma.fields.Dict(
        keys=ma.fields.String(), values=ma.fields.Float(), metadata={"description": "each label's share of 1"}
    )


class PredictAnswerSchema(PredictionSchema):
    """To ``text``; or ``predictions`` alone."""

    predictions = ma.fields.List(
        ma.fields.Nested(PredictionSchema),
        metadata={"description": "to `texts`, in their order, and nothing else"},
    )


class SaidSchema(ma.Schema):
    role = ma.fields.Constant("assistant")
    content = ma.fields.String(attribute="text")
    reasoning = ma.fields.String(allow_none=True, metadata=_REASONING)


class LogprobSchema(ma.Schema):
    token = ma.fields.String()
    logprob = ma.fields.Float()
    top = ma.fields.Dict(keys=ma.fields.String(), values=ma.fields.Float())


class UsageSchema(ma.Schema):
    prompt_tokens = ma.fields.Integer(attribute="prompt")
    completion_tokens = ma.fields.Integer(attribute="completion")


class Whole(ma.fields.Nested):
    """Made of the whole object, not of an attribute."""

    def get_value(self, obj: Any, *_args: Any, **_kwargs: Any) -> Any:
        return obj


class AlternativeSchema(ma.Schema):
    message = Whole(SaidSchema)
    finish_reason = ma.fields.String(metadata=_REASON)
    logprobs = ma.fields.List(ma.fields.Nested(LogprobSchema), allow_none=True)


class ChatAnswerSchema(ma.Schema):
    message = ma.fields.Nested(SaidSchema, attribute="first")
    finish_reason = ma.fields.String(attribute="first.finish_reason", metadata=_REASON)
    logprobs = ma.fields.List(ma.fields.Nested(LogprobSchema), attribute="first.logprobs", allow_none=True)
    model = ma.fields.String(metadata=_MODEL)
    usage = ma.fields.Nested(UsageSchema, attribute="tokens")
    alternatives = ma.fields.List(
        ma.fields.Nested(AlternativeSchema),
        attribute="others",
        metadata={"description": "the other answers, where `n` is above 1"},
    )


class ChatFrames:
    """An answer as server-sent events. ``is_late``: whether the stream has to end before its answer does."""

    def __init__(self, answer: AnswerStream, is_late: Callable[[], bool]) -> None:
        self._answer = answer
        self._is_late = is_late

    def __iter__(self) -> Iterator[bytes]:
        reason = None
        try:
            for piece in self._answer:
                reason = piece.finish_reason or reason
                if piece.tokens:
                    usage = UsageSchema().dump(piece.tokens)
                    yield frame(None, {"finish_reason": reason, "model": self._answer.model, "usage": usage})
                elif said := _said(piece):
                    yield frame(None, said)
                if self._is_late() and not piece.tokens:
                    yield frame("error", {"code": "stopping", "message": "the service stops; ask again shortly"})
                    return
        except AppError as error:
            yield frame("error", {"code": error.code, "message": error.message})

    def close(self) -> None:
        self._answer.close()


def _said(piece: AnswerPiece) -> dict[str, Any]:
    parts = {"reasoning": piece.reasoning, "content": piece.text, "logprobs": _logprobs(piece.logprobs)}
    return {name: part for name, part in parts.items() if part}


def _logprobs(logprobs: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
    return [{"token": one.token, "logprob": one.logprob, "top": dict(one.top)} for one in logprobs]

"""What /api/v1/predict and /api/v1/chat are asked."""

from collections.abc import Mapping, Sequence
from typing import Any

import marshmallow as ma

from app.core.entities.datasets import Message
from app.core.entities.inference import (
    LONGEST_STOP,
    MOST_LOGPROBS,
    MOST_STOPS,
    OPTION_LIMITS,
    AnswerOptions,
)

MOST_TEXTS = 64
MOST_MESSAGES = 512
MOST_CHARACTERS = 500_000  # of a conversation: some 128,000 tokens


class Number(ma.fields.Float):
    """A number as JSON writes it: marshmallow's own takes "0.5" as well."""

    def _validated(self, value: Any) -> float:
        if isinstance(value, str):
            raise self.make_error("invalid", input=value)
        return super()._validated(value)


class Yes(ma.fields.Boolean):
    """A boolean as JSON writes it."""

    truthy = {True}  # noqa: RUF012  (marshmallow declares them so)
    falsy = {False}  # noqa: RUF012

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


def _number(name: str, about: str) -> Number:
    default = getattr(AnswerOptions(), name)
    limits = ma.validate.Range(*OPTION_LIMITS[name])
    return Number(
        load_default=default, allow_none=default is None, validate=limits, metadata={"description": about}
    )


def _integer(name: str, about: str) -> ma.fields.Integer:
    default = getattr(AnswerOptions(), name)
    least, most = map(int, OPTION_LIMITS[name])
    return ma.fields.Integer(
        strict=True,
        load_default=default,
        allow_none=default is None,
        validate=ma.validate.Range(least, most),
        metadata={"description": about},
    )


class OptionsSchema(ma.Schema):
    """How an answer is drawn and where it ends."""

    class Meta:
        unknown = ma.RAISE

    model = ma.fields.String(
        load_default=None,
        allow_none=True,
        validate=ma.validate.Length(1, 200),
        metadata={
            "description": "`name` (its newest version) or `name:3`; without it the resident base model answers"
        },
    )
    temperature = _number("temperature", "0 always takes the likeliest token")
    top_p = _number("top_p", "draw from the likeliest tokens that hold this share of the probability")
    top_k = _integer("top_k", "draw from so many of the likeliest tokens; 0: from all")
    min_p = _number("min_p", "draw from tokens at least this likely, beside the likeliest")
    repetition_penalty = _number("repetition_penalty", "above 1: what stands in prompt or answer, less")
    presence_penalty = _number("presence_penalty", "above 0: what the answer has said already, less")
    frequency_penalty = _number("frequency_penalty", "the same for each time that it has said it")
    seed = _integer("seed", "the same answer again")
    stop = ma.fields.List(
        ma.fields.String(validate=ma.validate.Length(1, LONGEST_STOP)),
        load_default=list,
        validate=ma.validate.Length(max=MOST_STOPS),
        metadata={"description": "the answer ends before any of these"},
    )
    ignore_eos = Yes(
        load_default=False, metadata={"description": "go on to the last token that may be, to measure"}
    )
    json_schema = ma.fields.Dict(
        keys=ma.fields.String(),
        load_default=None,
        allow_none=True,
        metadata={"description": "a JSON schema that the answer, as JSON, keeps to"},
    )
    deadline_seconds = _number("deadline_seconds", "for the whole of it; then 503 `engine_timeout`")


_OPTIONS = OptionsSchema().fields.keys() - {"model"}


def options_of(body: Mapping[str, Any], **others: Any) -> AnswerOptions:
    return AnswerOptions(**{name: body[name] for name in _OPTIONS}, **others)


def _text() -> ma.fields.String:
    sound = [ma.validate.Length(1, 32_000), ma.validate.Regexp(r"(?s).*\S", error="Must not be blank.")]
    return ma.fields.String(validate=sound, metadata={"description": "one user message"})


class PredictSchema(OptionsSchema):
    text = _text()
    texts = ma.fields.List(
        _text(),
        validate=ma.validate.Length(1, MOST_TEXTS),
        metadata={"description": "or several, each for itself, answered in their order"},
    )
    max_length = ma.fields.Integer(
        strict=True,
        load_default=128,
        validate=ma.validate.Range(1, 2048),
        metadata={"description": "new tokens at most"},
    )

    @ma.validates_schema(pass_original=True, skip_on_field_errors=False)
    def _one_of_them(self, data: Mapping[str, Any], sent: Any, **_kwargs: Any) -> None:
        if isinstance(sent, dict) and ("text" in sent) == ("texts" in sent):
            raise ma.ValidationError("Give text or texts, one of the two.", "text")


class MessageSchema(ma.Schema):
    class Meta:
        unknown = ma.RAISE

    role = ma.fields.String(required=True, validate=ma.validate.OneOf(["system", "user", "assistant"]))
    content = ma.fields.String(required=True)


def _not_too_long(messages: Sequence[Message]) -> None:
    if sum(len(message["content"]) for message in messages) > MOST_CHARACTERS:
        raise ma.ValidationError(f"More than {MOST_CHARACTERS:,} characters in all.")


class ChatSchema(OptionsSchema):
    messages = ma.fields.List(
        ma.fields.Nested(MessageSchema),
        required=True,
        validate=[ma.validate.Length(1, MOST_MESSAGES), _not_too_long],
        metadata={
            "description": "so far; the answer is the assistant's next. Roles as the model's template allows"
        },
    )
    max_tokens = _integer("max_tokens", "new tokens at most, reasoning among them")
    n = ma.fields.Integer(
        strict=True,
        load_default=1,
        validate=ma.validate.Range(1, 8),
        metadata={"description": "answers to the one conversation; not with `stream`"},
    )
    logprobs = Yes(load_default=False, metadata={"description": "of each token of the answer"})
    top_logprobs = ma.fields.Integer(
        strict=True,
        load_default=0,
        validate=ma.validate.Range(0, MOST_LOGPROBS),
        metadata={"description": "with `logprobs`: of so many of the likeliest in its place too"},
    )
    stream = Yes(load_default=False, metadata={"description": "as server-sent events, while it is made"})
    conversation = ma.fields.String(
        load_default=None,
        allow_none=True,
        validate=ma.validate.Length(1, 128),
        metadata={"description": "your own id for it: the same version goes on with it, where a name has several"},
    )

    @ma.validates_schema(skip_on_field_errors=False)
    def _together(self, data: Mapping[str, Any], **_kwargs: Any) -> None:
        faults = {}
        if data.get("stream") and data.get("n", 1) > 1:
            faults["n"] = ["Must be 1 with stream."]
        if data.get("top_logprobs") and not data.get("logprobs"):
            faults["top_logprobs"] = ["Only with logprobs: true."]
        if faults:
            raise ma.ValidationError(faults)

"""What /api/v1/predict and /api/v1/chat are asked."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import marshmallow as ma

from app.api.schemas import Body, Number, Yes, integer, text
from app.core.entities.datasets import Message
from app.core.entities.inference import (
    LONGEST_STOP,
    MOST_LOGPROBS,
    MOST_STOPS,
    NUMERIC_OPTIONS,
    AnswerOptions,
)

MOST_TEXTS = 64
MOST_ANSWERS = 8
MOST_MESSAGES = 512
MOST_CHARACTERS = 500_000  # of a conversation: some 128,000 tokens


def option(name: str, **changes: Any) -> ma.fields.Number[Any]:
    """Make the field of an option that is a number, or of one that differs from it by ``default`` or ``about``."""
    one = replace(NUMERIC_OPTIONS[name], **changes)
    if one.whole:
        return integer(int(one.least), int(one.most), one.about, one.default)
    return Number(
        load_default=one.default,
        allow_none=one.default is None,
        validate=ma.validate.Range(one.least, one.most),
        metadata={"description": one.about},
    )


def top_logprobs() -> ma.fields.Integer:
    return integer(0, MOST_LOGPROBS, "with `logprobs`: of so many of the likeliest in its place too", 0)


class OptionsSchema(Body):
    """How an answer is drawn and where it ends."""

    model = text(
        200,
        "`name` (its newest version) or `name:3`; without it the resident base model answers",
        load_default=None,
        allow_none=True,
    )
    temperature = option("temperature")
    top_p = option("top_p")
    top_k = option("top_k")
    min_p = option("min_p")
    repetition_penalty = option("repetition_penalty")
    presence_penalty = option("presence_penalty")
    frequency_penalty = option("frequency_penalty")
    seed = option("seed")
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
    deadline_seconds = option("deadline_seconds")


def options_of(body: Mapping[str, Any], **others: Any) -> AnswerOptions:
    """Take the options out of a body that was read; ``others`` are those that it has under other names."""
    named = {one.name: body[one.name] for one in fields(AnswerOptions) if one.name in body}
    return AnswerOptions(**{**named, **others})


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
    max_length = integer(1, 2048, "new tokens at most", 128)

    @ma.validates_schema(pass_original=True, skip_on_field_errors=False)
    def _one_of_them(self, data: Mapping[str, Any], sent: Any, **_kwargs: Any) -> None:
        if isinstance(sent, dict) and ("text" in sent) == ("texts" in sent):
            raise ma.ValidationError("Give text or texts, one of the two.", "text")


class MessageSchema(Body):
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
    max_tokens = option("max_tokens")
    n = integer(1, MOST_ANSWERS, "answers to the one conversation; not with `stream`", 1)
    logprobs = Yes(load_default=False, metadata={"description": "of each token of the answer"})
    top_logprobs = top_logprobs()
    stream = Yes(load_default=False, metadata={"description": "as server-sent events, while it is made"})
    conversation = text(
        128,
        "your own id for it: the same version goes on with it, where a name has several",
        load_default=None,
        allow_none=True,
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

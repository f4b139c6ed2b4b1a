"""What /v1/completions is asked, and what it answers."""

from collections.abc import Mapping
from typing import Any

import marshmallow as ma

from app.api.infer.schemas import MOST_TEXTS
from app.api.openai.chat_schemas import AnswerSchema
from app.api.openai.options import OneOrMore, OpenAIOptionsSchema, count, not_here
from app.core.entities.inference import MOST_LOGPROBS, OPTION_LIMITS

LONGEST_PROMPT = 500_000  # characters
MAX_TOKENS = 16  # OpenAI's


class CompletionBodySchema(OpenAIOptionsSchema):
    prompt = OneOrMore(
        ma.fields.String(validate=ma.validate.Length(1, LONGEST_PROMPT)),
        required=True,
        validate=ma.validate.Length(1, MOST_TEXTS),
        metadata={"description": "a text to go on with, or up to 64, each for itself"},
    )
    max_tokens = count(OPTION_LIMITS["max_tokens"], "new tokens at most", MAX_TOKENS)
    logprobs = count((0, MOST_LOGPROBS), "of each token, and of so many of the likeliest in its place")
    echo = not_here("the prompt is not said again here: leave it out")
    suffix = not_here("no text is filled in before a suffix here: leave it out")
    best_of = ma.fields.Integer(
        strict=True,
        validate=ma.validate.Equal(1),
        metadata={"description": "1: nothing is chosen here, ask for `n`"},
    )

    @ma.validates_schema(skip_on_field_errors=False)
    def _one_streams(self, data: Mapping[str, Any], **_kwargs: Any) -> None:
        if data.get("stream") and len(data.get("prompt", ())) > 1:
            raise ma.ValidationError("One text only with stream.", "prompt")


class CompletionLogprobsSchema(ma.Schema):
    tokens = ma.fields.List(ma.fields.String())
    token_logprobs = ma.fields.List(ma.fields.Float())
    top_logprobs = ma.fields.List(ma.fields.Dict(keys=ma.fields.String(), values=ma.fields.Float()))
    text_offset = ma.fields.List(ma.fields.Integer())


class CompletionChoiceSchema(ma.Schema):
    index = ma.fields.Integer(
        metadata={"description": "of `n` answers to each prompt, those to the first come first"}
    )
    text = ma.fields.String()
    finish_reason = ma.fields.String(metadata={"enum": ["stop", "length"]})
    logprobs = ma.fields.Nested(CompletionLogprobsSchema, allow_none=True)


class CompletionSchema(AnswerSchema):
    choices = ma.fields.List(ma.fields.Nested(CompletionChoiceSchema))

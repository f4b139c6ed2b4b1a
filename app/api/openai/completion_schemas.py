"""What /v1/completions is asked, and what it answers."""

from collections.abc import Mapping
from typing import Any

import marshmallow as ma

from app.api.infer.schemas import MOST_TEXTS, option
from app.api.openai.chat_schemas import AnswerSchema
from app.api.openai.options import OpenAIOptionsSchema, not_here
from app.api.schemas import integer
from app.core.entities.inference import MOST_LOGPROBS

LONGEST_PROMPT = 500_000  # characters
MAX_TOKENS = 16  # OpenAI's
MOST_IDS = 131_072
LARGEST_ID = 2**31 - 1  # its engine knows how many there are
_IDS = {"type": "array", "items": {"type": "integer"}}


class PromptField(ma.fields.Field[list[Any]]):
    """A text or a list of token ids, or a list of such: always a list."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_kwargs: Any) -> list[Any]:
        alone = isinstance(value, str) or (isinstance(value, list) and value and all(map(_is_id, value)))
        prompts = [value] if alone else value
        if not isinstance(prompts, list):
            raise ma.ValidationError("Must be a text, a list of token ids, or a list of such.")
        if not 1 <= len(prompts) <= MOST_TEXTS:
            raise ma.ValidationError(f"Must be 1 to {MOST_TEXTS} prompts.")
        faults = {place: [fault] for place, prompt in enumerate(prompts) if (fault := _prompt_fault(prompt))}
        if faults:
            raise ma.ValidationError(faults[0] if alone else faults)
        return prompts


def _is_id(value: Any) -> bool:
    return type(value) is int


def _prompt_fault(prompt: Any) -> str | None:
    if isinstance(prompt, str):
        return None if 1 <= len(prompt) <= LONGEST_PROMPT else f"Must have 1 to {LONGEST_PROMPT} characters."
    if not isinstance(prompt, list) or not all(map(_is_id, prompt)):
        return "Must be a text, or a list of token ids."
    if not 1 <= len(prompt) <= MOST_IDS:
        return f"Must have 1 to {MOST_IDS} token ids."
    return None if all(0 <= one <= LARGEST_ID for one in prompt) else f"Token ids are from 0 to {LARGEST_ID}."


class CompletionBodySchema(OpenAIOptionsSchema):
    prompt = PromptField(
        required=True,
        metadata={
            "description": "a text to go on with or the model's token ids, or up to 64 such, each for itself",
            "oneOf": [
                {"type": "string"},
                {"type": "array", "items": {"oneOf": [{"type": "string"}, _IDS]}},
                _IDS,
            ],
        },
    )
    max_tokens = option("max_tokens", default=MAX_TOKENS, about="new tokens at most")
    logprobs = integer(0, MOST_LOGPROBS, "of each token, and of so many of the likeliest in its place")
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

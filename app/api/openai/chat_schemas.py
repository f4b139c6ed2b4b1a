"""What /v1/chat/completions is asked, and what it answers."""

from collections.abc import Mapping, Sequence
from typing import Any

import marshmallow as ma

from app.api.infer.schemas import MOST_CHARACTERS, MOST_MESSAGES, Yes
from app.api.openai.options import (
    NullIsNothing,
    OpenAIOptionsSchema,
    count,
    not_here,
    text_of,
    without_effect,
)
from app.core.entities.inference import MOST_LOGPROBS, OPTION_LIMITS

NO_TOOLS = "tools are not passed to models here: leave it out"
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
FORMATS = ("text", "json_object", "json_schema")


class ContentField(ma.fields.Field[str]):
    """A text, or parts that are texts."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_kwargs: Any) -> str:
        if isinstance(value, str):
            return value
        if not isinstance(value, list):
            raise ma.ValidationError("Must be a text, or a list of parts.")
        return text_of(value)


class ChatMessageSchema(NullIsNothing):
    """An answer of this service, sent again as it is, is one."""

    class Meta:
        unknown = ma.RAISE

    role = ma.fields.String(
        required=True,
        validate=ma.validate.OneOf(ROLES),
        metadata={"description": "`developer` is `system`. Roles as the model's template allows"},
    )
    content = ContentField(required=True, metadata={"description": "a text, or parts of type `text`"})
    name = without_effect()
    refusal = without_effect()
    reasoning_content = without_effect(": the template decides what becomes of earlier thoughts")
    tool_calls = not_here(NO_TOOLS)

    @ma.post_load
    def _plain(self, data: Mapping[str, Any], **_kwargs: Any) -> dict[str, str]:
        return {"role": ROLES[data["role"]], "content": data["content"]}


class JsonSchemaSchema(ma.Schema):
    class Meta:
        unknown = ma.RAISE

    name = ma.fields.String(required=True, validate=ma.validate.Length(1, 64))
    description = ma.fields.String()
    schema = ma.fields.Dict(keys=ma.fields.String(), load_default=dict)
    strict = Yes(allow_none=True, metadata={"description": "it always is"})


class ResponseFormatSchema(ma.Schema):
    class Meta:
        unknown = ma.RAISE

    type = ma.fields.String(required=True, validate=ma.validate.OneOf(FORMATS))
    json_schema = ma.fields.Nested(JsonSchemaSchema)

    @ma.validates_schema
    def _has_its_schema(self, data: Mapping[str, Any], **_kwargs: Any) -> None:
        if data["type"] == "json_schema" and "json_schema" not in data:
            raise ma.ValidationError("Missing data for required field.", "json_schema")

    @ma.post_load
    def _as_schema(self, data: Mapping[str, Any], **_kwargs: Any) -> Mapping[str, Any] | None:
        """That the answer has to keep to; None: none."""
        if data["type"] == "json_schema":
            schema: Mapping[str, Any] = data["json_schema"]["schema"]
            return schema
        return {"type": "object"} if data["type"] == "json_object" else None


def _not_too_long(messages: Sequence[Mapping[str, str]]) -> None:
    if sum(len(message["content"]) for message in messages) > MOST_CHARACTERS:
        raise ma.ValidationError(f"More than {MOST_CHARACTERS:,} characters in all.")


class ChatCompletionBodySchema(OpenAIOptionsSchema):
    messages = ma.fields.List(
        ma.fields.Nested(ChatMessageSchema),
        required=True,
        validate=[ma.validate.Length(1, MOST_MESSAGES), _not_too_long],
    )
    max_completion_tokens = count(OPTION_LIMITS["max_tokens"], "the newer name of `max_tokens`, and the stronger")
    logprobs = Yes(load_default=False, metadata={"description": "of each token of the answer"})
    top_logprobs = count(
        (0, MOST_LOGPROBS), "with `logprobs`: of so many of the likeliest in its place too", default=0
    )
    response_format = ma.fields.Nested(
        ResponseFormatSchema,
        load_default=None,
        metadata={"description": "`json_object`, or `json_schema`: the answer keeps to it"},
    )
    conversation = ma.fields.String(
        load_default=None,
        validate=ma.validate.Length(1, 128),
        metadata={"description": "your own id for it: the same version goes on with it, where a name has several"},
    )
    metadata = without_effect()
    store = without_effect(": nothing is stored")
    service_tier = without_effect()
    safety_identifier = without_effect()
    prompt_cache_key = without_effect(": what was read before is found without it")
    tools = not_here(NO_TOOLS)
    functions = not_here(NO_TOOLS)
    parallel_tool_calls = without_effect()
    modalities = ma.fields.List(ma.fields.String(validate=ma.validate.Equal("text")))

    @ma.validates_schema(skip_on_field_errors=False)
    def _together(self, data: Mapping[str, Any], **_kwargs: Any) -> None:
        if data.get("top_logprobs") and not data.get("logprobs"):
            raise ma.ValidationError("Only with logprobs: true.", "top_logprobs")


class TopLogprobSchema(ma.Schema):
    token = ma.fields.String()
    logprob = ma.fields.Float()
    bytes = ma.fields.List(ma.fields.Integer())


class TokenLogprobSchema(TopLogprobSchema):
    top_logprobs = ma.fields.List(ma.fields.Nested(TopLogprobSchema))


class ChatLogprobsSchema(ma.Schema):
    content = ma.fields.List(ma.fields.Nested(TokenLogprobSchema))
    refusal = ma.fields.Raw(allow_none=True)


class ChatSaidSchema(ma.Schema):
    role = ma.fields.String(metadata={"enum": ["assistant"]})
    content = ma.fields.String()
    refusal = ma.fields.String(allow_none=True, metadata={"description": "null"})
    reasoning_content = ma.fields.String(metadata={"description": "what the model thought first, where it does"})


class ChatChoiceSchema(ma.Schema):
    index = ma.fields.Integer()
    message = ma.fields.Nested(ChatSaidSchema)
    finish_reason = ma.fields.String(metadata={"enum": ["stop", "length"]})
    logprobs = ma.fields.Nested(ChatLogprobsSchema, allow_none=True)


class CompletionUsageSchema(ma.Schema):
    prompt_tokens = ma.fields.Integer()
    completion_tokens = ma.fields.Integer()
    total_tokens = ma.fields.Integer()


class AnswerSchema(ma.Schema):
    id = ma.fields.String()
    object = ma.fields.String()
    created = ma.fields.Integer(metadata={"description": "seconds since 1970"})
    model = ma.fields.String(metadata={"description": "what answered: `name:3`, or a base model"})
    usage = ma.fields.Nested(CompletionUsageSchema)


class ChatCompletionSchema(AnswerSchema):
    choices = ma.fields.List(ma.fields.Nested(ChatChoiceSchema))

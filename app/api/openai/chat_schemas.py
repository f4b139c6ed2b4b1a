"""What /v1/chat/completions is asked, and what it answers."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import marshmallow as ma

from app.api.infer.schemas import MOST_CHARACTERS, MOST_MESSAGES, option, top_logprobs
from app.api.openai.options import (
    NullIsNothing,
    OpenAIOptionsSchema,
    not_here,
    text_of,
    without_effect,
    without_nulls,
)
from app.api.openai.tool_schemas import (
    CHOICES,
    MOST_TOOLS,
    ToolCallSchema,
    ToolChoiceField,
    ToolSchema,
    check_results,
    check_tools,
)
from app.api.schemas import Body, Yes, text

OLDER = "the older form of tools and tool_choice: send those instead"
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
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

    role = ma.fields.String(
        required=True,
        validate=ma.validate.OneOf(ROLES),
        metadata={"description": "`developer` is `system`. Roles as the model's template allows"},
    )
    content = ContentField(
        metadata={"description": "a text, or parts of type `text`. Only a message with `tool_calls` may lack it"}
    )
    name = without_effect()
    refusal = without_effect()
    reasoning_content = without_effect(": the template decides what becomes of earlier thoughts")
    tool_calls = ma.fields.List(
        ma.fields.Nested(ToolCallSchema),
        validate=ma.validate.Length(max=MOST_TOOLS),
        metadata={"description": "of the assistant: what it called, as it came"},
    )
    tool_call_id = text(128, "of a `tool`: which call this is the result of")

    @ma.validates_schema(pass_original=True, skip_on_field_errors=False)
    def _fits_its_role(self, data: Mapping[str, Any], sent: Any, **_kwargs: Any) -> None:
        """Of what was sent: a field with a fault of its own is not missing."""
        if not isinstance(sent, dict):
            return
        role, sent = data.get("role"), without_nulls(sent)
        faults = {}
        if not (sent.get("content") is not None or sent.get("tool_calls")):
            faults["content"] = ["Missing data for required field."]
        if role == "tool" and "tool_call_id" not in sent:
            faults["tool_call_id"] = ["Missing data for required field."]
        if role is not None and role != "tool" and "tool_call_id" in sent:
            faults["tool_call_id"] = ["Only of a tool."]
        if role is not None and role != "assistant" and sent.get("tool_calls"):
            faults["tool_calls"] = ["Only of the assistant."]
        if faults:
            raise ma.ValidationError(faults)

    @ma.post_load
    def _plain(self, data: Mapping[str, Any], **_kwargs: Any) -> dict[str, Any]:
        message = {"role": ROLES[data["role"]], "content": data.get("content", "")}
        return message | {key: data[key] for key in ("tool_calls", "tool_call_id") if data.get(key)}


class JsonSchemaSchema(Body):
    name = ma.fields.String(required=True, validate=ma.validate.Length(1, 64))
    description = ma.fields.String()
    schema = ma.fields.Dict(keys=ma.fields.String(), load_default=dict)
    strict = Yes(allow_none=True, metadata={"description": "it always is"})


class ResponseFormatSchema(Body):
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


def _not_too_long(messages: Sequence[Mapping[str, Any]]) -> None:
    called = sum(len(json.dumps(message["tool_calls"])) for message in messages if "tool_calls" in message)
    if called + sum(len(message["content"]) for message in messages) > MOST_CHARACTERS:
        raise ma.ValidationError(f"More than {MOST_CHARACTERS:,} characters in all.")


class ChatCompletionBodySchema(OpenAIOptionsSchema):
    messages = ma.fields.List(
        ma.fields.Nested(ChatMessageSchema),
        required=True,
        validate=[ma.validate.Length(1, MOST_MESSAGES), _not_too_long, check_results],
    )
    max_completion_tokens = option(
        "max_tokens", default=ma.missing, about="the newer name of `max_tokens`, and the stronger"
    )
    logprobs = Yes(load_default=False, metadata={"description": "of each token of the answer"})
    top_logprobs = top_logprobs()
    response_format = ma.fields.Nested(
        ResponseFormatSchema,
        load_default=None,
        metadata={"description": "`json_object`, or `json_schema`: the answer keeps to it"},
    )
    conversation = text(
        128, "your own id for it: the same version goes on with it, where a name has several", load_default=None
    )
    metadata = without_effect()
    store = without_effect(": nothing is stored")
    service_tier = without_effect()
    safety_identifier = without_effect()
    prompt_cache_key = without_effect(": what was read before is found without it")
    tools = ma.fields.List(
        ma.fields.Nested(ToolSchema),
        load_default=list,
        validate=[ma.validate.Length(max=MOST_TOOLS), check_tools],
        metadata={"description": "functions that the model may call, where its chat template knows tools"},
    )
    tool_choice = ToolChoiceField(
        load_default="auto",
        metadata={"type": "string", "enum": CHOICES, "description": "`none`: the model is not told of `tools`"},
    )
    functions = not_here(OLDER)
    function_call = not_here(OLDER)
    parallel_tool_calls = without_effect(": a model may call several at once")
    modalities = ma.fields.List(ma.fields.String(validate=ma.validate.Equal("text")))

    @ma.validates_schema(skip_on_field_errors=False)
    def _together(self, data: Mapping[str, Any], **_kwargs: Any) -> None:
        if data.get("top_logprobs") and not data.get("logprobs"):
            raise ma.ValidationError("Only with logprobs: true.", "top_logprobs")
        if data.get("tools") and data.get("tool_choice") == "auto" and data.get("response_format"):
            told = "Not with tools, which an answer that keeps to a schema cannot call: send tool_choice none."
            raise ma.ValidationError(told, "response_format")


class TopLogprobSchema(ma.Schema):
    token = ma.fields.String()
    logprob = ma.fields.Float()
    bytes = ma.fields.List(ma.fields.Integer())


class TokenLogprobSchema(TopLogprobSchema):
    top_logprobs = ma.fields.List(ma.fields.Nested(TopLogprobSchema))


class ChatLogprobsSchema(ma.Schema):
    content = ma.fields.List(ma.fields.Nested(TokenLogprobSchema))
    refusal = ma.fields.Raw(allow_none=True)


class MadeFunctionSchema(ma.Schema):
    name = ma.fields.String()
    arguments = ma.fields.String(metadata={"description": "a JSON object, as a text"})


class MadeCallSchema(ma.Schema):
    id = ma.fields.String()
    type = ma.fields.String(metadata={"enum": ["function"]})
    function = ma.fields.Nested(MadeFunctionSchema)


class ChatSaidSchema(ma.Schema):
    role = ma.fields.String(metadata={"enum": ["assistant"]})
    content = ma.fields.String(
        allow_none=True, metadata={"description": "null where there is nothing but tool calls"}
    )
    refusal = ma.fields.String(allow_none=True, metadata={"description": "null"})
    reasoning_content = ma.fields.String(metadata={"description": "what the model thought first, where it does"})
    tool_calls = ma.fields.List(
        ma.fields.Nested(MadeCallSchema), metadata={"description": "of the `tools` that were sent"}
    )


class ChatChoiceSchema(ma.Schema):
    index = ma.fields.Integer()
    message = ma.fields.Nested(ChatSaidSchema)
    finish_reason = ma.fields.String(metadata={"enum": ["stop", "length", "tool_calls"]})
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

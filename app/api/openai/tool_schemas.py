"""Tools, and calls of them, as OpenAI's wire has them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import marshmallow as ma

from app.api.infer.schemas import MOST_CHARACTERS
from app.api.openai.options import NullIsNothing, without_effect
from app.gateway.json_bodies import Malformed, parse_json

MOST_TOOLS = 128  # OpenAI's
CHOICES = ("auto", "none")

_function = ma.validate.Equal("function", error="Only tools of type function are passed to models here.")


def _type() -> ma.fields.String:
    return ma.fields.String(required=True, validate=_function, metadata={"enum": ["function"]})


class FunctionSchema(NullIsNothing):
    name = ma.fields.String(
        required=True,
        validate=ma.validate.Regexp(r"[A-Za-z0-9_-]{1,64}\Z", error="Must be 1 to 64 of A-Z a-z 0-9 _ -"),
    )
    description = ma.fields.String(metadata={"description": "what it does, for the model to read"})
    parameters = ma.fields.Dict(keys=ma.fields.String(), metadata={"description": "a JSON schema"})
    strict = without_effect(": arguments are JSON, and may not keep to the schema")

    @ma.post_load
    def _as_the_model_reads_it(self, data: Mapping[str, Any], **_kwargs: Any) -> dict[str, Any]:
        return {key: value for key, value in data.items() if key != "strict"}


class ToolSchema(NullIsNothing):
    type = _type()
    function = ma.fields.Nested(FunctionSchema, required=True)


class ArgumentsField(ma.fields.String):
    """A text that is a JSON object, read."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs)
        try:
            arguments = parse_json(text.encode())
        except Malformed:
            arguments = None
        if not isinstance(arguments, dict):
            raise ma.ValidationError("Must be a JSON object, as a text.")
        return arguments


class CalledFunctionSchema(NullIsNothing):
    name = ma.fields.String(required=True, validate=ma.validate.Length(1, 64))
    arguments = ArgumentsField(required=True, metadata={"description": "a JSON object, as a text"})


class ToolCallSchema(NullIsNothing):
    id = ma.fields.String(required=True, validate=ma.validate.Length(1, 128))
    type = _type()
    function = ma.fields.Nested(CalledFunctionSchema, required=True)


class ToolChoiceField(ma.fields.Field[str]):
    def _deserialize(self, value: Any, attr: str | None, data: Any, **_kwargs: Any) -> str:
        if value not in CHOICES:
            raise ma.ValidationError("Only auto and none are here: no model can be made to call a tool.")
        return str(value)


def check_tools(tools: Sequence[Mapping[str, Any]]) -> None:
    names = [tool["function"]["name"] for tool in tools]
    twice = {place: ["The name is given twice."] for place, name in enumerate(names) if name in names[:place]}
    if twice:
        raise ma.ValidationError(twice)
    if len(json.dumps(tools)) > MOST_CHARACTERS:
        raise ma.ValidationError(f"More than {MOST_CHARACTERS:,} characters in all.")


def check_results(messages: Sequence[Mapping[str, Any]]) -> None:
    """Each result is of a call that was made before."""
    made: set[str] = set()
    faults: dict[int, Any] = {}
    for place, message in enumerate(messages):
        made.update(call["id"] for call in message.get("tool_calls", ()))
        if message["role"] == "tool" and message["tool_call_id"] not in made:
            faults[place] = {"tool_call_id": ["No message before it has a tool call of this id."]}
    if faults:
        raise ma.ValidationError(faults)

"""What OpenAI's clients may ask of an answer, over the options that it has here anyway."""

from collections.abc import Mapping, Sequence
from typing import Any

import marshmallow as ma

from app.api.infer.schemas import MOST_ANSWERS, OptionsSchema, option
from app.api.schemas import Body, Yes, integer, text
from app.core.entities.inference import LONGEST_STOP, MOST_STOPS

TEMPERATURE = 1.0  # OpenAI's; /api/v1 has 0


class OneOrMore(ma.fields.List[Any]):
    """A list, or its only item."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[Any]:
        items: list[Any] = super()._deserialize([value] if isinstance(value, str) else value, attr, data, **kwargs)
        return items


def without_nulls(data: Any) -> Any:
    return {key: value for key, value in data.items() if value is not None} if isinstance(data, dict) else data


class NullIsNothing(Body):
    """A field that is null is as good as left out, as OpenAI has it."""

    def on_bind_field(self, field_name: str, field_obj: ma.fields.Field[Any]) -> None:
        if not field_obj.required:
            field_obj.allow_none = True  # for the document: nulls are gone before a field is read

    @ma.pre_load
    def _nothing_for_null(self, data: Any, **_kwargs: Any) -> Any:
        return without_nulls(data)


class StreamOptionsSchema(Body):
    include_usage = Yes(load_default=False, metadata={"description": "a last chunk has the counts"})
    include_obfuscation = Yes(load_default=False, metadata={"description": "taken, and without effect here"})


def without_effect(about: str = "") -> ma.fields.Raw:
    return ma.fields.Raw(metadata={"description": f"taken, and without effect here{about}"})


def not_here(why: str) -> ma.fields.Raw:
    """Refused with a reason, but for what asks for nothing: ``[]``, ``{}``, false."""

    def check(value: Any) -> None:
        if value:
            raise ma.ValidationError(why)

    return ma.fields.Raw(validate=check, metadata={"description": why})


class OpenAIOptionsSchema(NullIsNothing, OptionsSchema):
    """Options of this service stand beside OpenAI's (extra_body)."""

    class Meta:
        unknown = ma.RAISE
        exclude = ("json_schema",)

    model = text(200, "of `GET /v1/models`; `name`, `name:3` and `name@alias` as well", required=True)
    temperature = option("temperature", default=TEMPERATURE)
    max_tokens = option("max_tokens")
    n = integer(1, MOST_ANSWERS, "answers to each prompt", 1)
    stop = OneOrMore(
        ma.fields.String(validate=ma.validate.Length(1, LONGEST_STOP)),
        load_default=list,
        validate=ma.validate.Length(max=MOST_STOPS),
        metadata={
            "description": "the answer ends before any of these; a text, or up to 4",
            "type": ["string", "array"],
            "minLength": 1,
            "maxLength": LONGEST_STOP,
        },
    )
    stream = Yes(load_default=False, metadata={"description": "as server-sent events, while it is made"})
    stream_options = ma.fields.Nested(StreamOptionsSchema, load_default=dict)
    user = without_effect()
    logit_bias = not_here("tokens cannot be biased here: leave it out")


def includes_usage(body: Mapping[str, Any]) -> bool:
    return bool(body["stream_options"].get("include_usage"))


def text_of(parts: Sequence[Any]) -> str:
    """Of a message's parts, joined. ``ValidationError`` for one that is no text."""
    texts = []
    for place, part in enumerate(parts):
        text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
        if not isinstance(text, str):
            raise ma.ValidationError({place: ['Only parts {"type": "text", "text": …} are read here.']})
        texts.append(text)
    return "".join(texts)

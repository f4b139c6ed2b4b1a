"""Bodies of /api/v1/predict."""

from typing import Any

import marshmallow as ma


class Number(ma.fields.Float):
    """A number as JSON writes it: marshmallow's own takes "0.5" as well."""

    def _validated(self, value: Any) -> float:
        if isinstance(value, str):
            raise self.make_error("invalid", input=value)
        return super()._validated(value)


class PredictSchema(ma.Schema):
    class Meta:
        unknown = ma.RAISE

    text = ma.fields.String(
        required=True,
        validate=[ma.validate.Length(1, 32_000), ma.validate.Regexp(r"(?s).*\S", error="Must not be blank.")],
        metadata={"description": "one user message"},
    )
    max_length = ma.fields.Integer(
        strict=True,
        load_default=128,
        validate=ma.validate.Range(1, 2048),
        metadata={"description": "new tokens at most"},
    )
    temperature = Number(
        load_default=0.0,
        validate=ma.validate.Range(0, 2),
        metadata={"description": "0 always takes the likeliest token"},
    )
    model = ma.fields.String(
        load_default=None,
        allow_none=True,
        validate=ma.validate.Length(1, 80),
        metadata={
            "description": "`name` (its newest version) or `name:3`; without it the resident base model answers"
        },
    )


class PredictionSchema(ma.Schema):
    text = ma.fields.String()
    reasoning = ma.fields.String(
        allow_none=True, metadata={"description": "what the model thought first, if its template has that"}
    )
    model = ma.fields.String(metadata={"description": "what answered", "example": "support-assistant:1"})
    finish_reason = ma.fields.String(metadata={"enum": ["stop", "length"]})
    prompt_tokens = ma.fields.Integer()
    completion_tokens = ma.fields.Integer()

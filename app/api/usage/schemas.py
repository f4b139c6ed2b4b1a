"""Query and body of /api/v1/usage."""

from collections.abc import Mapping
from typing import Any

import marshmallow as ma

from app.api.schemas import page_after, page_size, text


class UsageQuerySchema(ma.Schema):
    by = ma.fields.String(
        load_default="model",
        validate=ma.validate.OneOf(["model", "day"]),
        metadata={"description": "what each sum is of"},
    )
    first = ma.fields.Date(
        data_key="from",
        load_default=None,
        metadata={"description": "first day, in UTC; without it, the thirty days up to `to`"},
    )
    last = ma.fields.Date(
        data_key="to", load_default=None, metadata={"description": "last day, included; without it, today"}
    )
    model = text(80, "only this version, or base model", example="support-assistant:1", load_default=None)
    limit = page_size()
    after = page_after()

    @ma.validates_schema
    def _in_order(self, data: Mapping[str, Any], **_kwargs: Any) -> None:
        if data["first"] and data["last"] and data["first"] > data["last"]:
            raise ma.ValidationError("Must not be before from.", "to")


class UsageSumSchema(ma.Schema):
    key = ma.fields.String(
        metadata={"description": "the version or base model, or the day", "example": "support-assistant:1"}
    )
    requests = ma.fields.Integer()
    failed = ma.fields.Integer(metadata={"description": "those without an answer, or without a whole one"})
    prompt_tokens = ma.fields.Integer()
    completion_tokens = ma.fields.Integer()
    mean_seconds = ma.fields.Float()
    mean_first_token_seconds = ma.fields.Float(
        allow_none=True, metadata={"description": "of answers that were streamed"}
    )


class UsageListSchema(ma.Schema):
    data = ma.fields.List(ma.fields.Nested(UsageSumSchema), attribute="sums")
    next = ma.fields.String(allow_none=True, metadata={"description": "`after` of the next page; null: the last"})

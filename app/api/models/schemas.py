"""Bodies of /api/v1/models."""

from collections.abc import Mapping
from typing import Any

import marshmallow as ma

from app.api.schemas import Body, integer

LARGEST_NUMBER = 999_999_999  # that a reference can write
MOST_SPLIT = 16  # versions of an alias
LARGEST_WEIGHT = 1_000_000


class ModelSchema(ma.Schema):
    name = ma.fields.String(metadata={"example": "support-assistant"})
    base_model = ma.fields.String(metadata={"example": "smollm2-135m-instruct"})
    versions = ma.fields.Integer(metadata={"description": "how many there are"})
    latest = ma.fields.Integer(metadata={"description": "the newest one's number"})
    updated_at = ma.fields.AwareDateTime()
    metrics = ma.fields.Dict(metadata={"description": "of the newest version"})


class ModelListSchema(ma.Schema):
    data = ma.fields.List(ma.fields.Nested(ModelSchema))


class ModelVersionSchema(ma.Schema):
    id = ma.fields.String()
    reference = ma.fields.String(metadata={"description": "what predict takes", "example": "support-assistant:1"})
    name = ma.fields.String()
    number = ma.fields.Integer()
    base_model = ma.fields.String()
    job_id = ma.fields.String(allow_none=True)
    dataset_digest = ma.fields.String(metadata={"description": "sha256 of the raw file"})
    template_hash = ma.fields.String(metadata={"description": "sha256 of the chat template"})
    config = ma.fields.Dict()
    metrics = ma.fields.Dict()
    created_by = ma.fields.String(allow_none=True)
    created_at = ma.fields.AwareDateTime()
    pinned = ma.fields.Boolean(metadata={"description": "whether its engine keeps its adapter in memory"})
    servable = ma.fields.Dict(
        keys=ma.fields.String(),
        metadata={"description": "by kind of engine (`ours`, `vllm`, `other`): true, or why it cannot serve it"},
    )


class ModelVersionListSchema(ma.Schema):
    data = ma.fields.List(ma.fields.Nested(ModelVersionSchema))


class AliasBodySchema(Body):
    version = integer(1, LARGEST_NUMBER, "a version's number; or else `weights`")
    weights = ma.fields.Dict(
        keys=ma.fields.String(
            validate=ma.validate.Regexp(r"[1-9][0-9]{0,8}\Z", error="Must be a version's number.")
        ),
        values=ma.fields.Integer(strict=True, validate=ma.validate.Range(1, LARGEST_WEIGHT)),
        validate=ma.validate.Length(1, MOST_SPLIT),
        metadata={"description": "by a version's number, its share of the requests"},
    )

    @ma.validates_schema(skip_on_field_errors=False, pass_original=True)
    def _either(self, data: Mapping[str, Any], sent: Any, **_kwargs: Any) -> None:
        if isinstance(sent, dict) and ("version" in sent) == ("weights" in sent):
            raise ma.ValidationError("Give version, or weights instead: one of the two.", "version")


class ModelAliasSchema(ma.Schema):
    alias = ma.fields.String(metadata={"example": "champion"})
    reference = ma.fields.String(metadata={"example": "support-assistant@champion"})
    weights = ma.fields.Dict(keys=ma.fields.String(), values=ma.fields.Integer())
    set_by = ma.fields.String(allow_none=True)
    set_at = ma.fields.AwareDateTime()


class ModelAliasListSchema(ma.Schema):
    data = ma.fields.List(ma.fields.Nested(ModelAliasSchema))

"""Bodies of /api/v1/models."""

import marshmallow as ma


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


class ModelVersionListSchema(ma.Schema):
    data = ma.fields.List(ma.fields.Nested(ModelVersionSchema))

"""Bodies of /api/v1/engines."""

import marshmallow as ma

from app.api.schemas import Body, Yes


class AdapterBodySchema(Body):
    pinned = Yes(
        load_default=False,
        metadata={"description": "keep it in memory, after a restart of the engine too"},
    )


class AdapterSchema(ma.Schema):
    reference = ma.fields.String(metadata={"example": "support-assistant:1"})
    bytes = ma.fields.Integer(allow_none=True, metadata={"description": "null: the engine does not tell"})
    pinned = ma.fields.Boolean(allow_none=True)


class LoadedAdapterSchema(ma.Schema):
    reference = ma.fields.String(metadata={"description": "the version's", "example": "support-assistant:1"})
    pinned = ma.fields.Boolean()


class EngineSchema(ma.Schema):
    base_model = ma.fields.String()
    resident = ma.fields.Boolean(metadata={"description": "whether it answers now"})
    kind = ma.fields.String(allow_none=True, metadata={"enum": ["ours", "vllm", "other", None]})
    context = ma.fields.Integer(allow_none=True, metadata={"description": "tokens of prompt and answer together"})
    adapters = ma.fields.List(ma.fields.Nested(AdapterSchema), metadata={"description": "the project's"})
    others = ma.fields.Integer(metadata={"description": "adapters of other projects"})
    other_bytes = ma.fields.Integer()


class EngineListSchema(ma.Schema):
    data = ma.fields.List(ma.fields.Nested(EngineSchema))

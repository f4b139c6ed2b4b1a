"""Bodies of /api/v1/monitor."""

import marshmallow as ma


class HealthSchema(ma.Schema):
    status = ma.fields.String(metadata={"example": "ok"})


class ReadinessSchema(ma.Schema):
    ready = ma.fields.Boolean()
    reasons = ma.fields.List(ma.fields.String(), metadata={"description": "why it is not ready"})
    engines = ma.fields.List(
        ma.fields.String(), metadata={"description": "base models that answer now; none is no reason"}
    )

"""Bodies of /api/v1/evaluations."""

import marshmallow as ma

from app.core.entities.datasets import SPLITS
from app.core.entities.jobs import DEFAULT_QUEUE, PRIORITIES


class EvaluationSchema(ma.Schema):
    class Meta:
        unknown = ma.RAISE

    model = ma.fields.String(
        required=True,
        validate=ma.validate.Length(1, 200),
        metadata={"description": "a version (`name`, `name:3`, `name@alias`) or a base model"},
    )
    dataset_id = ma.fields.String(
        required=True,
        validate=ma.validate.Length(1, 100),
        metadata={"description": "`ds-…` (its newest version), `ds-…:3` or `ds-…@tag`"},
    )
    split = ma.fields.String(load_default="test", validate=ma.validate.OneOf(SPLITS))
    priority = ma.fields.Integer(
        strict=True, load_default=0, validate=ma.validate.Range(PRIORITIES[0], PRIORITIES[-1])
    )
    after = ma.fields.List(
        ma.fields.String(validate=ma.validate.Length(1, 64)),
        load_default=list,
        validate=ma.validate.Length(0, 10),
        metadata={"description": "ids of jobs that must succeed before this one runs"},
    )
    queue = ma.fields.String(load_default=DEFAULT_QUEUE, validate=ma.validate.Length(1, 32))

"""Bodies of /api/v1/evaluations."""

import marshmallow as ma

from app.api.jobs.schemas import after_jobs, priority, queue
from app.api.schemas import Body, text
from app.core.entities.datasets import SPLITS


class EvaluationSchema(Body):
    model = text(200, "a version (`name`, `name:3`, `name@alias`) or a base model", required=True)
    dataset_id = text(100, "`ds-…` (its newest version), `ds-…:3` or `ds-…@tag`", required=True)
    split = ma.fields.String(load_default="test", validate=ma.validate.OneOf(SPLITS))
    priority = priority()
    queue = queue()
    after = after_jobs()

"""Bodies and queries of /api/v1/train."""

from collections.abc import Mapping
from typing import Any

import marshmallow as ma

from app.api.jobs.schemas import JobErrorSchema, after_jobs, priority, queue
from app.api.schemas import Body, text
from app.core.entities.jobs import JobState
from app.core.entities.training_config import TrainingConfig
from app.extensions import current_services
from app.gateway.authentication import current_principal
from app.gateway.openapi import Api

_DATA = ("dataset_id", "dataset_path")
NAMED = (*_DATA, "base_model")


class TrainingConfigField(ma.fields.Field):  # type: ignore[type-arg]
    """Keys of TrainingConfig, checked over the service's defaults; what comes out is what the client wrote."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise ma.ValidationError("Not a JSON object.")
        if faults := current_services().training.config_faults(current_principal(), value):
            raise ma.ValidationError(list(faults))
        return value


def document_training_config(api: Api) -> None:
    """TrainingConfig as a component, and TrainingConfigField as a reference to it."""
    schema = TrainingConfig.model_json_schema(ref_template="#/components/schemas/{model}")
    for name, definition in schema.pop("$defs").items():
        api.spec.components.schema(name, definition)
    api.spec.components.schema("TrainingConfig", schema)

    def reference(_converter: Any, field: ma.fields.Field, **_kwargs: Any) -> dict[str, str]:  # type: ignore[type-arg]
        is_config = isinstance(field, TrainingConfigField)
        return {"$ref": "#/components/schemas/TrainingConfig"} if is_config else {}

    api.ma_plugin.converter.add_attribute_function(reference)


class TrainSchema(Body):
    dataset_id = text(100, "`ds-…` (its newest version), `ds-…:3` or `ds-…@tag`", allow_none=True)
    dataset_path = text(1024, "or a file under data/raw", example="data/raw/sample_data.json", allow_none=True)
    base_model = text(64, "a base model's name; without it, the service's default", allow_none=True)
    priority = priority()
    queue = queue()
    after = after_jobs()
    config = TrainingConfigField(
        load_default=dict, metadata={"description": "over the service's train_config.yaml"}
    )

    @ma.validates_schema(skip_on_field_errors=False, pass_original=True)
    def _once(self, data: Mapping[str, Any], sent: Any, **_kwargs: Any) -> None:
        if not isinstance(sent, dict):
            return
        config = data.get("config", {})
        faults = {
            key: ["Given twice, here and under config."]
            for key in NAMED
            if key in config and data.get(key) is not None
        }
        given = [key for key in _DATA if sent.get(key) is not None or key in config]
        if len(given) != 1:
            faults.setdefault("dataset_id", []).append("Give dataset_id, or dataset_path instead: one of the two.")
        if faults:
            raise ma.ValidationError(faults)

    def handle_error(self, error: ma.ValidationError, data: Any, **_kwargs: Any) -> None:
        """A fault in the body does not hide those of what it names: the client mends all of them at once."""
        if not isinstance(data, dict):
            return
        config = data.get("config")
        sound = {key: data[key] for key in NAMED if data.get(key) is not None and key not in error.messages}
        faults = current_services().training.named_faults(
            current_principal(), {**(config if isinstance(config, dict) else {}), **sound}
        )
        error.messages_dict.setdefault("_schema", []).extend(faults)


class EstimateSchema(ma.Schema):
    steps = ma.fields.Integer(attribute="forecast.steps", metadata={"description": "optimizer steps"})
    input_tokens = ma.fields.Integer(attribute="forecast.input_tokens")
    trained_tokens = ma.fields.Integer(attribute="forecast.trained_tokens")
    seconds = ma.fields.Float(
        attribute="forecast.seconds", metadata={"description": "of training, once the model is loaded"}
    )
    peak_memory_bytes = ma.fields.Integer(
        attribute="forecast.peak_memory_bytes", metadata={"description": "of one process, on its device"}
    )
    disk_bytes = ma.fields.Integer(attribute="forecast.disk_bytes")
    device = ma.fields.String(attribute="forecast.device")
    available_bytes = ma.fields.Integer(metadata={"description": "of the device's memory, now"})
    fits = ma.fields.Boolean()
    suggestion = ma.fields.Dict(
        allow_none=True,
        metadata={"description": "keys of the config with which it would fit; null: it fits, or none would"},
    )


class AcceptedSchema(ma.Schema):
    task_id = ma.fields.String(attribute="id", metadata={"example": "ftjob-0123456789abcdef01234567"})
    status = ma.fields.Enum(JobState, by_value=True, attribute="state")
    name = ma.fields.String(metadata={"description": "the experiment"})
    base_model = ma.fields.String()
    created_at = ma.fields.AwareDateTime()


class JobSchema(AcceptedSchema):
    step = ma.fields.Integer(attribute="progress.step", metadata={"description": "optimizer steps done"})
    total_steps = ma.fields.Integer(attribute="progress.total_steps", allow_none=True)
    loss = ma.fields.Float(attribute="progress.loss", allow_none=True)
    eval_loss = ma.fields.Float(attribute="progress.eval_loss", allow_none=True)
    learning_rate = ma.fields.Float(attribute="progress.learning_rate", allow_none=True)
    tokens_per_second = ma.fields.Float(attribute="progress.tokens_per_second", allow_none=True)
    eta_seconds = ma.fields.Float(
        attribute="progress.eta_seconds", allow_none=True, metadata={"description": "time left, an estimate"}
    )
    error = ma.fields.Nested(
        JobErrorSchema, allow_none=True, metadata={"description": "why it failed, with every fault"}
    )
    cancel_requested = ma.fields.Boolean()
    attempts = ma.fields.Integer(metadata={"description": "how often a worker began to train it"})
    lost = ma.fields.Integer(metadata={"description": "how often its worker or its trainer was lost"})
    priority = ma.fields.Integer()
    queue = ma.fields.String()
    retry_of = ma.fields.String(allow_none=True, metadata={"description": "the job that this one tries again"})
    dataset_path = ma.fields.String(attribute="config.dataset_path")
    dataset_id = ma.fields.String(attribute="config.dataset_id", allow_none=True)
    dataset_digest = ma.fields.String(
        metadata={"description": "of the version's rows; sha256 of the file when the job was sent"}
    )
    config = ma.fields.Dict(metadata={"description": "the whole training config"})
    metrics = ma.fields.Dict(attribute="result")
    model_version_id = ma.fields.String(allow_none=True, metadata={"description": "what it published"})
    created_by = ma.fields.String(allow_none=True)
    started_at = ma.fields.AwareDateTime(allow_none=True)
    finished_at = ma.fields.AwareDateTime(allow_none=True)


class JobListSchema(ma.Schema):
    data = ma.fields.List(ma.fields.Nested(JobSchema), attribute="jobs")
    next = ma.fields.String(allow_none=True, metadata={"description": "null on the last page"})


MOST_NAMES = 50


class NamesField(ma.fields.String):
    """Up to 50 names with commas between them → a list."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs)
        names = [name.strip() for name in text.split(",") if name.strip()]
        if not 1 <= len(names) <= MOST_NAMES:  # a validator of the length would be documented as the text's
            raise ma.ValidationError(f"Length must be between 1 and {MOST_NAMES}.")
        return names


class MetricsQuerySchema(ma.Schema):
    names = NamesField(
        load_default=None,
        metadata={
            "description": "of an event's `data`, up to 50 with commas between; without it, all that was measured",
            "example": "loss,eval_loss",
        },
    )
    points = ma.fields.Integer(
        load_default=500,
        validate=ma.validate.Range(1, 2000),
        metadata={"description": "at most; where there are more steps, between half as many and as many"},
    )


class SeriesSchema(ma.Schema):
    """A figure for each point; where it has no number of that name, `mean`, `min` and `max` are null."""

    mean = ma.fields.List(ma.fields.Float(allow_none=True))
    min = ma.fields.List(ma.fields.Float(allow_none=True))
    max = ma.fields.List(ma.fields.Float(allow_none=True))
    known = ma.fields.List(ma.fields.Integer(), metadata={"description": "values that are numbers"})
    nulls = ma.fields.List(
        ma.fields.Integer(), metadata={"description": "values that are not: NaN, infinite, or not known"}
    )


class MetricsSchema(ma.Schema):
    events = ma.fields.Integer(metadata={"description": "events of type metrics that the curve is made of"})
    width = ma.fields.Integer(metadata={"description": "steps that a point sums up: a power of two; 1: one step"})
    names = ma.fields.List(ma.fields.String(), metadata={"description": "all that was measured"})
    first_steps = ma.fields.List(ma.fields.Integer(), metadata={"description": "of each point, the first step"})
    steps = ma.fields.List(ma.fields.Integer(), metadata={"description": "of each point, the last step"})
    series = ma.fields.Dict(keys=ma.fields.String(), values=ma.fields.Nested(SeriesSchema))

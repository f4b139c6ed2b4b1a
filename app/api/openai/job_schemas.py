"""Bodies, queries and answers of /v1/fine_tuning/jobs."""

from collections.abc import Mapping
from typing import Any

import marshmallow as ma

from app.api.openai.options import NullIsNothing, not_here
from app.api.schemas import Number, page_size, text
from app.core.entities.jobs import DEFAULT_QUEUE, PRIORITIES, JobState
from app.core.entities.models import NAME
from app.core.errors import Fault
from app.extensions import current_services
from app.gateway.authentication import current_principal

MOST_PAIRS, LONGEST_KEY, LONGEST_VALUE = 16, 64, 512
OBJECTIVES = {"supervised": "sft", "dpo": "dpo"}
# Keys of TrainingConfig that OpenAI's request has a name of its own for.
TAKEN = {
    "base_model": "model",
    "from_version": "model",
    "dataset_id": "training_file",
    "dataset_path": "training_file",
    "objective": "method",
    "num_epochs": "n_epochs",
    "batch_size": "hyperparameters.batch_size",
    "learning_rate": "learning_rate_multiplier",
    "dpo_beta": "method.dpo.hyperparameters.beta",
    "model_name": "suffix",
}


class Auto(ma.fields.Field[Any]):
    """A number, or ``auto``, which is as good as nothing."""

    def __init__(self, number: ma.fields.Field[Any], about: str) -> None:
        super().__init__(metadata={"description": f"{about}, or `auto`: as the service's config says"})
        self._number = number

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_kwargs: Any) -> Any:
        return None if value == "auto" else self._number.deserialize(value, attr, data)


class HyperparametersSchema(NullIsNothing):
    n_epochs = Auto(ma.fields.Integer(strict=True, validate=ma.validate.Range(1, 1000)), "epochs")
    batch_size = Auto(ma.fields.Integer(strict=True, validate=ma.validate.Range(1, 4096)), "rows of a step")
    learning_rate_multiplier = Auto(
        Number(validate=ma.validate.Range(0, 10_000, min_inclusive=False)), "of the service's default rate"
    )


class DpoHyperparametersSchema(HyperparametersSchema):
    beta = Auto(
        Number(validate=ma.validate.Range(0, 10, min_inclusive=False)), "how closely it holds to its beginning"
    )


class SupervisedSchema(ma.Schema):
    hyperparameters = ma.fields.Nested(HyperparametersSchema, load_default=dict)


class DpoSchema(ma.Schema):
    hyperparameters = ma.fields.Nested(DpoHyperparametersSchema, load_default=dict)


class MethodSchema(NullIsNothing):
    type = ma.fields.String(
        required=True,
        validate=ma.validate.OneOf(OBJECTIVES, error="Must be supervised or dpo: nothing else is trained here."),
        metadata={"description": "`supervised` or `dpo`"},
    )
    supervised = ma.fields.Nested(SupervisedSchema)
    dpo = ma.fields.Nested(DpoSchema)
    reinforcement = not_here("no reinforcement learning here: supervised or dpo")

    @ma.validates_schema
    def _of_its_type(self, data: Mapping[str, Any], **_kwargs: Any) -> None:
        for other in OBJECTIVES.keys() - {data["type"]}:
            if other in data:
                raise ma.ValidationError(f"The type is {data['type']}: leave it out.", other)


class MetadataField(ma.fields.Dict):
    def __init__(self) -> None:
        super().__init__(
            keys=ma.fields.String(validate=ma.validate.Length(1, LONGEST_KEY)),
            values=ma.fields.String(validate=ma.validate.Length(0, LONGEST_VALUE)),
            validate=ma.validate.Length(max=MOST_PAIRS),
            load_default=dict,
            metadata={"description": "up to 16 pairs of texts, of 64 and 512 characters"},
        )


class JobBodySchema(NullIsNothing):
    """Any other key is one of this service's training config, checked by it."""

    class Meta:
        unknown = ma.INCLUDE

    model = text(200, "a base model, or a version (`ft:…`, `name:3`) to train on from", required=True)
    training_file = text(100, "of `POST /v1/files`", required=True)
    validation_file = text(100, "without it some rows of the training file validate")
    suffix = ma.fields.String(
        validate=ma.validate.Regexp(
            rf"{NAME.pattern}\Z", error="Must be a name: 1 to 64 letters, digits, dots, dashes, underscores."
        ),
        metadata={"description": "the model's name"},
    )
    seed = ma.fields.Integer(strict=True, validate=ma.validate.Range(0, 2**32 - 1))
    metadata = MetadataField()
    method = ma.fields.Nested(MethodSchema, metadata={"description": "`supervised` without it"})
    hyperparameters = ma.fields.Nested(
        HyperparametersSchema, load_default=dict, metadata={"description": "the older place, of `supervised`"}
    )
    integrations = not_here("no integrations here: report_to names this service's trackers")
    priority = ma.fields.Integer(
        strict=True, load_default=0, validate=ma.validate.Range(PRIORITIES[0], PRIORITIES[-1])
    )
    queue = ma.fields.String(load_default=DEFAULT_QUEUE, validate=ma.validate.Length(1, 32))

    @ma.validates_schema(skip_on_field_errors=False, pass_original=True)
    def _sound_config(self, data: Mapping[str, Any], sent: Any, **_kwargs: Any) -> None:
        if not isinstance(sent, dict):
            return
        faults: dict[str, list[Any]] = {}
        if data.get("method") and data.get("hyperparameters"):
            faults["hyperparameters"] = ["They stand under method: leave the older place out."]
        options = {key: value for key, value in sent.items() if key not in self.fields}
        for key in options.keys() & TAKEN.keys():
            faults[key] = [f"OpenAI's name for it is {TAKEN[key]}."]
        config = {"objective": "sft", **{k: v for k, v in options.items() if k not in TAKEN}}
        for fault in current_services().tuning.config_faults(current_principal(), data.get("model", ""), config):
            where = fault.where.removeprefix("config.")
            faults.setdefault("_schema", []).append(Fault(where, fault.code, fault.message))
        if faults:
            raise ma.ValidationError(faults)


def config_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of TrainingConfig that a sound body sets, but the learning rate."""
    known = JobBodySchema._declared_fields
    config = {key: value for key, value in body.items() if key not in known}
    given = hyperparameters_of(body)
    method = body.get("method", {"type": "supervised"})
    config["objective"] = OBJECTIVES[method["type"]]
    named = {"num_epochs": given.get("n_epochs"), "dpo_beta": given.get("beta"), "seed": body.get("seed")}
    named |= {"model_name": body.get("suffix"), "batch_size": given.get("batch_size")}
    if given.get("batch_size") is not None and "gradient_accumulation_steps" not in config:
        config["gradient_accumulation_steps"] = 1  # OpenAI's batch is an optimizer step's
    return config | {key: value for key, value in named.items() if value is not None}


def hyperparameters_of(body: Mapping[str, Any]) -> Mapping[str, Any]:
    method = body.get("method")
    if method is None:
        older: Mapping[str, Any] = body["hyperparameters"]
        return older
    given: Mapping[str, Any] = method.get(method["type"], {}).get("hyperparameters", {})
    return given


class OpenAIJobErrorSchema(ma.Schema):
    code = ma.fields.String()
    message = ma.fields.String(metadata={"description": "every fault at once, a line each"})
    param = ma.fields.String(allow_none=True)


class OpenAIJobSchema(ma.Schema):
    id = ma.fields.String()
    object = ma.fields.String(metadata={"enum": ["fine_tuning.job"]})
    created_at = ma.fields.Integer()
    finished_at = ma.fields.Integer(allow_none=True)
    estimated_finish = ma.fields.Integer(allow_none=True)
    model = ma.fields.String(metadata={"description": "the base model"})
    fine_tuned_model = ma.fields.String(allow_none=True, metadata={"description": "to ask, once it succeeded"})
    organization_id = ma.fields.String(metadata={"description": "the project"})
    status = ma.fields.String(metadata={"enum": [state.value for state in JobState]})
    training_file = ma.fields.String()
    validation_file = ma.fields.String(allow_none=True)
    hyperparameters = ma.fields.Dict()
    method = ma.fields.Dict(allow_none=True, metadata={"description": "null: one that OpenAI does not have"})
    seed = ma.fields.Integer()
    trained_tokens = ma.fields.Integer(allow_none=True)
    result_files = ma.fields.List(ma.fields.String())
    error = ma.fields.Nested(OpenAIJobErrorSchema, allow_none=True)
    integrations = ma.fields.List(ma.fields.Dict())
    metadata = ma.fields.Dict(keys=ma.fields.String(), values=ma.fields.String())


class OpenAIJobListSchema(ma.Schema):
    object = ma.fields.String(metadata={"enum": ["list"]})
    data = ma.fields.List(ma.fields.Nested(OpenAIJobSchema))
    has_more = ma.fields.Boolean()


class OpenAIPageSchema(ma.Schema):
    limit = page_size()
    after = ma.fields.String(load_default=None, metadata={"description": "the last id of the page before"})


class OpenAIJobQuerySchema(OpenAIPageSchema):
    """``metadata[key]=value`` chooses; the keys are the client's own."""

    class Meta:
        unknown = ma.INCLUDE

    @ma.post_load
    def _choice(self, data: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
        page = {name: data.pop(name) for name in ("limit", "after")}
        chosen = {key.removeprefix("metadata[").removesuffix("]"): value for key, value in data.items()}
        odd = [key for key in data if not (key.startswith("metadata[") and key.endswith("]"))]
        if odd:
            raise ma.ValidationError({key: ["Unknown field."] for key in odd})
        if len(chosen) > MOST_PAIRS:
            raise ma.ValidationError({"metadata": [f"At most {MOST_PAIRS} pairs: no job has more."]})
        return {**page, "metadata": chosen}


class OpenAIEventSchema(ma.Schema):
    id = ma.fields.String()
    object = ma.fields.String(metadata={"enum": ["fine_tuning.job.event"]})
    created_at = ma.fields.Integer()
    level = ma.fields.String(metadata={"enum": ["info", "warn", "error"]})
    message = ma.fields.String()
    type = ma.fields.String(metadata={"enum": ["message", "metrics"]})
    data = ma.fields.Dict(metadata={"description": "`step`, `total_steps`, `train_loss`, `full_valid_loss` …"})


class OpenAIEventListSchema(ma.Schema):
    object = ma.fields.String(metadata={"enum": ["list"]})
    data = ma.fields.List(ma.fields.Nested(OpenAIEventSchema))
    has_more = ma.fields.Boolean()


class CheckpointSchema(ma.Schema):
    id = ma.fields.String()
    object = ma.fields.String(metadata={"enum": ["fine_tuning.job.checkpoint"]})
    created_at = ma.fields.Integer()
    fine_tuned_model_checkpoint = ma.fields.String()
    fine_tuning_job_id = ma.fields.String()
    step_number = ma.fields.Integer()
    metrics = ma.fields.Dict()


class CheckpointListSchema(ma.Schema):
    object = ma.fields.String(metadata={"enum": ["list"]})
    data = ma.fields.List(ma.fields.Nested(CheckpointSchema))
    first_id = ma.fields.String(allow_none=True)
    last_id = ma.fields.String(allow_none=True)
    has_more = ma.fields.Boolean()

"""The training config: defined here once; YAML, HTTP, CLI and console derive from it."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from app.core.entities.choices import OneOf
from app.core.entities.data_pipeline import PipelineConfig
from app.core.entities.reasoning import Reasoning
from app.core.errors import Fault, Invalid
from app.core.factories import ADAPTATIONS, OBJECTIVES, STRATEGIES, TRACKERS

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
VersionReference = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}(:[1-9][0-9]{0,8}|@[A-Za-z0-9][A-Za-z0-9._-]{0,63})?$"
    ),
]
DatasetName = Annotated[str, StringConstraints(max_length=100)]
ModuleName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.]{1,128}$")]
_FromList = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)  # JSON has no tuples
ModuleNames = Annotated[tuple[ModuleName, ...], Field(min_length=1, max_length=64), _FromList]
TrackerNames = Annotated[tuple[Annotated[str, OneOf(TRACKERS)], ...], _FromList]
SamplePrompt = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
SamplePrompts = Annotated[tuple[SamplePrompt, ...], Field(max_length=8), _FromList]

KernelName = Literal["attention", "head", "lora", "rms_norm", "swiglu"]
KernelNames = Annotated[
    tuple[KernelName, ...],
    BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
]


class LoraSettings(BaseModel):
    """LoRA (Hu et al. 2021, arXiv:2106.09685) as PEFT applies it: W + (lora_alpha / r) · B·A."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    r: int = Field(16, ge=1, le=512, description="rank of the update")
    lora_alpha: float = Field(32, gt=0, le=4096, description="the update is scaled by lora_alpha / r")
    target_modules: Literal["all-linear"] | ModuleNames = Field(
        "all-linear", description="names of the linear layers that get an update, or all-linear"
    )
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="dropout before A, in training only")
    use_rslora: bool = Field(False, description="rsLoRA, arXiv:2312.03732: scaled by lora_alpha / sqrt(r) instead")
    use_dora: bool = Field(
        False, description="DoRA, arXiv:2402.09353: each output's magnitude is trained beside its direction"
    )
    loraplus_lr_ratio: float = Field(
        1.0, ge=1, le=1024, description="LoRA+, arXiv:2402.12354: the learning rate of B by that of A"
    )


# What a version's adapter weights mean; a run that starts from them has these of the version.
ADAPTER_SHAPE = ("r", "lora_alpha", "target_modules", "use_rslora", "use_dora")
# The options that an adaptation may refuse, with the values that switch them off.
_OPTIONS_OFF: Mapping[str, Any] = {"use_rslora": False, "use_dora": False, "loraplus_lr_ratio": 1.0}


class TrainingConfig(BaseModel):
    """What one training run does. Keys are flat; YAML may put them under ``model:`` as well.

    Rows in an optimizer step = ``batch_size`` × ``gradient_accumulation_steps`` × processes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    base_model: Name = Field("deepseek-r1-1.5b", description="a name in config/base_models.yaml")
    dataset_path: str = Field("data/raw/sample_data.json", min_length=1, max_length=1024)
    dataset_id: DatasetName | None = Field(
        None, description="train on this dataset of the project instead: ds-…, ds-…:3 or ds-…@tag"
    )
    model_name: Name | None = Field(None, description="publishes versions under this name (else the experiment's)")
    experiment_name: Name = Field("experiment", description="names the run folder")
    output_dir: str | None = Field(None, description="run folder in the foreground (else results/<name>_<time>)")
    pipeline: PipelineConfig | None = Field(
        None, description="clean, split and augment the rows first: keys of config/data_pipeline.yaml"
    )
    train_samples: int | None = Field(None, ge=1, description="train on the first N training rows only")
    from_version: VersionReference | None = Field(
        None, description="train on from this published version of the project: name, name:3 or name@alias"
    )

    objective: Annotated[str, OneOf(OBJECTIVES)] = "sft"
    adaptation: Annotated[str, OneOf(ADAPTATIONS)] = "lora"
    strategy: Annotated[str, OneOf(STRATEGIES)] = "single"
    processes: int = Field(1, ge=1, le=1024, description="that train together; each is a rank of the strategy")
    zero_stage: Literal[2, 3] = Field(2, description="what deepspeed shards: 2 gradients, 3 parameters too")
    lora: LoraSettings = LoraSettings()
    dpo_beta: float = Field(0.1, gt=0, le=10, description="how closely dpo holds to the model it starts from")

    max_length: int = Field(1024, ge=16, le=131_072, description="tokens of a row; longer ones are truncated")
    reasoning: Reasoning = Field(
        "keep",
        description="the assistant's <think>…</think>: keep trains the last answer's, drop removes them all",
    )
    learning_rate: float = Field(2e-4, gt=0, le=1)
    lr_schedule: Literal["linear", "cosine", "constant"] = "cosine"
    warmup_steps: int = Field(10, ge=0, description="optimizer steps in which the learning rate rises to its full")
    warmup_ratio: float | None = Field(
        None, ge=0, lt=1, description="the same as a part of all steps, instead of warmup_steps"
    )
    optimizer: Literal["adamw", "adamw_8bit", "lamb"] = Field(
        "adamw", description="adamw_8bit keeps its state in bytes (bitsandbytes); lamb is for very large batches"
    )
    weight_decay: float = Field(0.0, ge=0, le=1)
    max_grad_norm: float = Field(1.0, gt=0)
    batch_size: int = Field(8, ge=1, le=4096, description="rows in one forward pass of one process")
    gradient_accumulation_steps: int = Field(1, ge=1, le=4096)
    gradient_checkpointing: bool = False
    num_epochs: int = Field(3, ge=1, le=1000)
    save_steps: int = Field(0, ge=0, description="a checkpoint every N optimizer steps; 0: each epoch")
    save_total_limit: int = Field(2, ge=1, le=100, description="the newest N checkpoints are kept")
    eval_steps: int = Field(
        0, ge=0, description="validate every N optimizer steps too; 0: at each epoch's end only"
    )
    logging_steps: int = Field(1, ge=1, description="a metrics event every N optimizer steps")
    report_to: Literal["auto", "none"] | TrackerNames = Field(
        "auto", description="a list of trackers; auto: tensorboard where installed"
    )
    sample_prompts: SamplePrompts | None = Field(
        None, description="answered at each evaluation; [] for none; unset: two questions of the validation rows"
    )
    sample_max_tokens: int = Field(32, ge=1, le=512, description="tokens of an answer to a sample prompt")
    load_best_model_at_end: bool = Field(
        False, description="publish the weights with the lowest validation loss; early stopping does so anyway"
    )
    early_stopping_patience: int = Field(
        0, ge=0, description="stop after N evaluations without a better validation loss; 0: never"
    )
    early_stopping_threshold: float = Field(0.0, ge=0, description="how much better counts as better")
    seed: int = Field(42, ge=0, lt=2**32)
    kernels: Literal["auto", "none"] | KernelNames = Field(
        "auto", description="fused computations where they fit the model: all of them, none, or a list"
    )
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    precision: Literal["auto", "bf16", "fp32"] = "auto"

    @model_validator(mode="before")
    @classmethod
    def _flatten(cls, data: Any) -> Any:
        """Lift ``model:`` to the top and flat LoRA keys into ``lora``; a key given twice is an error."""
        if not isinstance(data, Mapping):
            return data
        flat, problems = flattened(data)
        if problems:
            raise ValueError("; ".join(problems))
        # Whoever gives the ratio alone does not mean the default steps as well.
        return {"warmup_steps": 0, **flat} if flat.get("warmup_ratio") is not None else flat

    @model_validator(mode="after")
    def _one_warmup(self) -> Self:
        if self.warmup_ratio is not None and self.warmup_steps > 0:
            raise ValueError("warmup_steps and warmup_ratio: give one of the two")
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.strategy == "single" and self.processes > 1:
            raise ValueError(
                f"strategy single is one process, and processes is {self.processes}: set that to 1, "
                "or strategy to ddp, deepspeed or fsdp"
            )
        cuts_weights = self.strategy == "fsdp" or (self.strategy == "deepspeed" and self.zero_stage == 3)
        if cuts_weights and ADAPTATIONS.load(self.adaptation).quantised:
            raise ValueError(
                f"strategy {self.strategy} cannot cut the quantised weights of adaptation {self.adaptation}: "
                "set strategy to ddp, or to deepspeed with zero_stage 2"
            )
        if self.strategy in ("deepspeed", "fsdp") and self.optimizer != "adamw":
            raise ValueError(
                f"optimizer {self.optimizer} wants whole tensors and strategy {self.strategy} cuts them: "
                "set optimizer to adamw, or strategy to ddp"
            )
        return self

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        """Each key is sound by itself: what is refused here is what they mean together."""
        adaptation, objective = ADAPTATIONS.load(self.adaptation), OBJECTIVES.load(self.objective)
        problems = [
            f"lora.{option}: not with adaptation: {self.adaptation}, set it to {_plain(off)}"
            for option, off in _OPTIONS_OFF.items()
            if getattr(self.lora, option) != off and option not in adaptation.lora_options
        ]
        problems += [*objective.problems(self), *adaptation.problems(self)]
        if problems:
            raise PydanticCustomError("impossible_combination", "{problems}", {"problems": "; ".join(problems)})
        return self

    @property
    def has_label_head(self) -> bool:
        return bool(OBJECTIVES.load(self.objective).label_head)

    @property
    def published_name(self) -> str:
        return self.model_name or self.experiment_name

    @property
    def kernel_names(self) -> frozenset[str]:
        if isinstance(self.kernels, str):
            return frozenset(get_args(KernelName) if self.kernels == "auto" else ())
        return frozenset(self.kernels)

    @property
    def keeps_best(self) -> bool:
        return self.load_best_model_at_end or self.early_stopping_patience > 0

    def with_changes(self, **changes: Any) -> Self:
        """A validated copy; ``model_copy`` alone would not validate."""
        return type(self).model_validate(_laid_over(self, changes))

    def as_request(self) -> dict[str, Any]:
        """Every key, less those that were left open and that ``from_version`` decides."""
        request = self.model_dump(mode="json")
        if self.from_version is not None:
            for key in {"base_model", "adaptation"} - self.model_fields_set:
                del request[key]
            for key in set(ADAPTER_SHAPE) - self.lora.model_fields_set:
                del request["lora"][key]
        return request


def flattened(data: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The keys with ``model:`` lifted to the top and LoRA's under ``lora``; what is wrong with their places."""
    flat = dict(data)
    problems = []
    nested = flat.pop("model", None)
    if isinstance(nested, dict):
        if twice := sorted(nested.keys() & flat.keys()):
            problems.append(f"given twice, at the top and under model: {', '.join(twice)}")
        flat |= nested
    elif nested is not None:
        problems.append("model: must be a mapping of keys")
    lora_keys = {key: flat.pop(key) for key in list(flat) if key in LoraSettings.model_fields}
    block = flat.get("lora", {})
    if lora_keys and not isinstance(block, dict):
        problems.append("lora: must be a mapping of keys")
    elif lora_keys:
        if twice := sorted(block.keys() & lora_keys.keys()):
            problems.append(f"given twice, at the top and under lora: {', '.join(twice)}")
        flat["lora"] = {**block, **lora_keys}
    return flat, problems


def training_config(
    raw: Mapping[str, Any],
    where: str = "config",
    *,
    over: TrainingConfig | None = None,
    strict: bool = False,
) -> TrainingConfig:
    """Validate ``raw``, laid over the values of ``over``. ``Invalid`` has a fault for each faulty key.

    ``strict`` wants JSON's own types: neither "8" nor true is a number.
    """
    flat, problems = flattened(raw)
    faults = [Fault(where, "value_error", problem) for problem in problems]
    try:
        config = TrainingConfig.model_validate(_laid_over(over, flat) if over else flat, strict=strict)
    except ValidationError as error:
        faults += [
            Fault(".".join([where, *_keys(e["loc"], e["type"])]), e["type"], e["msg"])
            for e in error.errors(include_input=False, include_url=False)
        ]
    else:
        if not faults:
            return config
    raise Invalid("the training config has faults", faults=faults)


def _laid_over(config: TrainingConfig, flat: Mapping[str, Any]) -> dict[str, Any]:
    lora = flat.get("lora")
    block = {"lora": {**config.lora.model_dump(), **lora}} if isinstance(lora, Mapping) else {}
    below = config.model_dump()
    # One way to say the warm-up takes the other's place; both at once are an error.
    if flat.get("warmup_ratio") is not None:
        below["warmup_steps"] = 0
    elif flat.get("warmup_steps"):
        below["warmup_ratio"] = None
    return {**below, **flat, **block}


def _plain(value: object) -> str:
    """As YAML and JSON write it."""
    return str(value).lower()


def _keys(location: tuple[int | str, ...], kind: str) -> list[str]:
    """Without what pydantic adds for the members of a union: ``literal['all-linear']``."""
    return [str(part) for part in location if kind == "extra_forbidden" or "[" not in str(part)]

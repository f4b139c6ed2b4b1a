"""What is done to rows before they train, and what came of it. ``config/data_pipeline.yaml`` explains each key."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from app.core.entities.choices import OneOf
from app.core.entities.datasets import SPLITS, Conversation, Split
from app.core.errors import Fault, Invalid
from app.core.factories import DATA_PROCESSORS

StepName = Annotated[str, OneOf(DATA_PROCESSORS, without=("convert",))]  # which is done always, before the others
AugmenterName = Literal["rephrase", "typos", "system_prompt", "later_turn"]
Column = Annotated[str, StringConstraints(min_length=1, max_length=128)]
SystemPrompt = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
_FromList = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)  # JSON has no tuples


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class CleaningOptions(_Options):
    unicode: Literal["NFC", "NFKC", "none"] = "NFC"
    control_characters: bool = True
    html: bool = True
    white_space: bool = True
    duplicates: bool = True


class NearDuplicateOptions(_Options):
    threshold: float = Field(0.7, gt=0, le=1, description="exact Jaccard similarity of the two sets of shingles")
    shingle_words: int = Field(2, ge=1, le=10)
    permutations: int = Field(128, ge=16, le=1024)


class SplittingOptions(_Options):
    method: Literal["random", "stratified", "grouped"] = "random"
    group_by: Column | None = None
    validation: float = Field(0.1, ge=0, lt=0.5)
    test: float = Field(0.1, ge=0, lt=0.5)
    near_duplicates: Literal["ignore", "report", "keep_together"] = "report"

    @model_validator(mode="after")
    def _grouped_by_something(self) -> Self:
        if (self.method == "grouped") != (self.group_by is not None):
            raise ValueError("method grouped and group_by go together: give both or neither")
        return self


class AugmentationOptions(_Options):
    augmenters: Annotated[tuple[AugmenterName, ...], _FromList] = ("rephrase", "typos")
    share: float = Field(1.0, gt=0, le=1, description="of the training rows, for each augmenter")
    system_prompts: Annotated[tuple[SystemPrompt, ...], Field(min_length=1, max_length=64), _FromList] = (
        "You are a helpful assistant.",
        "Answer the question correctly and briefly.",
        "You work for customer support. Be friendly and exact.",
    )


class InspectionOptions(_Options):
    near_duplicates: bool = True
    languages: bool = True
    secrets: bool = True
    personal_data: bool = True
    balanced_ratio: float = Field(3.0, ge=1, description="largest by smallest class, up to which all is well")


class PipelineConfig(_Options):
    """``steps`` are done in their order, each once at most."""

    seed: int = Field(42, ge=0, lt=2**32)
    steps: Annotated[tuple[StepName, ...], _FromList] = ("clean", "split")
    cleaning: CleaningOptions = CleaningOptions()
    near_duplicates: NearDuplicateOptions = NearDuplicateOptions()
    splitting: SplittingOptions = SplittingOptions()
    augmentation: AugmentationOptions = AugmentationOptions()
    inspection: InspectionOptions = InspectionOptions()

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if twice := sorted(name for name, times in Counter(self.steps).items() if times > 1):
            raise ValueError(f"steps: more than once: {', '.join(twice)}")
        for place, name in enumerate(self.steps):
            for other, reason in DATA_PROCESSORS.load(name).after.items():
                if other not in self.steps[:place]:
                    raise ValueError(f"steps: {name} {reason}, so {other} has to come before it")
        return self


def pipeline_config(raw: Mapping[str, Any], where: str = "config") -> PipelineConfig:
    """Validate ``raw``. ``Invalid`` has a fault for each faulty key."""
    try:
        return PipelineConfig.model_validate(raw)
    except ValidationError as error:
        faults = [
            Fault(".".join([where, *map(str, found["loc"])]), found["type"], found["msg"])
            for found in error.errors(include_input=False, include_url=False)
        ]
        raise Invalid("the pipeline's config has faults", code="invalid_config", faults=faults) from None


@dataclass(frozen=True, slots=True)
class DataWarning:
    """What is legal and yet suspicious, and its remedy. ``row`` is None where it is the whole dataset."""

    row: int | None
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Change:
    """One text of one row. ``before`` is None in a row that was made, ``after`` in one that was dropped."""

    row: int
    where: str  # messages[0].content, text … or row
    before: str | None
    after: str | None
    why: str


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What one step did. ``reasons`` counts the changes by why; ``changes`` are the first of them."""

    name: str
    rows_before: int
    rows_after: int
    rows_changed: int = 0
    rows_dropped: int = 0
    rows_made: int = 0
    characters_removed: int = 0  # net of those added
    reasons: Mapping[str, int] = field(default_factory=dict)
    changes: Sequence[Change] = ()
    warnings: Sequence[DataWarning] = ()


@dataclass(frozen=True, slots=True)
class PipelineResult:
    """``rows`` carry their split once the step ``split`` was done; the first record is of the conversion."""

    rows: Sequence[Conversation]
    steps: Sequence[StepRecord]

    def splits(self) -> Mapping[Split, Sequence[Conversation]]:
        return {name: [row for row in self.rows if row.split == name] for name in SPLITS}

    @property
    def warnings(self) -> Sequence[DataWarning]:
        return [warning for step in self.steps for warning in step.warnings]


@dataclass(frozen=True, slots=True)
class DatasetReport:
    """``lengths`` are percentiles of a row's length in ``unit``; ``rates`` are rows a second by slow check."""

    total_samples: int
    label_counts: Mapping[str, int]
    imbalance_ratio: float | None  # largest by smallest class; None without labels
    is_balanced: bool | None
    unit: Literal["tokens", "characters"]
    lengths: Mapping[int, int]
    languages: Mapping[str, int]
    warning_counts: Mapping[str, int]
    rates: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Inspection:
    """``warnings`` are the first of each code; ``row_lengths`` is for the histogram."""

    report: DatasetReport
    warnings: Sequence[DataWarning]
    row_lengths: Sequence[int]

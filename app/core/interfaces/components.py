"""What works on data and models. Factories build these by name from the tables of bootstrap."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Self

from app.core.entities.data_pipeline import PipelineConfig
from app.core.entities.datasets import (
    Conversation,
    DatasetCheck,
    Message,
    PreparedDataset,
    Split,
    TokenizedRow,
)
from app.core.entities.forecasts import Forecast
from app.core.entities.inference import SamplingOptions
from app.core.entities.models import BaseModelSpec, ModelVersion
from app.core.entities.recording import Recorder
from app.core.entities.tool_calls import Tool, ToolFormat
from app.core.entities.trainer import ALONE, Placement
from app.core.entities.training_config import TrainingConfig

RowProgress = Callable[[str, int, int], None]  # is told (what is done, rows done, rows in all), many times
ByteProgress = Callable[[int, int], None]  # is told (bytes done, bytes in all), many times


def unwatched(name: str, done: int, total: int) -> None:
    """Be a RowProgress that tells nobody."""


class DataFormat(ABC):
    """Recognises one shape of row and converts it to a conversation."""

    name: str  # in bootstrap's DATA_FORMATS
    columns: frozenset[str]  # those it reads; a row's other columns are kept beside the conversation

    @abstractmethod
    def recognises(self, row: Mapping[str, Any]) -> bool: ...

    @abstractmethod
    def convert(self, row: Mapping[str, Any]) -> Conversation:
        """``row`` of the answer is 0: the caller knows it, ``split`` and ``extra``.

        Raises ``Invalid`` with every fault of the row; ``where`` is relative to the row.
        """


class DataProcessor(ABC):
    """Does one step of the data pipeline: rows to rows, the same for the same rows and config on any machine."""

    after: ClassVar[Mapping[str, str]] = {}  # steps that have to come before this one, each with the reason

    def __init__(self, config: PipelineConfig) -> None:
        self.config = config

    @abstractmethod
    def process(
        self, rows: Sequence[Conversation], record: Recorder, on_progress: RowProgress
    ) -> Sequence[Conversation]:
        """Make the next step's rows, and change none of ``rows`` itself; tell ``record`` what was done and why."""


class DatasetStore(ABC):
    """Raw files that clients may name, and the immutable cuts made of them."""

    @abstractmethod
    def check(
        self,
        dataset_path: str,
        *,
        trusted: bool = False,
        columns: Mapping[str, str] | None = None,
        progress: ByteProgress | None = None,
    ) -> DatasetCheck:
        """Structure of a file, every fault at once. ``Invalid`` for a path that is not a file under data/raw.

        ``trusted`` (the foreground command) allows any path on the host. ``columns`` gives columns that have other
        names (its keys) the names of ours (its values) before a row's shape is recognised.
        """

    @abstractmethod
    def prepare(
        self,
        dataset_path: str,
        digest: str,
        seed: int,
        *,
        trusted: bool = False,
        columns: Mapping[str, str] | None = None,
    ) -> PreparedDataset:
        """Split and write the cut once; found again by (digest, seed, columns).

        ``Invalid`` (invalid_data) with every fault of the file, ``Conflict`` if it has changed.
        """

    @abstractmethod
    def prepare_version(self, digest: str, seed: int) -> PreparedDataset:
        """The same of a dataset version's rows. ``Unavailable`` (dataset_missing) if they are gone."""

    @abstractmethod
    def processed(self, digest: str, seed: int, pipeline: Mapping[str, Any]) -> PreparedDataset | None:
        """Return the cut of what a pipeline made of these rows, if it was kept."""

    @abstractmethod
    def keep_processed(
        self,
        digest: str,
        seed: int,
        pipeline: Mapping[str, Any],
        rows: Iterable[Conversation],
        report: Mapping[str, Any],
    ) -> PreparedDataset:
        """Keep the cut of what a pipeline made of the rows with that digest, and the pipeline's report with it."""

    @abstractmethod
    def rows(self, prepared: PreparedDataset, split: str) -> Sequence[Conversation]: ...


@dataclass(frozen=True, slots=True)
class KeptRows:
    digest: str
    rows: int
    size: int  # bytes on the disk
    format: str | None = None  # that an upload's came in: a name of bootstrap's DATA_FORMATS


class DatasetLibrary(ABC):
    """The rows of dataset versions, by digest: equal rows are kept once, whoever has them."""

    @abstractmethod
    def receive(
        self, stream: BinaryIO, source: str, columns: Mapping[str, str], progress: ByteProgress | None = None
    ) -> AbstractContextManager[KeptRows]:
        """Keep the rows of an upload as ``keeping`` does, without holding all of them.

        ``source`` is the file's name, ``columns`` its columns' names to ours. ``Invalid`` (invalid_data) with
        every fault, or (file_type_not_supported).
        """

    @abstractmethod
    def keeping(self, rows: Iterable[Conversation]) -> AbstractContextManager[KeptRows]:
        """Keep rows, whole or not at all. Within the block nobody forgets them: note there who has them."""

    @abstractmethod
    def rows(self, digest: str) -> Sequence[Conversation]:
        """``Unavailable`` (dataset_missing) if they are gone or damaged."""

    @abstractmethod
    def folder(self, digest: str) -> Path:
        """Return where the rows lie, for a process that has no database. ``Unavailable`` (dataset_missing)."""

    @abstractmethod
    def row(self, digest: str, number: int) -> Conversation:
        """Read the first row of that number alone. ``NotFound`` (row_not_found), and as ``rows``."""

    @abstractmethod
    def rows_within(self, digest: str, most_bytes: int) -> Sequence[Conversation] | None:
        """Read all rows, as ``rows``; None where they take more bytes of memory, and then few more are read."""

    @abstractmethod
    def forget(self, digest: str, unless: Callable[[str], bool]) -> None:
        """Remove them and all that was made of them, unless the digest is wanted still."""


class ChatTokenizer(ABC):
    """One model's template and tokenizer, without torch. Training and serving render with the same methods."""

    template_text: str  # the chat template
    template_hash: str  # sha256 of it
    stop_token_ids: Sequence[int]
    generates = True  # False: the model is an encoder, without a template, and only ``encode_plain`` can be asked
    opens_thinking = False  # True: the template's prompt ends with ``<think>``
    tool_format: ToolFormat | None = None  # that the template writes calls in; None: it has none that is known

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Another one where the same conversation may become other ids."""

    @abstractmethod
    def encode_prompt(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> list[int]:
        """Token ids up to where the assistant's next words begin; ``tools`` are those that it may call.

        ``Invalid`` (tools_not_supported) where the template knows no tools and there are some, or calls of some.
        """

    @abstractmethod
    def encode_training(self, messages: Sequence[Message], max_length: int | None) -> TokenizedRow:
        """The conversation with labels on the assistant's tokens and the end of turn; None: whole.

        Its ids begin with ``encode_prompt`` of the messages before the last answer. ``Invalid`` if the last
        message is not the assistant's.
        """

    @abstractmethod
    def encode_text(self, text: str) -> list[int]:
        """A document outside of any conversation, and the end-of-text token."""

    @abstractmethod
    def encode_plain(self, text: str, max_length: int | None) -> TokenizedRow:
        """A text to classify, between the special tokens that the tokenizer puts around one; no label counts.

        Longer texts lose their end, never a special token; None: whole. Control tokens that the text spells are
        plain text.
        """

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Text without special tokens."""

    @abstractmethod
    def token_texts(self, ids: Sequence[int]) -> list[str]:
        """What each token adds to the text, special tokens too.

        A character of several tokens stands with the last of them, and the others have "".
        """

    @abstractmethod
    def split_reasoning(self, text: str) -> tuple[str | None, str]:
        """(reasoning, answer) of generated text."""


class TokenCache(ABC):
    """Rows as token ids, kept for the next run on the same cut with the same tokenizer and the same lengths.

    ``cut`` is a prepared dataset's folder. What cannot be kept, or is damaged, is only made anew.
    """

    @abstractmethod
    def find(
        self, cut: Path, tokenizer: ChatTokenizer, config: TrainingConfig
    ) -> Mapping[Split, Sequence[TokenizedRow]] | None:
        """All rows of each split in order, as ``encode`` made them."""

    @abstractmethod
    def keeping(
        self, cut: Path, tokenizer: ChatTokenizer, config: TrainingConfig
    ) -> AbstractContextManager[Callable[[Split, Sequence[TokenizedRow]], None]]:
        """Give the rows one after another to what it yields; they are kept once the block has ended well."""


class BaseModelStore(ABC):
    """Base models by name (config/base_models.yaml) and where they lie (models/base/NAME)."""

    @abstractmethod
    def specs(self) -> Sequence[BaseModelSpec]: ...

    @abstractmethod
    def spec(self, name: str) -> BaseModelSpec:
        """``Invalid`` (unknown_base_model) that lists the known ones."""

    @abstractmethod
    def folder(self, name: str) -> Path:
        """Where it lies; ``Unavailable`` (base_model_missing) with the three ways to get it if it does not."""

    @abstractmethod
    def present(self, name: str) -> bool: ...

    @abstractmethod
    def pull(self, name: str) -> Path:
        """Lay it under models/base/NAME, whole or not at all. Reports progress on standard error."""

    @abstractmethod
    def tokenizer(self, name: str) -> ChatTokenizer: ...

    @abstractmethod
    def digest(self, name: str) -> str | None:
        """What tells its weights from others; None where it is not on this host."""


class ArtifactStore(ABC):
    """Published artifacts, under models/registry. Folders appear whole, by rename."""

    @abstractmethod
    def publish(self, version_id: str, source: Path) -> str:
        """Copy a run's artifacts; the answer is the folder's name, the id. Again: the same folder."""

    @abstractmethod
    def folder(self, version: ModelVersion) -> Path:
        """``Unavailable`` (artifacts_missing) if it is gone."""

    @abstractmethod
    def tokenizer(self, version: ModelVersion) -> ChatTokenizer:
        """``Unavailable`` (template_mismatch) if its template is not the one that it was trained with."""

    @abstractmethod
    def discard(self, artifacts: str) -> None:
        """Remove what no row names: what a lost attempt published, if it did, or of a version that was deleted."""


class ModelLoader(ABC):
    """Reads a model from a local folder into memory; no code of the folder is run and no hub is asked.

    ``labels`` are those of a label head: what of it the folder lacks is new. ``device`` (torch's) is where weights
    that are packed will compute.
    """

    def __init__(self, labels: Sequence[str] = (), device: Any = None) -> None:
        self.labels, self.device = labels, device

    @abstractmethod
    def load(self, folder: Path, precision: Any, adapter: Path | None = None, **options: Any) -> Any:
        """Load the weights in ``precision`` (a torch dtype), and over them the adapter of that folder.

        They are on the CPU, packed ones apart, and frozen: only what is new requires a gradient. ``options`` are
        transformers' own. ``Invalid`` for a model or an adapter that a loader written by hand cannot read.
        """


class TextGenerator(ABC):
    """Answers many prompts at once, in this process: for evaluation."""

    @abstractmethod
    def generate(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> Iterable[tuple[int, Sequence[int]]]:
        """Greedy; (place in ``prompts``, new token ids) as they are done, in any order."""


class LanguageModel(ABC):
    """A model in this process, one conversation at a time: for the lab."""

    context: int  # tokens of prompt and answer together

    @abstractmethod
    def tokens(self, prompt: Sequence[int], sampling: SamplingOptions) -> Iterator[int]:
        """The answer's, as they are made, up to a stop that is not among them. It heeds no penalty and no seed."""

    @abstractmethod
    def loss(self, row: TokenizedRow) -> float:
        """Cross-entropy, summed over the supervised tokens."""


@dataclass(frozen=True, slots=True)
class TrainerJob:
    """What a trainer is told: the job file of docs/trainer-protocol.md. Folders are absolute."""

    job_id: str
    attempt: int  # the claim's fence
    runner: str
    config: TrainingConfig
    base_model_folder: Path
    dataset_folder: Path  # holds train.parquet, validation.parquet, test.parquet
    run_folder: Path
    threads: int  # of this process
    placement: Placement = ALONE
    start_from: Path | None = None  # the artifacts of the version that it trains on from
    forecast: Forecast | None = None  # of this very run, where one was made before

    @classmethod
    def of(cls, raw: Mapping[str, Any], placement: Placement) -> Self:
        """Read a job file."""
        return cls(
            job_id=raw["job_id"],
            attempt=raw["attempt"],
            runner=raw["runner"],
            config=TrainingConfig.model_validate(raw["config"]),
            base_model_folder=Path(raw["base_model_folder"]),
            dataset_folder=Path(raw["dataset_folder"]),
            run_folder=Path(raw["run_folder"]),
            threads=raw["threads"],
            placement=placement,
            start_from=Path(raw["start_from"]) if raw.get("start_from") else None,
            forecast=Forecast(**raw["forecast"]) if raw.get("forecast") else None,
        )


class Reporter(ABC):
    """A runner's only way out: what it says becomes events of the job."""

    @abstractmethod
    def message(self, text: str, level: str = "info") -> None: ...

    @abstractmethod
    def metrics(self, step: int, total_steps: int, figures: Mapping[str, float | None]) -> None:
        """``figures``: loss, eval_loss, learning_rate, grad_norm, tokens_per_second, eta_seconds …"""

    @abstractmethod
    def should_stop(self) -> bool:
        """Asked at each step; once true, the runner raises ``TrainingStopped``."""


class Tracker(ABC):
    """Shows a run where its owner looks. Called from one thread of its own, which ends if a method raises."""

    package: ClassVar[str]  # that it imports, in its methods
    extra: ClassVar[str]  # of pyproject.toml, which installs that
    by_default: ClassVar[bool] = False  # whether ``report_to: auto`` means it, where it is installed

    @abstractmethod
    def start(self, job: TrainerJob) -> None:
        """Begin the record of ``job``, or go on with what an earlier attempt at it wrote."""

    @abstractmethod
    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """``figures`` by group and name: ``train/loss``, ``eval/perplexity``, ``system/memory_bytes`` …"""

    @abstractmethod
    def text(self, step: int, name: str, text: str) -> None: ...

    @abstractmethod
    def finish(self, succeeded: bool) -> None:
        """Write what is left. ``succeeded`` is false for a run that failed or was stopped."""


class TrainingStopped(Exception):
    """The runner ended because it was asked to."""


class JobRunner(ABC):
    """Does the work of one child process (docs/trainer-protocol.md). It never sees the database."""

    @classmethod
    def prepare(cls, base_model_folder: Path | None) -> None:
        """Do what any job does first, or one with this base model, before the job is known: for spare processes.

        It leaves nothing that changes a number of the run. By default only the class is imported.
        """
        del base_model_folder

    @abstractmethod
    def carry_out(self, job_file: Mapping[str, Any], placement: Placement, report: Reporter) -> Mapping[str, Any]:
        """Do the work and return its result, which JSON can hold; files go below ``job_file["run_folder"]``.

        Raises ``AppError`` with a job's error code, or ``TrainingStopped`` soon after ``report.should_stop()``.
        """


class TrainingRunner(JobRunner):
    """Trains, or only forecasts."""

    def carry_out(self, job_file: Mapping[str, Any], placement: Placement, report: Reporter) -> Mapping[str, Any]:
        """See ``JobRunner``."""
        return self.run(TrainerJob.of(job_file, placement), report)

    @abstractmethod
    def run(self, job: TrainerJob, report: Reporter) -> Mapping[str, Any]:
        """Train; leave metrics.json and artifacts/ in the run folder. Of many processes rank 0 alone does.

        Return ``{"metrics": {…}, "template_hash": "…"}``; of a runner that only forecasts, ``{"forecast": {…}}``
        with the fields of ``Forecast``, and nothing is left. Raises ``AppError`` with a job's error code
        (``invalid_data``, ``nan_loss``, ``out_of_memory`` …), or ``TrainingStopped``.
        """

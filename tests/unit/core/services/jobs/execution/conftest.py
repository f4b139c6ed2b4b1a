"""Jobs without processes: a database, and components that do as they are told."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from app.core.entities.datasets import (
    IGNORED,
    Conversation,
    DataLimits,
    DatasetCheck,
    Message,
    PreparedDataset,
    TokenizedRow,
)
from app.core.entities.jobs import FineTuningJob, JobEvent, JobState
from app.core.entities.limits import ProjectLimits
from app.core.entities.models import BaseModelSpec, ModelVersion
from app.core.entities.training_config import TrainingConfig
from app.core.errors import Invalid, Unavailable
from app.core.interfaces.components import ArtifactStore, BaseModelStore, ChatTokenizer, DatasetStore
from app.core.interfaces.job_kinds import JobKind
from app.core.interfaces.operations import TrainerHandle, TrainerLauncher, TrainerOutcome
from app.core.interfaces.storage import NO_LIMITS
from app.core.interfaces.stores import Stores
from app.core.services.jobs.attempt import Pace
from app.core.services.jobs.execution import ExecutionService
from app.core.services.jobs.forecasting import Forecasts
from app.core.services.jobs.training_requests import TrainingRequests
from app.core.services.models.resolver import ModelResolver
from app.implementations.data.library import FolderDatasetLibrary
from app.implementations.data.token_cache import FileTokenCache
from app.implementations.kinds.cuts import JobCuts
from app.implementations.kinds.estimate import EstimateKind
from app.implementations.kinds.train import TrainKind
from app.repositories.datasets import SqlDatasetRepository
from app.repositories.jobs import SqlJobRepository
from tests.databases import Versions

PROJECT = "default"
LEASE = 2.0


def conversation(row: int, answer: str = "yes") -> Conversation:
    messages: list[Message] = [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}]
    return Conversation(row, messages)


def metrics_event(seq: int, **figures: float | None) -> JobEvent:
    data = {"step": seq, "total_steps": 9, **figures}
    return JobEvent(seq, "metrics", "info", f"step {seq}", datetime.now(UTC), data)


class FakeTokenizer(ChatTokenizer):
    """A token a character; the answer is supervised. Of a plain text, it keeps no full stops at the ends."""

    template_text, template_hash, fingerprint = "", "hash", "letters"
    stop_token_ids = ()

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        return [0] * sum(len(message["content"]) for message in messages)

    def encode_training(self, messages: Sequence[Message], max_length: int | None) -> TokenizedRow:
        if messages[-1]["role"] != "assistant":
            raise Invalid("the last message must be the assistant's", code="no_answer")
        prompt = self.encode_prompt(messages[:-1])
        answer = [1] * len(messages[-1]["content"])
        ids, labels = prompt + answer, [IGNORED] * len(prompt) + answer
        return TokenizedRow(0, ids[:max_length], labels[:max_length])

    def encode_text(self, text: str) -> list[int]:
        return [1] * (len(text) + 1)

    def encode_plain(self, text: str, max_length: int | None) -> TokenizedRow:
        ids = ([0] * len(text.strip(".")))[:max_length]
        return TokenizedRow(0, ids, [IGNORED] * len(ids))

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        return ["?"] * len(ids)

    def decode(self, ids: Sequence[int]) -> str:
        return ""

    def split_reasoning(self, text: str) -> tuple[str | None, str]:
        return None, text


class FakeBases(BaseModelStore):
    weights: str | None = "the weights"

    def digest(self, name: str) -> str | None:
        return self.weights

    missing = False

    def specs(self) -> Sequence[BaseModelSpec]:
        return []

    def spec(self, name: str) -> BaseModelSpec:
        return BaseModelSpec(name, "folder", "")

    def folder(self, name: str) -> Path:
        if self.missing:
            raise Unavailable(f"{name} is not here: pull it", code="base_model_missing")
        return Path("/base")

    def present(self, name: str) -> bool:
        return not self.missing

    def pull(self, name: str) -> Path:
        return Path("/base")

    def tokenizer(self, name: str) -> ChatTokenizer:
        return FakeTokenizer()


@dataclass
class FakeDatasets(DatasetStore):
    folder: Path
    train: Sequence[Conversation] = (conversation(1), conversation(2))
    trusted: list[bool] = field(default_factory=list)
    fault: Exception | None = None
    made_of: dict[str, PreparedDataset] = field(default_factory=dict)  # by pipelines

    def check(self, dataset_path: str, *, trusted: bool = False) -> DatasetCheck:
        return DatasetCheck(dataset_path, "digest", len(self.train), ())

    def prepare(self, dataset_path: str, digest: str, seed: int, *, trusted: bool = False) -> PreparedDataset:
        self.trusted.append(trusted)
        if self.fault is not None:
            raise self.fault
        return PreparedDataset(str(self.folder), {"train": len(self.train), "validation": 0, "test": 0})

    def prepare_version(self, digest: str, seed: int) -> PreparedDataset:
        return self.prepare(f"version {digest}", digest, seed)

    def processed(self, digest: str, seed: int, pipeline: Mapping[str, Any]) -> PreparedDataset | None:
        return self.made_of.get(repr((digest, seed, pipeline)))

    def keep_processed(
        self,
        digest: str,
        seed: int,
        pipeline: Mapping[str, Any],
        rows: Iterable[Conversation],
        report: Mapping[str, Any],
    ) -> PreparedDataset:
        self.train = list(rows)
        kept = PreparedDataset(str(self.folder), {"train": len(self.train), "validation": 0, "test": 0}, report)
        return self.made_of.setdefault(repr((digest, seed, pipeline)), kept)

    def rows(self, prepared: PreparedDataset, split: str) -> Sequence[Conversation]:
        return self.train if split == "train" else []


class FakeArtifacts(ArtifactStore):
    def __init__(self) -> None:
        self.kept: set[str] = set()

    def publish(self, version_id: str, source: Path) -> str:
        self.kept.add(version_id)
        return version_id

    def folder(self, version: ModelVersion) -> Path:
        if version.artifacts not in self.kept:
            raise Unavailable("gone: train it again", code="artifacts_missing")
        return Path("/registry") / version.artifacts

    def tokenizer(self, version: ModelVersion) -> ChatTokenizer:
        return FakeTokenizer()

    def discard(self, artifacts: str) -> None:
        self.kept.discard(artifacts)


class FakeTrainer(TrainerLauncher, TrainerHandle):
    """Launcher and handle in one: a test ends it with ``end``, or it ends by being stopped or killed."""

    SUCCESS = TrainerOutcome("succeeded", result={"metrics": {"train_loss": 0.5}, "template_hash": "hash"})

    def __init__(self) -> None:
        self.started = threading.Event()
        self.told = threading.Event()  # to stop
        self.job_file: Mapping[str, Any] = {}
        self.deadlines: list[float] = []
        self.stops = self.kills = 0
        self.deaf = False
        self.left: dict[int, Sequence[JobEvent]] = {}  # by claim, in the run folder
        self.spare: tuple[int, str | None] | None = None  # its threads and GPUs
        self._events: list[JobEvent] = []
        self._ended = threading.Event()
        self._outcome: TrainerOutcome | None = None

    def start(self, job_file: Mapping[str, Any], attempt_folder: Path, deadline: float) -> TrainerHandle:
        assert attempt_folder.is_dir()
        self.job_file = job_file
        self.deadlines.append(deadline)
        self.started.set()
        return self

    def prepare(self, threads: int, gpus: str | None) -> None:
        self.spare = (threads, gpus)

    def dismiss(self) -> None:
        self.spare = None

    def earlier_events(
        self, run_folder: Path, job_id: str, before: int, last_known: Callable[[int], int]
    ) -> Iterator[tuple[int, Sequence[JobEvent]]]:
        for claim, events in sorted(self.left.items()):
            news = [event for event in events if event.seq > last_known(claim)]
            if claim < before and news:
                yield claim, news

    def say(self, *events: JobEvent) -> None:
        self._events.extend(events)

    def end(self, outcome: TrainerOutcome = SUCCESS) -> None:
        self._outcome = self._outcome or outcome
        self._ended.set()

    def wait(self, seconds: float) -> bool:
        return self._ended.wait(seconds)

    def new_events(self) -> Sequence[JobEvent]:
        events, self._events = self._events, []
        return events

    def renew(self, deadline: float) -> None:
        self.deadlines.append(deadline)

    def stop(self) -> None:
        self.stops += 1
        self.told.set()
        if not self.deaf:
            self.end(TrainerOutcome("stopped"))

    def kill(self) -> None:
        self.kills += 1
        self.end(TrainerOutcome("crashed", "trainer_failed", "killed"))

    def outcome(self) -> TrainerOutcome:
        assert self._outcome is not None
        return self._outcome


@dataclass
class House:
    """An ExecutionService and all that it was given."""

    results: Path
    datasets: FakeDatasets
    database: Engine
    bases: FakeBases = field(default_factory=FakeBases)
    artifacts: FakeArtifacts = field(default_factory=FakeArtifacts)
    trainer: FakeTrainer = field(default_factory=FakeTrainer)
    rehearsals: FakeTrainer = field(default_factory=FakeTrainer)
    pipelines: FakeTrainer = field(default_factory=FakeTrainer)
    available: int = 10**10

    def __post_init__(self) -> None:
        self.jobs = SqlJobRepository(self.database)
        self.versions = Versions(self.database)
        stores = Stores(self.versions, self.bases, self.datasets, self.artifacts, FileTokenCache())
        resolver = ModelResolver(self.versions, self.bases, self.artifacts)
        requests = TrainingRequests(stores, resolver, SqlDatasetRepository(self.database), TrainingConfig())
        library = FolderDatasetLibrary(self.results.parent / "data", (), DataLimits())
        cuts = JobCuts(self.datasets, library, self.pipelines, self.work)
        forecasts = Forecasts(
            self.rehearsals, "double-forecast", self.forecasts, lambda device: self.available, threads=1
        )
        self.kinds: list[JobKind] = [
            TrainKind(requests, stores, resolver, cuts, forecasts, self.results, "double"),
            EstimateKind(requests, stores, cuts, forecasts, self.work, "double-forecast"),
        ]
        self.execution = self.worker()

    @property
    def forecasts(self) -> Path:
        return self.results.parent / "forecasts"

    @property
    def work(self) -> Path:
        """Of jobs that do not train."""
        return self.results.parent / "jobs"

    def worker(
        self,
        jobs: SqlJobRepository | None = None,
        lease_seconds: float = LEASE,
        limits: ProjectLimits = NO_LIMITS,
    ) -> ExecutionService:
        return ExecutionService(
            jobs=jobs or self.jobs,
            kinds={kind.name: kind for kind in self.kinds},
            launcher=self.trainer,
            lease_seconds=lease_seconds,
            pace=Pace(poll_seconds=0.05, drain_seconds=3.0, max_attempts=2),
            threads=1,
            queues=None,
            limits=limits,
        )

    def submit(
        self,
        state: JobState = JobState.QUEUED,
        created_by: str | None = "user",
        kind: str = "train",
        **config: Any,
    ) -> str:
        whole = TrainingConfig(experiment_name="support", **config)
        job_id = f"job-{len(self.jobs.list(PROJECT)) + 1}"
        self.jobs.add(
            [
                FineTuningJob(
                    id=job_id,
                    project_id=PROJECT,
                    kind=kind,
                    is_light=kind != "train",
                    name=whole.experiment_name,
                    state=state,
                    base_model=whole.base_model,
                    config=whole.model_dump(mode="json"),
                    dataset_digest="digest",
                    created_by=created_by,
                    created_at=datetime.now(UTC),
                )
            ]
        )
        return job_id

    def job(self, job_id: str) -> FineTuningJob:
        found = self.jobs.get(PROJECT, job_id)
        assert found is not None
        return found


@pytest.fixture
def house(tmp_path: Path, database: Engine) -> House:
    return House(tmp_path / "results", FakeDatasets(tmp_path), database)


@pytest.fixture
def in_background() -> Iterator[Callable[..., threading.Thread]]:
    threads: list[threading.Thread] = []

    def run(target: Callable[..., object], *arguments: object) -> threading.Thread:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        threads.append(thread)
        thread.start()
        return thread

    yield run
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()

"""The web application over in-memory twins, and callers of each role."""

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from app.bootstrap import Settings, load_settings, load_training_config
from app.cli import init_cli
from app.core.entities.answer_stream import AnswerStream
from app.core.entities.data_pipeline import PipelineConfig
from app.core.entities.datasets import DataLimits
from app.core.entities.engines import EngineKind, EngineState, LoadedAdapter
from app.core.entities.identity import DEFAULT_PROJECT_ID, MEMBER_ROLES, Principal, Role, Session, User
from app.core.entities.inference import (
    Adapter,
    Answer,
    AnswerOptions,
    ChatRequest,
    CompletionRequest,
    Piece,
    Prediction,
    TokenCounts,
    TokenLogprob,
)
from app.core.entities.limits import ProjectLimits
from app.core.entities.models import ModelVersion
from app.core.entities.tool_calls import TOOL_FORMATS, ToolCallStream, split_tool_calls
from app.core.errors import Unavailable
from app.core.interfaces.components import ArtifactStore, ChatTokenizer
from app.core.interfaces.operations import EngineAdmin, ExternalIssuer, JobQueue, Wanted
from app.core.interfaces.storage import NO_LIMITS, DatabaseHealth
from app.core.services import Services
from app.core.services.answers.engines import EngineService
from app.core.services.answers.targets import Targets
from app.core.services.answers.usage import UsageService
from app.core.services.data.data_preparation import DataPreparationService
from app.core.services.data.dataset_versions import DatasetVersionService
from app.core.services.data.datasets import DatasetService
from app.core.services.jobs.forecasting import Forecasts
from app.core.services.jobs.training import TrainingService
from app.core.services.jobs.tuning import TuningService
from app.core.services.models.model_management import ModelManagementService
from app.core.services.models.resolver import ModelResolver
from app.core.services.models.served_models import ServedModelService
from app.core.services.operations.monitoring import MonitoringService
from app.core.services.operations.webhook_delivery import WebhookDeliveryService
from app.core.services.operations.webhooks import WebhookService
from app.core.services.people.accounts import AccountService
from app.core.services.people.api_keys import ApiKeyService
from app.core.services.people.audit import AuditService
from app.core.services.people.callers import RecentCallers
from app.core.services.people.idempotency import IdempotencyService
from app.core.services.people.identity import IdentityService
from app.core.services.people.limits import LimitService
from app.core.services.people.projects import ProjectService
from app.implementations.data.inspection import inspect
from app.implementations.data.library import FolderDatasetLibrary
from app.implementations.data.store import FileDatasetStore
from app.implementations.data.token_cache import FileTokenCache
from app.implementations.identity.passwords import Argon2Hasher
from app.implementations.identity.secret_keys import SecretKeys
from app.implementations.identity.tokens import JwtIssuer
from app.implementations.models.base_models import FolderBaseModelStore
from app.implementations.queue.trainer_launcher import ProcessTrainerLauncher
from app.implementations.webhooks.secret_box import FernetBox
from app.implementations.webhooks.sender import HttpWebhookSender
from app.lab.commands import lab
from app.registries import BASE_MODEL_SOURCES, DATA_FORMATS
from app.repositories.memory import (
    MemoryAuditRepository,
    MemoryDatasetRepository,
    MemoryModelVersionRepository,
    MemoryUsageRepository,
)
from app.repositories.memory_idempotency import MemoryIdempotencyRepository
from app.repositories.memory_identity import MemoryKeyRepository, MemorySessionRepository, MemoryUserRepository
from app.repositories.memory_jobs import MemoryJobRepository
from app.repositories.memory_webhooks import MemoryWebhookRepository
from tests.rates import a_minute

QUIET = "version: 1\ndisable_existing_loggers: false\n"
OTHER_PROJECT = "other"
OIDC_ISSUER = "https://login.example.com"
SOUND_ROWS = """[
  {"messages": [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Good day."}]},
  {"messages": [{"role": "user", "content": "Open?"}, {"role": "assistant", "content": "From nine to five."}]}
]"""


class TwinDatabase(DatabaseHealth):
    problem: str | None = None

    def check(self) -> str | None:
        return self.problem


class TwinQueue(JobQueue):
    def __init__(self) -> None:
        self.rung: list[str] = []
        self.problem: str | None = None

    def ring(self, job_id: str, queue: str) -> None:
        self.rung.append(job_id)

    def check(self) -> str | None:
        return self.problem


class TwinEngines:
    def resident(self) -> Sequence[str]:
        return ["smollm2-135m-instruct"]


class TwinEngineAdmin(EngineAdmin):
    """Holds what it is told to; ``away`` names bases whose engine does not answer."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, LoadedAdapter]] = {"tiny-random": {}, "smollm2-135m-instruct": {}}
        self.away: set[str] = set()

    def states(self) -> Sequence[EngineState]:
        return [
            EngineState(base)
            if base in self.away
            else EngineState(base, self.kind(base), 256, list(self.held[base].values()))
            for base in self.held
        ]

    def kind(self, base_model: str) -> EngineKind:
        return EngineKind.OURS

    def load(self, base_model: str, adapter: Adapter) -> None:
        self._check(base_model)
        self.held[base_model][adapter.name] = LoadedAdapter(adapter.name, 100, adapter.pinned)

    def unload(self, base_model: str, name: str) -> bool:
        self._check(base_model)
        return self.held[base_model].pop(name, None) is not None

    def _check(self, base_model: str) -> None:
        if base_model in self.away:
            raise Unavailable("away", code="engine_unavailable")


class TwinArtifacts(ArtifactStore):
    """Every version's are there."""

    def publish(self, version_id: str, source: Path) -> str:
        return version_id

    def folder(self, version: ModelVersion) -> Path:
        return Path("/registry") / version.artifacts

    def tokenizer(self, version: ModelVersion) -> ChatTokenizer:
        return cast("Any", None)

    def discard(self, artifacts: str) -> None:
        pass


class TwinInference:
    """Says back what it was asked, or raises what it was told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.error: Exception | None = None
        self.failure: BaseException | None = None  # of a stream, on the way
        self.ended = 0  # streams
        self.stream_ended = threading.Event()
        self.reasoning: str | None = None
        self.streams: str | None = None  # instead of what was asked

    def predict(
        self,
        principal: Principal,
        texts: Sequence[str],
        options: AnswerOptions,
        model: str | None = None,
        is_wanted: Wanted | None = None,
    ) -> Sequence[Prediction]:
        self.asked.append((principal.project_id, list(texts), options, model))
        if self.error:
            raise self.error
        return [self._said_back(text, options, model) for text in texts]

    def chat(self, principal: Principal, request: ChatRequest, is_wanted: Wanted | None) -> Prediction:
        self.asked.append((principal.project_id, request))
        if self.error:
            raise self.error
        if is_wanted and not is_wanted():
            raise Unavailable("nobody waits for the answer", code="client_gone")
        said = self._said_back(request.messages[-1]["content"], request.options, request.model)
        if not (request.tools and self.streams):
            return said
        text, calls = split_tool_calls(self.streams, self._read_calls(request))
        reason = "tool_calls" if calls else "stop"
        answers = [replace(said.first, text=text, tool_calls=calls, finish_reason=reason)]
        return replace(said, answers=answers)

    def _read_calls(self, request: ChatRequest) -> ToolCallStream:
        return ToolCallStream(TOOL_FORMATS[0], {tool["function"]["name"] for tool in request.tools})

    def stream(self, principal: Principal, request: ChatRequest, is_wanted: Wanted | None = None) -> AnswerStream:
        self.asked.append((principal.project_id, request))
        if self.error:
            raise self.error
        said = self._said_back(request.messages[-1]["content"], request.options, request.model)
        reads = partial(self._read_calls, request) if request.tools else None
        return AnswerStream(said.model, False, self._pieces(said), reads)

    def complete(
        self, principal: Principal, request: CompletionRequest, is_wanted: Wanted | None = None
    ) -> Sequence[Prediction]:
        self.asked.append((principal.project_id, request))
        if self.error:
            raise self.error
        return [
            self._said_back(
                text if isinstance(text, str) else "".join(map(chr, text)), request.options, request.model
            )
            for text in request.prompts
        ]

    def stream_completion(
        self, principal: Principal, request: CompletionRequest, is_wanted: Wanted | None = None
    ) -> AnswerStream:
        [said] = self.complete(principal, request)
        return AnswerStream(said.model, None, self._pieces(said))

    def _said_back(self, text: str, options: AnswerOptions, model: str | None) -> Prediction:
        logprobs = None if options.logprobs is None else (TokenLogprob("a", -0.5, {"a": -0.5}),)
        answers = [Answer(text[::-1], self.reasoning, "stop", logprobs)] * options.n
        return Prediction(answers, model or "smollm2-135m-instruct", TokenCounts(len(text), len(text)))

    def _pieces(self, said: Prediction) -> Generator[Piece]:
        """A letter each. ``failure`` comes after the first."""
        try:
            for choice, answer in enumerate(said.answers):
                thoughts = f"<think>{answer.reasoning}</think>" if answer.reasoning else ""
                for letter in self.streams or thoughts + answer.text:
                    yield Piece(letter, answer.logprobs or (), choice=choice)
                    if self.failure:
                        raise self.failure
                yield Piece(finish_reason="stop", choice=choice)
            yield Piece(tokens=said.tokens)
        finally:
            self.ended += 1
            self.stream_ended.set()


@dataclass
class Twins:
    """What stands behind the services, for tests to fill and to look into."""

    users: MemoryUserRepository = field(
        default_factory=lambda: MemoryUserRepository([DEFAULT_PROJECT_ID, OTHER_PROJECT])
    )
    keys: MemoryKeyRepository = field(default_factory=MemoryKeyRepository)
    sessions: MemorySessionRepository = field(default_factory=MemorySessionRepository)
    versions: MemoryModelVersionRepository = field(default_factory=MemoryModelVersionRepository)
    datasets: MemoryDatasetRepository = field(default_factory=MemoryDatasetRepository)
    kept_requests: MemoryIdempotencyRepository = field(default_factory=MemoryIdempotencyRepository)
    usage: MemoryUsageRepository = field(default_factory=MemoryUsageRepository)
    webhooks: MemoryWebhookRepository = field(default_factory=MemoryWebhookRepository)
    audit: MemoryAuditRepository = field(default_factory=MemoryAuditRepository)
    database: TwinDatabase = field(default_factory=TwinDatabase)
    queue: TwinQueue = field(default_factory=TwinQueue)
    engines: TwinEngineAdmin = field(default_factory=TwinEngineAdmin)
    inference: TwinInference = field(default_factory=TwinInference)

    def __post_init__(self) -> None:
        self.jobs = MemoryJobRepository(self.versions, self.datasets, [DEFAULT_PROJECT_ID, OTHER_PROJECT])

    def job_count(self) -> int:
        return sum(self.jobs.count_by_state().values())


@pytest.fixture
def twins() -> Twins:
    return Twins()


@pytest.fixture
def tokens(settings: Settings) -> JwtIssuer:
    return JwtIssuer(SecretKeys(None, settings.instance_dir / "secret_key"))


@pytest.fixture
def quiet_settings(settings: Settings, tmp_path: Path) -> Settings:
    """Logs nowhere: pytest's own handlers see the records. ``data/raw/sound.json`` can be trained on."""
    quiet = tmp_path / "logging.yaml"
    quiet.write_text(QUIET)
    raw = settings.data_dir / "raw"
    raw.mkdir()
    (raw / "sound.json").write_text(SOUND_ROWS)
    return settings.model_copy(update={"logging_file": quiet})


@pytest.fixture
def external() -> ExternalIssuer | None:
    return None


@pytest.fixture
def services(
    quiet_settings: Settings, twins: Twins, tokens: JwtIssuer, external: ExternalIssuer | None
) -> Services:
    """Everything that HTTP and the command line reach, with the real stores of files."""
    settings = quiet_settings
    bases = FolderBaseModelStore(settings.base_models_file, settings.models_dir / "base", BASE_MODEL_SOURCES)
    formats = [DATA_FORMATS.create(name) for name in DATA_FORMATS.names()]
    datasets = FileDatasetStore(settings.data_dir, formats, settings.max_body_bytes)
    defaults = load_training_config(settings.train_config_file, base_model="tiny-random")
    unused = cast("Any", None)
    forecasts = Forecasts(
        ProcessTrainerLauncher("double-forecast"), settings.instance_dir / "forecasts", lambda device: 10**9, 1
    )
    files = DatasetService(datasets, bases)
    box = FernetBox(None, settings.instance_dir / "encryption_key")
    sender = HttpWebhookSender(settings.webhook_allowed_networks)
    callers, passwords = RecentCallers(), Argon2Hasher()
    limits = LimitService(twins.jobs, ProjectLimits(None, settings.project_max_queued))
    rates = a_minute(limits=limits)
    dataset_versions = DatasetVersionService(
        twins.datasets,
        FolderDatasetLibrary(settings.data_dir, formats, DataLimits()),
        NO_LIMITS,
        settings.max_body_bytes,
    )
    redirects = {"gpt-4o-mini": "support", "acme/old": "smollm2-135m-instruct"}
    resolver = ModelResolver(twins.versions, bases, TwinArtifacts(), redirects)
    training = TrainingService(
        twins.jobs,
        resolver,
        datasets,
        bases,
        FileTokenCache(),
        twins.queue,
        defaults,
        forecasts,
        twins.datasets,
        settings.queues,
        ProjectLimits(None, settings.project_max_queued),
    )
    return Services(
        identity=IdentityService(
            twins.users,
            twins.keys,
            twins.sessions,
            passwords,
            tokens,
            callers,
            rates,
            settings.token_seconds,
            settings.session_seconds,
            external,
        ),
        accounts=AccountService(twins.users, twins.sessions, twins.keys, passwords, callers, rates, OIDC_ISSUER),
        projects=ProjectService(twins.users, twins.keys, callers),
        api_keys=ApiKeyService(twins.keys, twins.users, callers, tokens),
        datasets=files,
        training=training,
        tuning=TuningService(training, dataset_versions, resolver, twins.versions, settings.results_dir),
        dataset_versions=dataset_versions,
        data_preparation=DataPreparationService(dataset_versions, files, bases, inspect, PipelineConfig()),
        execution=unused,
        models=ModelManagementService(twins.versions, resolver, bases, TwinArtifacts(), twins.engines),
        served_models=ServedModelService(twins.versions, cast("Any", TwinEngines()), resolver),
        inference=cast("Any", twins.inference),
        engines=EngineService(twins.versions, resolver, Targets(resolver, bases, TwinArtifacts()), twins.engines),
        usage=UsageService(twins.usage),
        webhooks=WebhookService(twins.webhooks, sender, box),
        webhook_delivery=WebhookDeliveryService(twins.webhooks, sender, box),
        limits=limits,
        rates=rates,
        idempotency=IdempotencyService(twins.kept_requests, settings.idempotency_seconds),
        audit=AuditService(twins.audit),
        evaluation=unused,
        monitoring=MonitoringService(twins.database, twins.queue, cast("Any", TwinEngines()), twins.jobs),
    )


@pytest.fixture(scope="session")
def shared_app(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    """One for all tests: to document its routes costs a tenth of a second."""
    quiet = tmp_path_factory.mktemp("app") / "logging.yaml"
    quiet.write_text(QUIET)
    app = create_app(load_settings(logging_file=quiet), cast("Any", object()))
    init_cli(app)
    app.cli.add_command(lab)
    return app


@pytest.fixture
def app(shared_app: Flask, services: Services, quiet_settings: Settings) -> Iterator[Flask]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(shared_app.extensions, "services", services)
        patch.setitem(shared_app.extensions, "settings", quiet_settings)
        yield shared_app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def bearer(twins: Twins, tokens: JwtIssuer) -> Callable[..., dict[str, str]]:
    """The header of a new member of a project, or of an operator, without the cost of a password."""

    def make(role: Role = Role.OPERATOR, project: str = DEFAULT_PROJECT_ID) -> dict[str, str]:
        number, now = len(twins.users.list()), datetime.now(UTC)
        is_operator = role is Role.OPERATOR
        user = User(f"user-{number}", f"user{number}", "no password", now, is_operator=is_operator)
        twins.users.add(user, project, role if role in MEMBER_ROLES else Role.ADMIN)
        session = Session(f"session-{number}", user.id, project, f"h{number}", "s", now, now + timedelta(hours=1))
        twins.sessions.add(session)
        claims = {"sub": user.id, "project": project, "sid": session.id}
        return {"Authorization": f"Bearer {tokens.issue(claims, 600)}"}

    return make


@pytest.fixture
def caller(client: FlaskClient, bearer: Callable[..., dict[str, str]]) -> Callable[..., Any]:
    """``caller(method, path, …)`` as an operator in the default project."""
    headers = bearer()

    def call(method: str, path: str, **arguments: Any) -> Any:
        return client.open(path, method=method, headers={**headers, **arguments.pop("headers", {})}, **arguments)

    return call

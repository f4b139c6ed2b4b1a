"""The composition root: the only place where settings meet the classes that implement the interfaces.

A class is imported in the function that builds it, so that a process loads only what it uses: the web process
never loads torch. Names that users choose stand in app.registries.
"""

from __future__ import annotations

import logging.config
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from app.config_files import load_pipeline_config, load_training_config, read_strategy_options
from app.core.entities.datasets import DataLimits
from app.core.entities.limits import ProjectLimits
from app.core.entities.training_config import TrainingConfig
from app.core.errors import AppError
from app.core.factories import DATA_FORMATS
from app.core.interfaces.components import BaseModelStore, JobRunner, TextGenerator, TrainingRunner
from app.core.interfaces.job_kinds import JobKind
from app.core.interfaces.stores import People, Stores
from app.core.services import Services
from app.registries import BASE_MODEL_SOURCES, RUNNERS
from config.config import CONFIG_DIR, Settings, SettingsError, read_settings

if TYPE_CHECKING:
    from celery import Celery
    from flask import Flask
    from pydantic import SecretStr
    from sqlalchemy.engine import Engine

    from app.core.interfaces.components import ArtifactStore, DataFormat
    from app.core.interfaces.operations import (
        EngineAdmin,
        EngineClient,
        ExternalIssuer,
        JobQueue,
        TokenIssuer,
        TrainerLauncher,
    )
    from app.core.interfaces.storage import DatabaseHealth
    from app.core.services.people.limits import LimitService
    from app.core.services.people.rates import RateService

__all__ = [
    "Overrides",
    "Settings",
    "SettingsError",
    "build_base_models",
    "build_celery",
    "build_services",
    "build_stores",
    "configure_logging",
    "load_pipeline_config",
    "load_settings",
    "load_training_config",
    "one_line",
    "prepare_instance",
    "write_histogram",
]


def load_settings(**overrides: Any) -> Settings:
    """Read settings; ``SettingsError`` names every faulty key."""
    return read_settings(**overrides)


def configure_logging(settings: Settings) -> None:
    """By ``settings.logging_file``, with ``settings.log_level`` at the root."""
    try:
        scheme = yaml.safe_load(settings.logging_file.read_text("utf-8"))
        scheme.setdefault("root", {})["level"] = settings.log_level
        logging.config.dictConfig(scheme)
    except (OSError, yaml.YAMLError, AttributeError, TypeError, ValueError) as error:
        raise SettingsError(f"configuration: logging_file: {error}") from None


def one_line(error: Exception) -> str:
    """What a command says on standard error: the message, and the first faults."""
    faults = error.faults if isinstance(error, AppError) else ()
    shown = "; ".join(f"{fault.where}: {fault.message}" for fault in faults[:10])
    more = f" (and {len(faults) - 10} more)" if len(faults) > 10 else ""
    return " ".join(f"{error}: {shown}{more}".split()) if shown else " ".join(str(error).split())


def prepare_instance(app: Flask) -> str | None:
    """Before a server or a foreground run: the instance folder, the schema of an empty database, a first user.

    Call it in one process, once. The answer is the password of ``admin`` if a random one had to be made: print
    it. ``SettingsError`` with the command that mends it for an old schema.
    """
    from contextlib import suppress

    from sqlalchemy.exc import OperationalError

    from app.extensions import db
    from app.repositories.database import migrate_empty

    settings: Settings = app.extensions["settings"]
    services: Services = app.extensions["services"]
    settings.instance_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings.instance_dir.chmod(0o700)
    with app.app_context():
        with suppress(OperationalError):  # out of reach: the next line says so
            migrate_empty(db.engine)
        if problem := services.monitoring.database_problem():
            raise SettingsError(problem)
        password = settings.admin_password
        return services.accounts.ensure_admin(password.get_secret_value() if password else None)


def write_histogram(target: Path, lengths: Sequence[int], unit: str, percentiles: Mapping[int, int]) -> None:
    """A PNG of how long rows are."""
    from app.implementations.data.histogram import histogram_png
    from app.utils.files import write_whole

    write_whole(target, histogram_png(lengths, unit, percentiles))


@dataclass(frozen=True, slots=True)
class Overrides:
    """Parts that a test puts in the place of those that the settings name."""

    queue: JobQueue | None = None
    engines: EngineClient | None = None
    engine_admin: EngineAdmin | None = None
    artifacts: ArtifactStore | None = None
    external: ExternalIssuer | None = None
    launcher: TrainerLauncher | None = None
    database: DatabaseHealth | None = None
    available_bytes: Callable[[str], int] | None = None
    kinds: Sequence[JobKind] = ()  # beside the service's own


def build_base_models(settings: Settings) -> BaseModelStore:
    from app.implementations.models.base_models import FolderBaseModelStore

    return FolderBaseModelStore(
        catalogue=settings.base_models_file, folder=settings.models_dir / "base", sources=BASE_MODEL_SOURCES
    )


def build_stores(settings: Settings, engine: Engine, artifacts: ArtifactStore | None = None) -> Stores:
    """Build what most services share: the versions' rows, and the folders of this host."""
    from app.implementations.data.store import FileDatasetStore
    from app.implementations.data.token_cache import FileTokenCache
    from app.implementations.registry.artifacts import FolderArtifactStore
    from app.repositories.model_versions import SqlModelVersionRepository

    return Stores(
        versions=SqlModelVersionRepository(engine),
        bases=build_base_models(settings),
        datasets=FileDatasetStore(
            settings.data_dir, _formats(), max_bytes=settings.max_body_bytes, limits=_data_limits(settings)
        ),
        artifacts=artifacts or FolderArtifactStore(settings.models_dir / "registry"),
        tokens=FileTokenCache(),
    )


def _formats() -> Sequence[DataFormat]:
    return [DATA_FORMATS.create(name) for name in DATA_FORMATS.names()]


def _data_limits(settings: Settings) -> DataLimits:
    return DataLimits(
        rows=settings.data_max_rows,
        bytes=settings.data_max_bytes,
        row_bytes=settings.data_max_row_bytes,
        turns=settings.data_max_turns,
        depth=settings.data_max_depth,
    )


def build_runner(name: str) -> JobRunner:
    """Build what works in a child process: a trainer by its name, or the runner of another kind by its place.

    A place is ``module:Class``; it comes from a job file, which a worker has written of the kinds that it knows.
    """
    if ":" not in name:
        return build_trainer(name)
    module, _, called = name.partition(":")
    runner: JobRunner = getattr(import_module(module), called)()
    return runner


def build_trainer(name: str) -> TrainingRunner:
    """Build what trains, or only forecasts."""
    if name.startswith("double"):
        return RUNNERS.create(name)
    return RUNNERS.create(
        name,
        only_forecast=name.endswith("-forecast"),
        strategy_options=load_strategy_options,
    )


def prepare_runner(name: str, base_model_folder: Path | None) -> None:
    """What a runner does before its job is known."""
    runner: Any = RUNNERS.load(name)
    runner.prepare(base_model_folder)


def load_strategy_options(config: TrainingConfig) -> Mapping[str, Any]:
    """The strategy's own file under config/; ``Invalid`` where it is no mapping of keys."""
    return read_strategy_options(CONFIG_DIR, config)


def build_celery(settings: Settings) -> Celery:
    """The Celery app that workers consume with: the one that the queue sends with."""
    from app.implementations.queue.broker import celery_app

    return celery_app(settings.redis_url, settings.instance_dir, settings.worker_queues or settings.queues)


def build_services(
    settings: Settings, engine: Engine, *, inline: bool = False, overrides: Overrides | None = None
) -> Services:
    """Wire everything. ``inline`` is the foreground: jobs wait for no worker."""
    from app.core.services.answers.engines import EngineService
    from app.core.services.answers.inference import InferenceService
    from app.core.services.answers.targets import Targets
    from app.core.services.answers.usage import UsageService
    from app.core.services.data.data_preparation import DataPreparationService
    from app.core.services.data.dataset_versions import DatasetVersionService
    from app.core.services.data.datasets import DatasetService
    from app.core.services.jobs.attempt import Pace
    from app.core.services.jobs.execution import ExecutionService
    from app.core.services.jobs.forecasting import Forecasts
    from app.core.services.jobs.job_records import JobRecords
    from app.core.services.jobs.job_service import JobService
    from app.core.services.jobs.training import TrainingService
    from app.core.services.jobs.training_requests import TrainingRequests
    from app.core.services.jobs.tuning import TuningService
    from app.core.services.models.evaluation import EvaluationService
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
    from app.implementations.evaluation.facts import states_fact
    from app.implementations.identity.passwords import Argon2Hasher
    from app.implementations.kinds.cuts import JobCuts
    from app.implementations.kinds.estimate import EstimateKind
    from app.implementations.kinds.evaluate import EvaluateKind
    from app.implementations.kinds.inspect import InspectKind
    from app.implementations.kinds.process import ProcessKind
    from app.implementations.kinds.train import TrainKind
    from app.implementations.models.host_memory import available_bytes
    from app.implementations.monitoring.usage_log import BatchedUsageLog
    from app.implementations.queue.trainer_launcher import ProcessTrainerLauncher
    from app.implementations.serving.engine_admin import HttpEngineAdmin
    from app.implementations.serving.engine_client import HttpEngineClient
    from app.implementations.serving.places import EnginePlaces
    from app.implementations.webhooks.secret_box import FernetBox
    from app.implementations.webhooks.sender import HttpWebhookSender
    from app.repositories.api_keys import SqlKeyRepository
    from app.repositories.audit import SqlAuditRepository
    from app.repositories.database import SqlDatabaseHealth
    from app.repositories.datasets import SqlDatasetRepository
    from app.repositories.idempotency import SqlIdempotencyRepository
    from app.repositories.jobs import SqlJobRepository
    from app.repositories.sessions import SqlSessionRepository
    from app.repositories.usage import SqlUsageRepository
    from app.repositories.users import SqlUserRepository
    from app.repositories.webhooks import SqlWebhookRepository

    given = overrides or Overrides()
    stores = build_stores(settings, engine, given.artifacts)
    versions, bases, datasets, artifacts = stores.versions, stores.bases, stores.datasets, stores.artifacts
    jobs, kept_datasets = SqlJobRepository(engine), SqlDatasetRepository(engine)
    webhooks, usage = SqlWebhookRepository(engine), SqlUsageRepository(engine)
    people = People(SqlUserRepository(engine), SqlKeyRepository(engine), SqlSessionRepository(engine))

    places = EnginePlaces(settings.engines, _secret(settings.engine_secret), settings.instance_dir)
    engines = given.engines or HttpEngineClient(places, settings.engine_timeout)
    engine_admin = given.engine_admin or HttpEngineAdmin(places, settings.engine_timeout)
    resolver = ModelResolver(versions, bases, artifacts, settings.model_redirects)
    targets = Targets(resolver, bases, artifacts, engine_admin.kind, keep_seconds=0.5)

    limits = _project_limits(settings)
    limit_service = LimitService(jobs, limits)
    rates = _rates(settings, limit_service)
    tokens, passwords, callers = _token_issuer(settings), Argon2Hasher(), RecentCallers()
    box = FernetBox(_secret(settings.encryption_key), settings.instance_dir / "encryption_key")
    sender = HttpWebhookSender(settings.webhook_allowed_networks)

    library = FolderDatasetLibrary(settings.data_dir, _formats(), _data_limits(settings))
    files = DatasetService(datasets=datasets, bases=bases)
    dataset_versions = DatasetVersionService(kept_datasets, library, limits, settings.max_body_bytes)

    queue = given.queue or _queue(settings, inline)
    defaults = load_training_config(settings.train_config_file)
    if settings.default_base_model:
        defaults = defaults.with_changes(base_model=settings.default_base_model)
    trainer_threads = settings.cores if inline else settings.trainer_threads
    launcher = given.launcher or ProcessTrainerLauncher(settings.trainer if settings.spare_trainers else None)
    helpers = given.launcher or ProcessTrainerLauncher()  # rehearsals and pipelines do not end a slot's spare
    pipeline_defaults = load_pipeline_config(CONFIG_DIR / "data_pipeline.yaml")
    forecasts = Forecasts(
        launcher=helpers,
        runner=f"{settings.trainer}-forecast",
        folder=settings.instance_dir / "forecasts",
        available=given.available_bytes or available_bytes,
        threads=trainer_threads,
    )
    work = settings.instance_dir / "jobs"
    requests = TrainingRequests(stores, resolver, kept_datasets, defaults)
    cuts = JobCuts(datasets, library, helpers, work)
    # A new kind of job is one file, and one line here.
    kinds: Sequence[JobKind] = [
        TrainKind(requests, stores, resolver, cuts, forecasts, settings.results_dir, settings.trainer),
        EstimateKind(requests, stores, cuts, forecasts, work, f"{settings.trainer}-forecast"),
        ProcessKind(dataset_versions, library, pipeline_defaults, work),
        InspectKind(dataset_versions, library, bases, pipeline_defaults, work),
        EvaluateKind(resolver, dataset_versions, datasets, work, settings.results_dir / "evaluations"),
        *given.kinds,
    ]
    by_name = {kind.name: kind for kind in kinds}
    records = JobRecords(jobs)
    job_service = JobService(jobs, records, by_name, queue, settings.queues, limits)
    training = TrainingService(requests, job_service, jobs)
    published = ModelManagementService(stores, resolver, engine_admin)
    return Services(
        identity=IdentityService(
            people,
            passwords,
            tokens,
            callers,
            rates,
            token_seconds=settings.token_seconds,
            session_seconds=settings.session_seconds,
            external=given.external or _external_issuer(settings),
            project_claim=settings.oidc_project_claim,
        ),
        accounts=AccountService(people, passwords, callers, rates, settings.oidc_issuer),
        projects=ProjectService(people.users, people.keys, callers),
        api_keys=ApiKeyService(people.keys, people.users, callers, tokens),
        datasets=files,
        dataset_versions=dataset_versions,
        dataset_changes=dataset_versions,
        data_preparation=DataPreparationService(
            versions=dataset_versions,
            files=files,
            bases=bases,
            inspect=inspect,
            defaults=pipeline_defaults,
        ),
        training=training,
        jobs=job_service,
        job_records=records,
        tuning=TuningService(training, records, dataset_versions, resolver, versions, settings.results_dir),
        execution=ExecutionService(
            jobs=jobs,
            kinds=by_name,
            launcher=launcher,
            lease_seconds=settings.lease_seconds,
            pace=Pace(settings.poll_seconds, settings.drain_seconds, settings.max_attempts),
            threads=trainer_threads,
            queues=settings.worker_queues,
            limits=limits,
        ),
        models=published,
        model_aliases=published,
        served_models=ServedModelService(versions, engines, resolver),
        inference=InferenceService(targets, engines, BatchedUsageLog(usage), rates),
        engines=EngineService(versions, resolver, targets, engine_admin),
        usage=UsageService(usage),
        webhooks=WebhookService(webhooks, sender, box, list(by_name)),
        webhook_delivery=WebhookDeliveryService(webhooks, sender, box),
        limits=limit_service,
        rates=rates,
        idempotency=IdempotencyService(SqlIdempotencyRepository(engine), settings.idempotency_seconds),
        audit=AuditService(SqlAuditRepository(engine)),
        evaluation=EvaluationService(
            resolver, stores, _text_generator, states_fact, settings.results_dir, settings.cores
        ),
        monitoring=MonitoringService(given.database or SqlDatabaseHealth(engine), queue, engines, jobs),
    )


def _secret(value: SecretStr | None) -> str | None:
    return value.get_secret_value() if value else None


def _text_generator(**arguments: Any) -> TextGenerator:
    from app.implementations.evaluation.generation import BatchGenerator

    return BatchGenerator(**arguments)


def _queue(settings: Settings, inline: bool) -> JobQueue:
    if inline:
        from app.implementations.queue.inline import InlineQueue

        return InlineQueue()
    from app.implementations.queue.celery_queue import CeleryQueue

    return CeleryQueue(settings.redis_url, settings.instance_dir, settings.queues)


def _project_limits(settings: Settings) -> ProjectLimits:
    """Of a project for which an operator has set none."""
    return ProjectLimits(
        running=settings.project_max_running,
        queued=settings.project_max_queued,
        requests=settings.project_max_requests,
        tokens=settings.project_max_tokens,
        storage_bytes=settings.project_max_bytes,
        versions=settings.project_max_versions,
    )


def _rates(settings: Settings, limits: LimitService) -> RateService:
    from app.core.services.people.rates import RateService, ServiceRates
    from app.implementations.limits.counter import WindowCounter, read_rates

    rates = ServiceRates(
        requests=read_rates(settings.rate_limit, "requests"),
        tokens=read_rates(settings.token_rate_limit, "tokens"),
        log_ins=read_rates(settings.login_rate_limit, "login"),
        attempts=read_rates(settings.login_account_rate_limit, "account"),
    )
    return RateService(WindowCounter(settings.redis_url), limits, rates)


def _external_issuer(settings: Settings) -> ExternalIssuer | None:
    if settings.oidc_issuer is None or settings.oidc_audience is None:  # settings have both, or neither
        return None
    from app.implementations.identity.external_issuer import OidcIssuer

    return OidcIssuer(settings.oidc_issuer, settings.oidc_audience)


def _token_issuer(settings: Settings) -> TokenIssuer:
    from app.implementations.identity.tokens import JwtIssuer

    if settings.signing_key_file is not None:
        from app.implementations.identity.pem_keys import PemKeys

        return JwtIssuer(
            PemKeys(settings.signing_algorithm, settings.signing_key_file, settings.old_public_key_files)
        )
    from app.implementations.identity.secret_keys import SecretKeys

    old_keys = [key.get_secret_value() for key in settings.old_secret_keys]
    return JwtIssuer(SecretKeys(_secret(settings.secret_key), settings.instance_dir / "secret_key", old_keys))

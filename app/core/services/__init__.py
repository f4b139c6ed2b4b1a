"""What the application can do. Each service decides and delegates; components work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.core.services.answers.engines import EngineService
    from app.core.services.answers.inference import InferenceService
    from app.core.services.answers.usage import UsageService
    from app.core.services.data.data_preparation import DataPreparationService
    from app.core.services.data.dataset_versions import DatasetVersionService
    from app.core.services.data.datasets import DatasetService
    from app.core.services.jobs.execution import ExecutionService
    from app.core.services.jobs.job_records import JobRecords
    from app.core.services.jobs.job_service import JobService
    from app.core.services.jobs.training import TrainingService
    from app.core.services.jobs.tuning import TuningService
    from app.core.services.models.evaluation import EvaluationService
    from app.core.services.models.model_management import ModelManagementService
    from app.core.services.models.served_models import ServedModelService
    from app.core.services.operations.monitoring import MonitoringService
    from app.core.services.operations.webhook_delivery import WebhookDeliveryService
    from app.core.services.operations.webhooks import WebhookService
    from app.core.services.people.accounts import AccountService
    from app.core.services.people.api_keys import ApiKeyService
    from app.core.services.people.audit import AuditService
    from app.core.services.people.idempotency import IdempotencyService
    from app.core.services.people.identity import IdentityService
    from app.core.services.people.limits import LimitService
    from app.core.services.people.projects import ProjectService
    from app.core.services.people.rates import RateService


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
    jobs: JobService
    job_records: JobRecords
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

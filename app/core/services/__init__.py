"""What the application can do. Each service decides and delegates; components work."""

from dataclasses import dataclass

from app.core.interfaces.services.answers import Engines, Inference, UsageReports
from app.core.interfaces.services.data import DataPreparation, DatasetEditor, DatasetFiles, DatasetReader
from app.core.interfaces.services.jobs import Execution, JobReader, Jobs, Training, Tuning
from app.core.interfaces.services.models import Evaluation, ModelAliases, ModelManagement, ServedModels
from app.core.interfaces.services.operations import Monitoring, WebhookDelivery, Webhooks
from app.core.interfaces.services.people import (
    Accounts,
    ApiKeys,
    Audit,
    Idempotency,
    Identity,
    Limits,
    Projects,
    Rates,
)


@dataclass(frozen=True, slots=True)
class Services:
    """All of them, built by ``bootstrap.build_services``."""

    identity: Identity
    accounts: Accounts
    projects: Projects
    api_keys: ApiKeys
    datasets: DatasetFiles
    dataset_versions: DatasetReader
    dataset_changes: DatasetEditor
    data_preparation: DataPreparation
    jobs: Jobs
    job_records: JobReader
    training: Training
    tuning: Tuning
    execution: Execution
    models: ModelManagement
    model_aliases: ModelAliases
    served_models: ServedModels
    inference: Inference
    engines: Engines
    usage: UsageReports
    webhooks: Webhooks
    webhook_delivery: WebhookDelivery
    limits: Limits
    rates: Rates
    idempotency: Idempotency
    audit: Audit
    evaluation: Evaluation
    monitoring: Monitoring

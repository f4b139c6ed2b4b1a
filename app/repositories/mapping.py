"""Rows to entities and back."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from app.core.entities.api_keys import ApiKey
from app.core.entities.audit import AuditEntry
from app.core.entities.dataset_versions import Dataset, DatasetVersion
from app.core.entities.identity import Scope, Session, User
from app.core.entities.jobs import FineTuningJob, JobError, JobEvent, JobState, Progress
from app.core.entities.models import ModelAlias, ModelVersion
from app.core.entities.usage import Usage
from app.core.entities.webhooks import Delivery, Webhook
from app.core.errors import Fault
from app.repositories.tables import (
    ApiKeyRow,
    AuditRow,
    DatasetRow,
    DatasetVersionRow,
    JobEventRow,
    JobRow,
    ModelAliasRow,
    ModelVersionRow,
    SessionRow,
    UserRow,
    WebhookDeliveryRow,
    WebhookRow,
)


def job_row(job: FineTuningJob) -> JobRow:
    values = _values(job)
    values["after"], values["made"] = list(job.after), list(job.made)
    values["progress"] = asdict(job.progress)
    values["error"] = None if job.error is None else error_json(job.error)
    return JobRow(**values)


def job_entity(row: JobRow) -> FineTuningJob:
    values = _columns(FineTuningJob, row)
    values["state"] = JobState(row.state)
    values["progress"] = Progress(**row.progress)
    values["error"] = None if row.error is None else _error(row.error)
    return FineTuningJob(**values)


def event_row(event: JobEvent, job: JobRow, fence: int, number: int) -> JobEventRow:
    return JobEventRow(job_id=job.id, project_id=job.project_id, fence=fence, number=number, **_values(event))


def event_entity(row: JobEventRow) -> JobEvent:
    """Numbered over the job's life: its ``seq`` is the row's ``number``."""
    return JobEvent(**{**_columns(JobEvent, row), "seq": row.number})


def version_row(version: ModelVersion) -> ModelVersionRow:
    return ModelVersionRow(**_values(version))


def version_entity(row: ModelVersionRow) -> ModelVersion:
    return ModelVersion(**_columns(ModelVersion, row))


def alias_rows(alias: ModelAlias) -> list[ModelAliasRow]:
    """One for each version that it carries."""
    same = {name: value for name, value in _values(alias).items() if name != "weights"}
    return [ModelAliasRow(**same, number=number, weight=weight) for number, weight in alias.weights.items()]


def alias_entity(rows: Sequence[ModelAliasRow]) -> ModelAlias:
    first = rows[0]
    weights = {row.number: row.weight for row in rows}
    return ModelAlias(first.project_id, first.model, first.alias, weights, first.set_by, first.set_at)


def dataset_row(dataset: Dataset) -> DatasetRow:
    return DatasetRow(**_values(dataset))


def dataset_entity(row: DatasetRow) -> Dataset:
    return Dataset(**_columns(Dataset, row))


def dataset_version_row(version: DatasetVersion) -> DatasetVersionRow:
    return DatasetVersionRow(**_values(version))


def dataset_version_entity(row: DatasetVersionRow) -> DatasetVersion:
    return DatasetVersion(**_columns(DatasetVersion, row))


def usage_values(usage: Usage) -> dict[str, Any]:
    """For an insert of many."""
    return {**_values(usage), "day": usage.day}


def audit_row(entry: AuditEntry) -> AuditRow:
    values = _values(entry)
    del values["number"]  # the database counts
    return AuditRow(**values)


def audit_entity(row: AuditRow) -> AuditEntry:
    return AuditEntry(**_columns(AuditEntry, row))


def user_row(user: User) -> UserRow:
    return UserRow(**_values(user))


def user_entity(row: UserRow) -> User:
    return User(**_columns(User, row))


def key_row(key: ApiKey) -> ApiKeyRow:
    return ApiKeyRow(**_values(key))


def key_entity(row: ApiKeyRow) -> ApiKey:
    return ApiKey(**{**_columns(ApiKey, row), "scopes": tuple(map(Scope, row.scopes))})


def session_row(session: Session) -> SessionRow:
    return SessionRow(**_values(session))


def session_entity(row: SessionRow) -> Session:
    return Session(**_columns(Session, row))


def webhook_row(webhook: Webhook) -> WebhookRow:
    return WebhookRow(**_values(webhook))


def webhook_entity(row: WebhookRow) -> Webhook:
    return Webhook(**{**_columns(Webhook, row), "events": tuple(row.events)})


def delivery_row(delivery: Delivery) -> WebhookDeliveryRow:
    return WebhookDeliveryRow(**_values(delivery))


def delivery_entity(row: WebhookDeliveryRow) -> Delivery:
    return Delivery(**_columns(Delivery, row))


def error_json(error: JobError) -> dict[str, Any]:
    return asdict(error)


def _error(value: Mapping[str, Any]) -> JobError:
    faults = tuple(Fault(**fault) for fault in value["faults"])
    return JobError(value["code"], value["message"], faults)


def _values(entity: Any) -> dict[str, Any]:
    """The entity's fields, which are columns of the same name."""
    return {field.name: getattr(entity, field.name) for field in fields(entity)}


def _columns(entity: type[Any], row: Any) -> dict[str, Any]:
    return {field.name: getattr(row, field.name) for field in fields(entity)}

"""The tables. Every table of tenant data has its project's id; users and projects are global."""

from datetime import datetime
from typing import Annotated, Any

from sqlalchemy import BigInteger, ForeignKey, ForeignKeyConstraint, Index, Integer, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.core.entities.jobs import DEFAULT_QUEUE
from app.extensions import Base
from app.repositories.types import Json, Text, UtcTime

Str = Annotated[str, mapped_column(Text)]
Time = Annotated[datetime, mapped_column(UtcTime)]
JsonObject = Annotated[dict[str, Any], mapped_column(Json)]
Id = Annotated[str, mapped_column(Text, primary_key=True)]


class ProjectRow(Base):
    __tablename__ = "projects"

    id: Mapped[Id]
    name: Mapped[Str] = mapped_column(unique=True)
    created_at: Mapped[Time]
    max_running: Mapped[int | None]  # jobs that may train at once; None: what the settings say
    max_queued: Mapped[int | None]
    max_requests: Mapped[int | None]  # a minute
    max_tokens: Mapped[int | None] = mapped_column(BigInteger)  # a minute
    max_bytes: Mapped[int | None] = mapped_column(BigInteger)
    max_versions: Mapped[int | None]
    last_turn: Mapped[int] = mapped_column(default=0)  # the number of its last claim, counted over all projects


class UserRow(Base):
    __tablename__ = "users"

    id: Mapped[Id]
    username: Mapped[Str] = mapped_column(unique=True)
    password_hash: Mapped[Str]  # empty: a service account's, or of one who logs in elsewhere
    created_at: Mapped[Time]
    is_operator: Mapped[bool] = mapped_column(default=False)
    is_service: Mapped[bool] = mapped_column(default=False)
    external_id: Mapped[Str | None] = mapped_column(index=True, unique=True)
    disabled_at: Mapped[Time | None]


class MembershipRow(Base):
    __tablename__ = "memberships"

    user_id: Mapped[Str] = mapped_column(ForeignKey("users.id"), primary_key=True)
    project_id: Mapped[Str] = mapped_column(ForeignKey("projects.id"), primary_key=True, index=True)
    role: Mapped[Str]
    created_at: Mapped[Time]


class ApiKeyRow(Base):
    __tablename__ = "api_keys"
    __table_args__ = (Index(None, "project_id", "created_at", "id"),)  # list

    id: Mapped[Id]
    project_id: Mapped[Str] = mapped_column(ForeignKey("projects.id"))
    user_id: Mapped[Str] = mapped_column(ForeignKey("users.id"))
    name: Mapped[Str]
    hash: Mapped[Str] = mapped_column(unique=True)
    hint: Mapped[Str]
    scopes: Mapped[list[Any]] = mapped_column(Json)
    created_by: Mapped[Str]
    created_at: Mapped[Time]
    expires_at: Mapped[Time | None]
    last_used_at: Mapped[Time | None]
    revoked_at: Mapped[Time | None]


class SessionRow(Base):
    __tablename__ = "sessions"

    id: Mapped[Id]
    project_id: Mapped[Str] = mapped_column(ForeignKey("projects.id"), index=True)
    user_id: Mapped[Str] = mapped_column(ForeignKey("users.id"), index=True)
    handle_hash: Mapped[Str] = mapped_column(unique=True)
    secret_hash: Mapped[Str]
    created_at: Mapped[Time]
    expires_at: Mapped[Time]
    revoked_at: Mapped[Time | None]


class KeptRequestRow(Base):
    """A request under an Idempotency-Key; ``status`` is null while it is being done."""

    __tablename__ = "kept_requests"
    __table_args__ = (Index(None, "project_id", "expires_at"),)  # sweep

    id: Mapped[Id]
    project_id: Mapped[Str] = mapped_column(ForeignKey("projects.id"))
    fingerprint: Mapped[Str]
    holder: Mapped[Str]
    expires_at: Mapped[Time]
    status: Mapped[int | None]
    headers: Mapped[JsonObject]
    body: Mapped[Str | None]  # null: it had a secret


class AuditRow(Base):
    """Without a foreign key: it outlives what it names. Triggers refuse UPDATE and DELETE."""

    __tablename__ = "audit"
    __table_args__ = (Index(None, "project_id", "number"),)  # page

    # SQLite numbers the rows of an INTEGER key alone.
    number: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    project_id: Mapped[Str | None]
    created_at: Mapped[Time]
    actor: Mapped[Str]
    user_id: Mapped[Str | None]
    key_id: Mapped[Str | None]
    address: Mapped[Str]
    action: Mapped[Str]
    kind: Mapped[Str]
    object_id: Mapped[Str]
    status: Mapped[int]
    request_id: Mapped[Str]


class DatasetRow(Base):
    __tablename__ = "datasets"
    __table_args__ = (
        UniqueConstraint("project_id", "name"),
        Index(None, "project_id", "created_at", "id"),  # list
    )

    id: Mapped[Id]
    project_id: Mapped[Str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[Str]
    created_by: Mapped[Str | None]
    created_at: Mapped[Time]


class DatasetVersionRow(Base):
    __tablename__ = "dataset_versions"

    dataset_id: Mapped[Str] = mapped_column(ForeignKey("datasets.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    project_id: Mapped[Str] = mapped_column(ForeignKey("projects.id"), index=True)
    digest: Mapped[Str] = mapped_column(index=True)
    format: Mapped[Str]
    rows: Mapped[int]
    size: Mapped[int] = mapped_column(BigInteger)
    source: Mapped[Str]
    parent: Mapped[int | None]
    pipeline: Mapped[JsonObject]
    changes: Mapped[list[Any]] = mapped_column(Json)
    created_by: Mapped[Str | None]
    created_at: Mapped[Time]


class DatasetTagRow(Base):
    __tablename__ = "dataset_tags"

    dataset_id: Mapped[Str] = mapped_column(ForeignKey("datasets.id"), primary_key=True)
    tag: Mapped[Str] = mapped_column(primary_key=True)
    project_id: Mapped[Str] = mapped_column(ForeignKey("projects.id"), index=True)
    number: Mapped[int]


class JobRow(Base):
    """A job and the attempt that holds it: ``owner`` is null when nobody does."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index(None, "project_id", "created_at", "id"),  # list
        Index(None, "project_id", "state", "owner"),  # claim
        Index(None, "project_id", "request_key"),  # add
        Index(None, "kind", "finished_at"),  # forget
    )

    id: Mapped[Id]
    project_id: Mapped[Str] = mapped_column(ForeignKey("projects.id"))
    kind: Mapped[Str]
    name: Mapped[Str]
    state: Mapped[Str]
    base_model: Mapped[Str]
    config: Mapped[JsonObject]
    dataset_digest: Mapped[Str]
    # The version that it reads; None where that is a file. Without a foreign key, which SQLite adds to no
    # table that is there: whoever adds a job, or deletes a dataset, has locked the dataset's row first.
    dataset_id: Mapped[Str | None] = mapped_column(index=True)
    dataset_number: Mapped[int | None]
    created_by: Mapped[Str | None]
    created_at: Mapped[Time]
    started_at: Mapped[Time | None]
    finished_at: Mapped[Time | None]
    run_folder: Mapped[Str | None]
    progress: Mapped[JsonObject]
    error: Mapped[JsonObject | None]
    # Without a foreign key: model_versions.job_id points back here, and a circle cannot be made in one order.
    model_version_id: Mapped[Str | None]
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    attempts: Mapped[int] = mapped_column(default=0)
    lost: Mapped[int] = mapped_column(default=0)
    priority: Mapped[int] = mapped_column(default=0)
    queue: Mapped[Str] = mapped_column(default=DEFAULT_QUEUE)
    retry_of: Mapped[Str | None]
    result: Mapped[JsonObject]
    made: Mapped[list[Any]] = mapped_column(Json, default=list)
    request: Mapped[JsonObject] = mapped_column(default=dict)
    request_key: Mapped[Str | None]
    is_retry: Mapped[bool] = mapped_column(default=False)
    is_light: Mapped[bool] = mapped_column(default=False)
    after: Mapped[list[Any]] = mapped_column(Json, default=list)
    inputs: Mapped[JsonObject] = mapped_column(default=dict)
    blockers: Mapped[int] = mapped_column(default=0)  # jobs of ``after`` that have not succeeded yet

    owner: Mapped[Str | None] = mapped_column(index=True)
    fence: Mapped[int] = mapped_column(default=0)
    heartbeat: Mapped[int] = mapped_column(default=0)
    lease_seconds: Mapped[float] = mapped_column(default=0.0)
    last_event: Mapped[int] = mapped_column(default=0)  # the newest number in job_events
    last_chunked: Mapped[int] = mapped_column(default=0)  # the newest of them in job_metric_chunks


class JobNeedRow(Base):
    """A job that waits for another to succeed."""

    __tablename__ = "job_needs"

    job_id: Mapped[Str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    needed_id: Mapped[Str] = mapped_column(ForeignKey("jobs.id"), primary_key=True, index=True)
    project_id: Mapped[Str] = mapped_column(ForeignKey("projects.id"), index=True)


class JobEventRow(Base):
    """``seq`` counts within an attempt (``fence``), ``number`` over the job's whole life."""

    __tablename__ = "job_events"
    __table_args__ = (UniqueConstraint("job_id", "fence", "seq"),)

    job_id: Mapped[Str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    project_id: Mapped[Str] = mapped_column(ForeignKey("projects.id"), index=True)
    fence: Mapped[int]
    seq: Mapped[int]
    type: Mapped[Str]
    level: Mapped[Str]
    message: Mapped[Str]
    created_at: Mapped[Time]
    data: Mapped[JsonObject]


class JobMetricChunkRow(Base):
    """What one claim's metrics events of ``width`` steps measured, from step ``place * width`` on."""

    __tablename__ = "job_metric_chunks"

    job_id: Mapped[Str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    width: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    fence: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    place: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    project_id: Mapped[Str] = mapped_column(ForeignKey("projects.id"), index=True)
    first_event: Mapped[int]
    last_event: Mapped[int]
    first_step: Mapped[int]
    last_step: Mapped[int]
    events: Mapped[int]
    figures: Mapped[JsonObject]  # by name a Figure's fields, in order


class ModelVersionRow(Base):
    __tablename__ = "model_versions"
    __table_args__ = (UniqueConstraint("project_id", "name", "number"),)

    id: Mapped[Id]
    project_id: Mapped[Str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[Str]
    number: Mapped[int]
    base_model: Mapped[Str]
    template_hash: Mapped[Str]
    artifacts: Mapped[Str]
    job_id: Mapped[Str | None] = mapped_column(ForeignKey("jobs.id"), unique=True)
    dataset_digest: Mapped[Str]
    config: Mapped[JsonObject]
    metrics: Mapped[JsonObject]
    created_by: Mapped[Str | None]
    created_at: Mapped[Time]
    base_digest: Mapped[Str | None]
    pinned: Mapped[bool] = mapped_column(default=False)
    size: Mapped[int] = mapped_column(BigInteger, default=0)
    deleted_at: Mapped[Time | None]  # the row stays: its number is not given again


class ModelAliasRow(Base):
    """One version that an alias carries. The key to it: what an alias names is not deleted."""

    __tablename__ = "model_aliases"
    __table_args__ = (
        ForeignKeyConstraint(
            ["project_id", "model", "number"],
            ["model_versions.project_id", "model_versions.name", "model_versions.number"],
        ),
    )

    project_id: Mapped[Str] = mapped_column(ForeignKey("projects.id"), primary_key=True, index=True)
    model: Mapped[Str] = mapped_column(primary_key=True)
    alias: Mapped[Str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    weight: Mapped[int]
    set_by: Mapped[Str | None]
    set_at: Mapped[Time]


class WebhookRow(Base):
    """``secret`` and ``old_secret`` are encrypted."""

    __tablename__ = "webhooks"

    id: Mapped[Id]
    project_id: Mapped[Str] = mapped_column(ForeignKey("projects.id"), index=True)
    url: Mapped[Str]
    events: Mapped[list[Any]] = mapped_column(Json)
    enabled: Mapped[bool]
    secret: Mapped[Str]
    created_by: Mapped[Str]
    created_at: Mapped[Time]
    old_secret: Mapped[Str | None]
    old_secret_until: Mapped[Time | None]


class WebhookDeliveryRow(Base):
    """The outbox: an event on its way to one endpoint."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (Index(None, "webhook_id", "created_at"),)  # list

    webhook_id: Mapped[Str] = mapped_column(ForeignKey("webhooks.id"), primary_key=True)
    event_id: Mapped[Str] = mapped_column(primary_key=True)
    project_id: Mapped[Str] = mapped_column(ForeignKey("projects.id"), index=True)
    type: Mapped[Str]
    body: Mapped[Str]
    created_at: Mapped[Time]
    next_attempt_at: Mapped[Time | None] = mapped_column(index=True)
    attempts: Mapped[int]
    last_attempt_at: Mapped[Time | None]
    status: Mapped[int | None]
    error: Mapped[Str | None]
    delivered_at: Mapped[Time | None]


class UsageRow(Base):
    __tablename__ = "usage"
    __table_args__ = (Index(None, "project_id", "day"),)  # sums

    # SQLite numbers the rows of an INTEGER key alone.
    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    project_id: Mapped[Str] = mapped_column(ForeignKey("projects.id"))
    day: Mapped[Str]  # of created_at: the two databases have no word in common for it
    caller: Mapped[Str]
    model: Mapped[Str]
    version_id: Mapped[Str | None]
    base_model: Mapped[Str]
    prompt_tokens: Mapped[int]
    completion_tokens: Mapped[int]
    first_token_seconds: Mapped[float | None]
    seconds: Mapped[float]
    finish_reason: Mapped[Str | None]
    error: Mapped[Str | None]
    created_at: Mapped[Time]

"""What a client of OpenAI's dialect asked a job for; when a model version was deleted."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("request", sa.JSON(), nullable=False, server_default="{}"))
    op.add_column("jobs", sa.Column("request_key", sa.String(), nullable=True))
    op.add_column("jobs", sa.Column("is_retry", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("model_versions", sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(op.f("ix_jobs_project_id_request_key"), "jobs", ["project_id", "request_key"])


def downgrade() -> None:
    op.drop_index(op.f("ix_jobs_project_id_request_key"), "jobs")
    op.drop_column("model_versions", "deleted_at")
    op.drop_column("jobs", "is_retry")
    op.drop_column("jobs", "request_key")
    op.drop_column("jobs", "request")

"""Priorities, queues, retries and lost attempts of jobs; limits and turns of projects."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("projects", sa.Column("max_running", sa.Integer(), nullable=True))
    op.add_column("projects", sa.Column("max_queued", sa.Integer(), nullable=True))
    op.add_column("projects", sa.Column("last_turn", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("lost", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("queue", sa.String(), nullable=False, server_default="default"))
    op.add_column("jobs", sa.Column("retry_of", sa.String(), nullable=True))
    op.drop_index(op.f("ix_jobs_state_created_at_id"), "jobs")
    op.create_index(op.f("ix_jobs_project_id_state_owner"), "jobs", ["project_id", "state", "owner"])


def downgrade() -> None:
    op.drop_index(op.f("ix_jobs_project_id_state_owner"), "jobs")
    op.create_index(op.f("ix_jobs_state_created_at_id"), "jobs", ["state", "created_at", "id"])
    for column in ("retry_of", "queue", "priority", "lost"):
        op.drop_column("jobs", column)
    for column in ("last_turn", "max_queued", "max_running"):
        op.drop_column("projects", column)

"""What metrics events measured, summed up by steps; of jobs that are there already, when somebody first looks."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("last_chunked", sa.Integer(), nullable=False, server_default="0"))
    op.create_table(
        "job_metric_chunks",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("width", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("fence", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("place", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("first_event", sa.Integer(), nullable=False),
        sa.Column("last_event", sa.Integer(), nullable=False),
        sa.Column("first_step", sa.Integer(), nullable=False),
        sa.Column("last_step", sa.Integer(), nullable=False),
        sa.Column("events", sa.Integer(), nullable=False),
        sa.Column("figures", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_metric_chunks_job_id_jobs")),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_job_metric_chunks_project_id_projects")
        ),
        sa.PrimaryKeyConstraint("job_id", "width", "fence", "place", name=op.f("pk_job_metric_chunks")),
    )
    op.create_index(op.f("ix_job_metric_chunks_project_id"), "job_metric_chunks", ["project_id"])


def downgrade() -> None:
    op.drop_table("job_metric_chunks")
    op.drop_column("jobs", "last_chunked")

"""Kinds of jobs; what a job waits for, takes over from another and publishes."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

ADDED = (
    sa.Column("kind", sa.String(), nullable=False, server_default="train"),
    sa.Column("is_light", sa.Boolean(), nullable=False, server_default=sa.false()),
    sa.Column("after", sa.JSON(), nullable=False, server_default="[]"),
    sa.Column("inputs", sa.JSON(), nullable=False, server_default="{}"),
    sa.Column("blockers", sa.Integer(), nullable=False, server_default="0"),
    sa.Column("made", sa.JSON(), nullable=False, server_default="[]"),
)
# A plain statement: alembic renames a column of SQLite by copying the table.
RENAME = "ALTER TABLE jobs RENAME COLUMN {} TO {}"
# What training published stands in model_versions; a job of today says it itself.
MADE = """
    UPDATE jobs SET made = {json_array} WHERE model_version_id IN (SELECT id FROM model_versions)
"""
REFERENCE = "(SELECT v.name || ':' || v.number FROM model_versions v WHERE v.id = jobs.model_version_id)"
JSON_ARRAY = {"sqlite": f"json_array({REFERENCE})", "postgresql": f"json_build_array({REFERENCE})"}


def upgrade() -> None:
    for column in ADDED:
        op.add_column("jobs", column)
    op.execute(RENAME.format("metrics", "result"))
    op.execute(MADE.format(json_array=JSON_ARRAY[op.get_bind().dialect.name]))
    op.create_index(op.f("ix_jobs_kind_finished_at"), "jobs", ["kind", "finished_at"])
    op.create_table(
        "job_needs",
        sa.Column("job_id", sa.String(), sa.ForeignKey("jobs.id", name=op.f("fk_job_needs_job_id_jobs"))),
        sa.Column("needed_id", sa.String(), sa.ForeignKey("jobs.id", name=op.f("fk_job_needs_needed_id_jobs"))),
        sa.Column(
            "project_id",
            sa.String(),
            sa.ForeignKey("projects.id", name=op.f("fk_job_needs_project_id_projects")),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("job_id", "needed_id", name=op.f("pk_job_needs")),
    )
    for column in ("needed_id", "project_id"):
        op.create_index(op.f(f"ix_job_needs_{column}"), "job_needs", [column])


def downgrade() -> None:
    """Jobs of other kinds than training go: the code before knows none."""
    op.drop_table("job_needs")
    op.drop_index(op.f("ix_jobs_kind_finished_at"), "jobs")
    for table in ("job_metric_chunks", "job_events"):
        rows = sa.table(table, sa.column("job_id"))
        jobs = sa.table("jobs", sa.column("id"), sa.column("kind"))
        others = sa.select(jobs.c.id).where(jobs.c.kind != "train")
        op.execute(sa.delete(rows).where(rows.c.job_id.in_(others)))
    op.execute("DELETE FROM jobs WHERE kind != 'train'")
    op.execute(RENAME.format("result", "metrics"))
    for column in reversed(ADDED):
        op.drop_column("jobs", column.name)

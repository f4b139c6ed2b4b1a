"""A project's limits of requests, tokens, bytes and versions; requests under an Idempotency-Key."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

COLUMNS = {
    "max_requests": sa.Integer(),
    "max_tokens": sa.BigInteger(),
    "max_bytes": sa.BigInteger(),
    "max_versions": sa.Integer(),
}


def upgrade() -> None:
    for name, kind in COLUMNS.items():
        op.add_column("projects", sa.Column(name, kind, nullable=True))
    op.add_column("model_versions", sa.Column("size", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_table(
        "kept_requests",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("headers", sa.JSON(), nullable=False),
        sa.Column("body", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_kept_requests_project_id_projects")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_kept_requests")),
    )
    op.create_index(op.f("ix_kept_requests_project_id_expires_at"), "kept_requests", ["project_id", "expires_at"])


def downgrade() -> None:
    op.drop_table("kept_requests")
    op.drop_column("model_versions", "size")
    for name in reversed(COLUMNS):
        op.drop_column("projects", name)

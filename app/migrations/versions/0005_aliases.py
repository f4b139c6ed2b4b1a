"""Aliases of model versions."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "model_aliases",
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("alias", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("weight", sa.Integer(), nullable=False),
        sa.Column("set_by", sa.String(), nullable=True),
        sa.Column("set_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_model_aliases_project_id_projects")
        ),
        sa.ForeignKeyConstraint(
            ["project_id", "model", "number"],
            ["model_versions.project_id", "model_versions.name", "model_versions.number"],
            name=op.f("fk_model_aliases_project_id_model_number_model_versions"),
        ),
        sa.PrimaryKeyConstraint("project_id", "model", "alias", "number", name=op.f("pk_model_aliases")),
    )
    op.create_index(op.f("ix_model_aliases_project_id"), "model_aliases", ["project_id"])


def downgrade() -> None:
    op.drop_table("model_aliases")

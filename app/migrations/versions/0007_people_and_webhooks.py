"""Users who log in elsewhere, and users who are disabled."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("users", sa.Column("external_id", sa.String(), nullable=True))
    op.add_column("users", sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(op.f("ix_users_external_id"), "users", ["external_id"], unique=True)


def downgrade() -> None:
    op.drop_index(op.f("ix_users_external_id"), "users")
    op.drop_column("users", "disabled_at")
    op.drop_column("users", "external_id")

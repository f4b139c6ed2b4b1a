"""A project's limits of requests, tokens, bytes and versions."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
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


def downgrade() -> None:
    for name in reversed(COLUMNS):
        op.drop_column("projects", name)

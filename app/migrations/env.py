"""How Alembic reaches the database: ``flask db …`` brings the app's engine, ``migrate_empty`` its connection."""

from typing import Any, Literal

from alembic import context
from flask import current_app
from sqlalchemy.types import TypeDecorator

from app.repositories.database import schema_transaction
from app.repositories.tables import Base


def _plain_type(kind: str, item: Any, _: Any) -> str | Literal[False]:
    """A revision is history: it names SQLAlchemy's types, not ours, which may change."""
    return f"sa.{item.impl!r}" if kind == "type" and isinstance(item, TypeDecorator) else False


def _run(**where: Any) -> None:
    context.configure(
        **where,
        target_metadata=Base.metadata,
        render_as_batch=True,  # SQLite alters a table by making it anew
        render_item=_plain_type,
        transactional_ddl=True,  # on SQLite too, where schema_transaction begins what the driver would not
    )
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    _run(url=current_app.extensions["migrate"].db.engine.url, literal_binds=True)
elif (given := context.config.attributes.get("connection")) is not None:
    _run(connection=given)
else:
    with schema_transaction(current_app.extensions["migrate"].db.engine) as connection:
        _run(connection=connection)

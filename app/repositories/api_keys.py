"""API keys, in a SQL database."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, Engine, select, update

from app.core.entities.api_keys import ApiKey
from app.core.interfaces.identity import KeyRepository
from app.repositories.database import Database
from app.repositories.mapping import key_entity, key_row
from app.repositories.tables import ApiKeyRow


class SqlKeyRepository(KeyRepository):
    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def add(self, key: ApiKey) -> None:
        with self._database.write() as session:
            session.add(key_row(key))

    def by_hash(self, key_hash: str) -> ApiKey | None:
        with self._database.read() as session:
            row = session.scalar(select(ApiKeyRow).where(ApiKeyRow.hash == key_hash))
            return None if row is None else key_entity(row)

    def list(self, project_id: str, user_id: str | None = None) -> Sequence[ApiKey]:
        query = select(ApiKeyRow).where(ApiKeyRow.project_id == project_id)
        if user_id is not None:
            query = query.where(ApiKeyRow.user_id == user_id)
        with self._database.read() as session:
            rows = session.scalars(query.order_by(ApiKeyRow.created_at.desc(), ApiKeyRow.id))
            return [key_entity(row) for row in rows]

    def revoke(self, project_id: str, key_id: str, at: datetime, user_id: str | None = None) -> bool:
        query = select(ApiKeyRow).where(ApiKeyRow.project_id == project_id, ApiKeyRow.id == key_id)
        if user_id is not None:
            query = query.where(ApiKeyRow.user_id == user_id)
        with self._database.write() as session:
            row = session.scalar(query.with_for_update())
            if row is not None and row.revoked_at is None:
                row.revoked_at = at
            return row is not None

    def revoke_all(self, user_id: str, at: datetime) -> int:
        live = (ApiKeyRow.user_id == user_id, ApiKeyRow.revoked_at.is_(None))
        with self._database.write() as session:
            done = session.execute(update(ApiKeyRow).where(*live).values(revoked_at=at))
            return cast("CursorResult[Any]", done).rowcount

    def used(self, key_id: str, at: datetime) -> None:
        with self._database.write() as session:
            session.execute(update(ApiKeyRow).where(ApiKeyRow.id == key_id).values(last_used_at=at))

"""Sessions, in a SQL database."""

from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, Engine, delete, select, update

from app.core.entities.identity import Session
from app.core.interfaces.identity import SessionRepository
from app.repositories.database import Database
from app.repositories.mapping import session_entity, session_row
from app.repositories.tables import SessionRow


class SqlSessionRepository(SessionRepository):
    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def add(self, session: Session) -> None:
        with self._database.write() as unit:
            unit.execute(
                delete(SessionRow).where(
                    SessionRow.user_id == session.user_id, SessionRow.expires_at < session.created_at
                )
            )
            unit.add(session_row(session))

    def get(self, session_id: str) -> Session | None:
        with self._database.read() as unit:
            row = unit.get(SessionRow, session_id)
            return None if row is None else session_entity(row)

    def rotate(self, handle_hash: str, secret_hash: str, next_hash: str, at: datetime) -> Session | None:
        query = select(SessionRow).where(SessionRow.handle_hash == handle_hash).with_for_update()
        with self._database.write() as unit:
            row = unit.scalar(query)
            if row is None:
                return None
            if session_entity(row).is_live(at):
                if row.secret_hash == secret_hash:
                    row.secret_hash = next_hash
                else:
                    row.revoked_at = at
            return session_entity(row)

    def revoke(self, session_id: str, at: datetime) -> None:
        self._revoke(SessionRow.id == session_id, at)

    def revoke_all(self, user_id: str, at: datetime) -> int:
        return self._revoke(SessionRow.user_id == user_id, at)

    def _revoke(self, which: Any, at: datetime) -> int:
        live = (which, SessionRow.revoked_at.is_(None), SessionRow.expires_at > at)
        with self._database.write() as unit:
            done = unit.execute(update(SessionRow).where(*live).values(revoked_at=at))
            return cast("CursorResult[Any]", done).rowcount

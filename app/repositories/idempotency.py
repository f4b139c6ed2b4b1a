"""Requests under an Idempotency-Key, in a SQL database."""

from datetime import datetime

from sqlalchemy import ColumnElement, Engine, delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core.entities.idempotency import KeptAnswer, KeptRequest
from app.core.interfaces.idempotency import IdempotencyRepository
from app.repositories.database import Database
from app.repositories.tables import KeptRequestRow

SWEPT = 100  # expired ones at once


class SqlIdempotencyRepository(IdempotencyRepository):
    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def begin(self, request: KeptRequest, now: datetime) -> KeptRequest | None:
        try:
            with self._database.write() as session:
                _sweep(session, request.project_id, now)
                row = session.get(KeptRequestRow, request.id, with_for_update=True)
                if row is not None and row.expires_at > now:
                    return _entity(row)
                if row is not None:  # expired, and another's sweep has it in hand
                    session.delete(row)
                    session.flush()
                session.add(_row(request))
        except IntegrityError:  # another was first, just now
            with self._database.read() as session:
                row = session.get(KeptRequestRow, request.id)
                return request if row is None else _entity(row)
        return None

    def keep(self, request: KeptRequest) -> None:
        answer = request.answer
        assert answer is not None
        values = {
            "expires_at": request.expires_at,
            "status": answer.status,
            "headers": dict(answer.headers),
            "body": answer.body,
        }
        with self._database.write() as session:
            session.execute(update(KeptRequestRow).where(*_held(request)).values(values))

    def release(self, request: KeptRequest) -> None:
        with self._database.write() as session:
            session.execute(delete(KeptRequestRow).where(*_held(request)))


def _held(request: KeptRequest) -> tuple[ColumnElement[bool], ...]:
    return (
        KeptRequestRow.id == request.id,
        KeptRequestRow.project_id == request.project_id,
        KeptRequestRow.holder == request.holder,
    )


def _sweep(session: Session, project_id: str, now: datetime) -> None:
    """Two that sweep at once leave each other's rows alone: none waits for the other."""
    old = select(KeptRequestRow.id).where(
        KeptRequestRow.project_id == project_id, KeptRequestRow.expires_at <= now
    )
    ids = session.scalars(old.limit(SWEPT).with_for_update(skip_locked=True)).all()
    if ids:
        session.execute(delete(KeptRequestRow).where(KeptRequestRow.id.in_(ids)))


def _row(request: KeptRequest) -> KeptRequestRow:
    return KeptRequestRow(
        id=request.id,
        project_id=request.project_id,
        fingerprint=request.fingerprint,
        holder=request.holder,
        expires_at=request.expires_at,
        headers={},
    )


def _entity(row: KeptRequestRow) -> KeptRequest:
    answer = None if row.status is None else KeptAnswer(row.status, row.headers, row.body)
    return KeptRequest(row.id, row.project_id, row.fingerprint, row.holder, row.expires_at, answer)

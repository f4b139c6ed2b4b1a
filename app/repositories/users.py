"""Users and memberships, in a SQL database."""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import Engine, select
from sqlalchemy.exc import IntegrityError

from app.core.entities.identity import Membership, Role, User
from app.core.errors import Conflict, NotFound
from app.core.interfaces.storage import UserRepository
from app.repositories.database import Database
from app.repositories.mapping import user_entity, user_row
from app.repositories.tables import MembershipRow, ProjectRow, UserRow


class SqlUserRepository(UserRepository):
    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def add(self, user: User, project_id: str, role: Role) -> None:
        with self._database.write() as session:
            if session.get(ProjectRow, project_id) is None:
                raise NotFound(f"there is no project {project_id}")
            session.add(user_row(user))
            try:
                session.flush()
            except IntegrityError:
                raise Conflict(f"the username {user.username} is taken", code="username_taken") from None
            now = datetime.now(UTC)
            session.add(MembershipRow(user_id=user.id, project_id=project_id, role=role.value, created_at=now))

    def by_username(self, username: str) -> User | None:
        with self._database.read() as session:
            row = session.scalar(select(UserRow).where(UserRow.username == username))
            return None if row is None else user_entity(row)

    def memberships(self, user_id: str) -> Sequence[Membership]:
        query = select(MembershipRow).where(MembershipRow.user_id == user_id)
        with self._database.read() as session:
            rows = session.scalars(query.order_by(MembershipRow.created_at, MembershipRow.project_id))
            return [Membership(row.user_id, row.project_id, Role(row.role)) for row in rows]

    def list(self) -> Sequence[User]:
        with self._database.read() as session:
            return sorted(map(user_entity, session.scalars(select(UserRow))), key=lambda user: user.username)

    def any(self) -> bool:
        with self._database.read() as session:
            return session.scalar(select(UserRow.id).limit(1)) is not None

"""Users, projects and memberships, in a SQL database."""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import Engine, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core.entities.identity import Member, Membership, Project, Role, User
from app.core.errors import Conflict, no_project
from app.core.interfaces.identity import UserRepository
from app.repositories.database import Database
from app.repositories.mapping import user_entity, user_row
from app.repositories.tables import MembershipRow, ProjectRow, UserRow


class SqlUserRepository(UserRepository):
    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def add(self, user: User, project_id: str, role: Role) -> None:
        with self._database.write() as session:
            if session.get(ProjectRow, project_id) is None:
                raise no_project(project_id)
            session.add(user_row(user))
            try:
                session.flush()
            except IntegrityError as error:
                if "external_id" in str(error.orig):
                    raise _subject_taken() from None
                raise Conflict(f"the username {user.username} is taken", code="username_taken") from None
            session.add(_membership(user.id, project_id, role))

    def by_username(self, username: str) -> User | None:
        with self._database.read() as session:
            row = session.scalar(select(UserRow).where(UserRow.username == username))
            return None if row is None else user_entity(row)

    def by_external_id(self, external_id: str) -> User | None:
        with self._database.read() as session:
            row = session.scalar(select(UserRow).where(UserRow.external_id == external_id))
            return None if row is None else user_entity(row)

    def set_password_hash(self, user_id: str, password_hash: str) -> None:
        with self._database.write() as session:
            session.execute(update(UserRow).where(UserRow.id == user_id).values(password_hash=password_hash))

    def set_external_id(self, user_id: str, external_id: str | None) -> None:
        with self._database.write() as session:
            try:
                session.execute(update(UserRow).where(UserRow.id == user_id).values(external_id=external_id))
            except IntegrityError:
                raise _subject_taken() from None

    def set_disabled(self, user_id: str, at: datetime | None) -> None:
        operators = select(UserRow).where(UserRow.is_operator, UserRow.disabled_at.is_(None))
        with self._database.write() as session:
            # Locked in one order: of two operators who disable each other at once, one stays.
            enabled = {row.id for row in session.scalars(operators.order_by(UserRow.id).with_for_update())}
            row = session.get_one(UserRow, user_id, with_for_update=True)
            if at is not None and enabled == {user_id}:
                raise Conflict("this is the only operator: make another one first", code="last_operator")
            row.disabled_at = at

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

    def member(self, user_id: str, project_id: str) -> Member | None:
        query = (
            select(UserRow, MembershipRow.role)
            .join(MembershipRow, MembershipRow.user_id == UserRow.id)
            .where(UserRow.id == user_id, MembershipRow.project_id == project_id)
        )
        with self._database.read() as session:
            found = session.execute(query).one_or_none()
            return None if found is None else Member(user_entity(found[0]), Role(found[1]))

    def members(self, project_id: str) -> Sequence[Member]:
        query = (
            select(UserRow, MembershipRow.role)
            .join(MembershipRow, MembershipRow.user_id == UserRow.id)
            .where(MembershipRow.project_id == project_id)
        )
        with self._database.read() as session:
            found = [Member(user_entity(row), Role(role)) for row, role in session.execute(query)]
            return sorted(found, key=lambda member: member.user.username)

    def set_role(self, user_id: str, project_id: str, role: Role) -> None:
        with self._database.write() as session:
            rows = _locked(session, project_id)
            _keep_an_admin(rows, user_id, role)
            if user_id in rows:
                rows[user_id].role = role.value
            else:
                session.add(_membership(user_id, project_id, role))

    def remove_member(self, user_id: str, project_id: str) -> bool:
        with self._database.write() as session:
            rows = _locked(session, project_id)
            _keep_an_admin(rows, user_id, None)
            if user_id in rows:
                session.delete(rows[user_id])
            return user_id in rows

    def add_project(self, project: Project) -> None:
        with self._database.write() as session:
            session.add(ProjectRow(id=project.id, name=project.id, created_at=project.created_at))
            try:
                session.flush()
            except IntegrityError:
                raise Conflict(f"there is a project {project.id} already", code="project_taken") from None

    def projects(self) -> Sequence[Project]:
        with self._database.read() as session:
            rows = session.scalars(select(ProjectRow).order_by(ProjectRow.id))
            return [Project(row.id, row.created_at) for row in rows]


def _locked(session: Session, project_id: str) -> dict[str, MembershipRow]:
    """The project's memberships by user, which nobody else changes until the transaction ends: of two admins who
    remove each other at once, one stays."""
    if session.get(ProjectRow, project_id, with_for_update=True) is None:
        raise no_project(project_id)
    rows = session.scalars(select(MembershipRow).where(MembershipRow.project_id == project_id))
    return {row.user_id: row for row in rows}


def _keep_an_admin(rows: dict[str, MembershipRow], user_id: str, role: Role | None) -> None:
    """Refuse to leave a project without one; None: the user leaves it."""
    admins = {member for member, row in rows.items() if row.role == Role.ADMIN}
    if admins == {user_id} and role is not Role.ADMIN:
        message = "this is the project's only admin: make another member one first"
        raise Conflict(message, code="last_admin")


def _subject_taken() -> Conflict:
    return Conflict("another user is linked to that subject already", code="subject_taken")


def _membership(user_id: str, project_id: str, role: Role) -> MembershipRow:
    now = datetime.now(UTC)
    return MembershipRow(user_id=user_id, project_id=project_id, role=role.value, created_at=now)

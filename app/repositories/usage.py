"""What requests used, in a SQL database."""

from collections.abc import Sequence
from datetime import date
from typing import Literal

from sqlalchemy import Engine, func, insert, select

from app.core.entities.usage import Usage, UsageSum
from app.core.interfaces.storage import UsageRepository
from app.repositories.database import Database
from app.repositories.mapping import usage_values
from app.repositories.tables import UsageRow


class SqlUsageRepository(UsageRepository):
    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def add(self, rows: Sequence[Usage]) -> None:
        with self._database.write() as session:
            session.execute(insert(UsageRow), [usage_values(row) for row in rows])

    def sums(
        self,
        project_id: str,
        by: Literal["model", "day"],
        first: date,
        last: date,
        model: str | None = None,
    ) -> Sequence[UsageSum]:
        key = UsageRow.model if by == "model" else UsageRow.day
        query = (
            select(
                key,
                func.count(),
                func.count(UsageRow.error),
                func.sum(UsageRow.prompt_tokens),
                func.sum(UsageRow.completion_tokens),
                func.avg(UsageRow.seconds),
                func.avg(UsageRow.first_token_seconds),
            )
            .where(UsageRow.project_id == project_id)
            .where(UsageRow.day.between(first.isoformat(), last.isoformat()))
            .group_by(key)
        )
        if model is not None:
            query = query.where(UsageRow.model == model)
        with self._database.read() as session:
            return [UsageSum(*row) for row in session.execute(query)]

"""What projects may have."""

import time
from collections.abc import Mapping
from dataclasses import replace

from app.core.entities.identity import Principal, Role
from app.core.entities.limits import LimitReport, ProjectLimits
from app.core.errors import Unavailable, no_project
from app.core.interfaces.services.people import Limits
from app.core.interfaces.storage import JobRepository

SECONDS = 2.0  # that the limits of a project are kept for its requests
MOST = 10_000


class LimitService(Limits):
    """``otherwise`` holds where a project's own limits say nothing."""

    def __init__(self, jobs: JobRepository, otherwise: ProjectLimits) -> None:
        self._jobs = jobs
        self._otherwise = otherwise
        self._recent: dict[str, tuple[float, ProjectLimits]] = {}

    def report(self, principal: Principal, project_id: str) -> LimitReport:
        own = self._own(principal, project_id)
        return LimitReport(own.or_else(self._otherwise), own, self._jobs.use(project_id))

    def change(self, principal: Principal, project_id: str, changes: Mapping[str, int | None]) -> LimitReport:
        if changes:
            self._jobs.set_limits(project_id, replace(self._own(principal, project_id), **changes))
            self._recent.clear()
        return self.report(principal, project_id)

    def recent(self, principal: Principal) -> ProjectLimits:
        until, found = self._recent.get(principal.project_id, (0.0, None))
        if found is None or time.monotonic() >= until:
            now = time.monotonic()
            try:
                own = self._jobs.limits(principal.project_id) or ProjectLimits()
                found = own.or_else(self._otherwise)
            except Unavailable:  # of the database: what held is better than nothing
                if found is None:
                    raise
            if len(self._recent) >= MOST:
                self._recent.clear()
            self._recent[principal.project_id] = now + SECONDS, found
        return found

    def _own(self, principal: Principal, project_id: str) -> ProjectLimits:
        is_seen = project_id == principal.project_id or principal.role.covers(Role.OPERATOR)
        own = self._jobs.limits(project_id) if is_seen else None
        if own is None:
            raise no_project(project_id)
        return own

"""The audit log: written at every change, read by admins."""

import logging
from collections.abc import Iterator
from dataclasses import replace

from app.core.entities.audit import AuditEntry, AuditFilter, AuditPage
from app.core.entities.identity import Principal, Role
from app.core.errors import Forbidden, no_project
from app.core.interfaces.services.people import Audit
from app.core.interfaces.storage import AuditRepository

log = logging.getLogger(__name__)

LONGEST = 200  # characters of what a client wrote
CHUNK = 500  # entries read at once


class AuditService(Audit):
    def __init__(self, repository: AuditRepository) -> None:
        self._repository = repository

    def record(self, entry: AuditEntry) -> None:
        entry = replace(entry, actor=_shown(entry.actor), object_id=_shown(entry.object_id))
        try:
            self._repository.add(entry)
        except Exception:
            log.exception("the audit log could not be written: %r", entry)

    def page(
        self,
        principal: Principal,
        wanted: AuditFilter,
        *,
        project: str | None = None,
        everything: bool = False,
        limit: int = 20,
        after: int | None = None,
    ) -> AuditPage:
        project_id = _of(principal, project, everything)
        found = self._repository.page(project_id, wanted, limit + 1, after)
        return AuditPage(found[:limit], found[limit - 1].number if len(found) > limit else None)

    def all(
        self, principal: Principal, wanted: AuditFilter, *, project: str | None = None, everything: bool = False
    ) -> Iterator[AuditEntry]:
        return self._chunks(_of(principal, project, everything), wanted)

    def _chunks(self, project_id: str | None, wanted: AuditFilter) -> Iterator[AuditEntry]:
        after: int | None = None
        while found := self._repository.page(project_id, wanted, CHUNK, after):
            yield from found
            after = found[-1].number


def _of(principal: Principal, project: str | None, everything: bool) -> str | None:
    """The project to read; None: all of them."""
    if principal.role is Role.OPERATOR:
        return None if everything else project or principal.project_id
    if everything:
        raise Forbidden("the log of all projects needs the role operator")
    if project is not None and project != principal.project_id:
        raise no_project(project)
    return principal.project_id


def _shown(text: str) -> str:
    """No NUL, which PostgreSQL refuses, and nothing that a terminal would act upon."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text[:LONGEST])

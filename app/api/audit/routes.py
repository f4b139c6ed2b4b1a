"""Who did what to which, for admins."""

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any

from flask import Response, request

from app.api.audit.schemas import AuditEntrySchema, AuditListSchema, AuditQuerySchema
from app.core.entities.audit import AuditEntry, AuditFilter, AuditPage
from app.core.entities.identity import Role
from app.extensions import current_services
from app.gateway.authentication import current_principal, require
from app.gateway.openapi import Blueprint
from app.utils.csv_cells import csv_safe

blueprint = Blueprint("audit", __name__, url_prefix="/api/v1/audit", description="Who did what to which")

CSV = "text/csv"
COLUMNS = tuple(AuditEntrySchema().fields)
ENTRY = {
    "number": 1204,
    "time": "2026-11-27T09:30:00+00:00",
    "project_id": "default",
    "actor": "alice",
    "user_id": "user-0123",
    "key_id": None,
    "address": "192.0.2.7",
    "action": "datasets.upload",
    "kind": "dataset",
    "object_id": "ds-0123456789abcdef01234567",
    "status": 201,
    "request_id": "0f5c2d1e",
}
FILTERS = ("since", "until", "actor", "action", "object_id", "outcome")


@blueprint.get("")
@require(Role.ADMIN)
@blueprint.arguments(AuditQuerySchema, location="query")
@blueprint.response(200, AuditListSchema, example={"data": [ENTRY], "next": None})
@blueprint.doc(responses={200: {"content": {CSV: {"schema": {"type": "string"}}}}})
@blueprint.errors(404, 503)
def entries(query: dict[str, Any]) -> AuditPage | Response:
    """Read the project's audit log, the newest entry first

    Every change has an entry, also one that was refused, and every log-in. An operator may ask for another
    project's, or for all. With `format=csv`, or `Accept: text/csv`, all that is asked for comes as csv, as it is
    read; no spreadsheet computes a cell of it.
    """
    wanted = AuditFilter(**{name: query.pop(name) for name in FILTERS})
    asked = query.pop("format") or ("csv" if request.accept_mimetypes.best == CSV else "json")
    service, principal = current_services().audit, current_principal()
    if asked == "json":
        return service.page(principal, wanted, **query)
    where = {name: query[name] for name in ("project", "everything")}
    response = Response(as_csv(service.all(principal, wanted, **where)), content_type=f"{CSV}; charset=utf-8")
    response.headers["Content-Disposition"] = 'attachment; filename="audit.csv"'
    return response


def as_csv(found: Iterable[AuditEntry]) -> Iterator[str]:
    """Line by line: every cell quoted, and none that begins a formula."""
    schema, line = AuditEntrySchema(), io.StringIO(newline="")
    writer = csv.writer(line, quoting=csv.QUOTE_ALL)
    writer.writerow(COLUMNS)
    for entry in found:
        cells: Any = schema.dump(entry)
        writer.writerow([csv_safe("" if cells[name] is None else str(cells[name])) for name in COLUMNS])
        if line.tell() > 8192:
            yield line.getvalue()
            line.seek(0)
            line.truncate()
    yield line.getvalue()

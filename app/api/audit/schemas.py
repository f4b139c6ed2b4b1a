"""Query and body of /api/v1/audit."""

from collections.abc import Mapping
from typing import Any

import marshmallow as ma

from app.api.schemas import page_size, text
from app.core.entities.audit import Outcome


class AuditQuerySchema(ma.Schema):
    since = ma.fields.AwareDateTime(
        data_key="from", load_default=None, metadata={"description": "with an offset: 2026-11-27T00:00:00Z"}
    )
    until = ma.fields.AwareDateTime(data_key="to", load_default=None, metadata={"description": "excluded"})
    actor = text(200, "a username, `cli`, or the id of a user or a key", load_default=None)
    action = text(80, "a noun, or one verb of it", example="keys.create_key", load_default=None)
    object_id = text(200, "its id", data_key="object", load_default=None)
    outcome = ma.fields.Enum(
        Outcome, by_value=True, load_default=None, metadata={"description": "how it ended; without it, all"}
    )
    project = text(80, "another project than the caller's: for operators", load_default=None)
    everything = ma.fields.Boolean(
        data_key="all", load_default=False, metadata={"description": "of every project and of none: for operators"}
    )
    limit = page_size()
    after = ma.fields.Integer(
        load_default=None,
        validate=ma.validate.Range(1, 2**63 - 1),
        metadata={"description": "`next` of the page before"},
    )
    format = ma.fields.String(
        load_default=None,
        validate=ma.validate.OneOf(["json", "csv"]),
        metadata={"description": "csv: all that is asked for in one answer, without pages"},
    )

    @ma.validates_schema
    def _in_order(self, data: Mapping[str, Any], **_kwargs: Any) -> None:
        if data["since"] and data["until"] and data["since"] > data["until"]:
            raise ma.ValidationError("Must not be before from.", "to")


class AuditEntrySchema(ma.Schema):
    number = ma.fields.Integer(metadata={"description": "counts over all projects"})
    time = ma.fields.DateTime(attribute="created_at")
    project_id = ma.fields.String(allow_none=True, metadata={"description": "null: a log-in that failed"})
    actor = ma.fields.String(metadata={"description": "a username, the account of a log-in, or `cli`"})
    user_id = ma.fields.String(allow_none=True)
    key_id = ma.fields.String(allow_none=True, metadata={"description": "of the API key, if it was one"})
    address = ma.fields.String()
    action = ma.fields.String(metadata={"example": "datasets.upload"})
    kind = ma.fields.String(metadata={"example": "dataset"})
    object_id = ma.fields.String()
    status = ma.fields.Integer(metadata={"description": "of the answer; a command's as if it were a request"})
    request_id = ma.fields.String()


class AuditListSchema(ma.Schema):
    data = ma.fields.List(ma.fields.Nested(AuditEntrySchema), attribute="entries")
    next = ma.fields.Integer(allow_none=True, metadata={"description": "`after` of the next page; null: the last"})

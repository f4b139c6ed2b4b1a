"""Forms, queries and answers of /v1/files."""

from typing import Any

import marshmallow as ma

from app.api.datasets.schemas import UploadSchema
from app.api.openai.files import RESULTS, UPLOADED
from app.api.openai.options import not_here

MOST_FILES = 10_000  # of a page, OpenAI's
STAYS = "files stay until they are deleted: leave it out"


class OpenAIUploadSchema(UploadSchema):
    purpose = ma.fields.String(
        required=True,
        validate=ma.validate.Equal(UPLOADED, error="Only files to train on are kept here: fine-tune."),
        metadata={"description": "`fine-tune`"},
    )
    anchor = not_here(STAYS)
    anchor.data_key = "expires_after[anchor]"
    seconds = not_here(STAYS)
    seconds.data_key = "expires_after[seconds]"


class FileQuerySchema(ma.Schema):
    purpose = ma.fields.String(
        load_default=UPLOADED,
        validate=ma.validate.OneOf([UPLOADED, RESULTS]),
        metadata={"description": "what was uploaded, or what jobs have measured"},
    )
    limit = ma.fields.Integer(
        load_default=1000,
        validate=ma.validate.Range(1, MOST_FILES),
        metadata={"description": "at most, on a page"},
    )
    after = ma.fields.String(load_default=None, metadata={"description": "the last id of the page before"})
    order = ma.fields.String(
        load_default="desc",
        validate=ma.validate.OneOf(["asc", "desc"]),
        metadata={"description": "newest first, or oldest first"},
    )

    @ma.validates_schema
    def _order_of_results(self, data: Any, **_kwargs: Any) -> None:
        if data["purpose"] == RESULTS and data["order"] == "asc":
            raise ma.ValidationError("Results are listed newest first: leave it out.", "order")


class FileSchema(ma.Schema):
    id = ma.fields.String(metadata={"description": "a dataset's id, or `file-…` of a job's results"})
    object = ma.fields.String(metadata={"enum": ["file"]})
    bytes = ma.fields.Integer(metadata={"description": "as it is kept, which is packed"})
    created_at = ma.fields.Integer(metadata={"description": "seconds since 1970"})
    filename = ma.fields.String()
    purpose = ma.fields.String(metadata={"enum": [UPLOADED, RESULTS]})
    status = ma.fields.String(metadata={"description": "`processed`: a file with faults is not kept"})
    status_details = ma.fields.String(allow_none=True)
    expires_at = ma.fields.Integer(allow_none=True, metadata={"description": "null"})


class FileListSchema(ma.Schema):
    object = ma.fields.String(metadata={"enum": ["list"]})
    data = ma.fields.List(ma.fields.Nested(FileSchema))
    has_more = ma.fields.Boolean()


class DeletedSchema(ma.Schema):
    id = ma.fields.String()
    object = ma.fields.String()
    deleted = ma.fields.Boolean()

"""Queries and answers of /api/v1/datasets."""

import json
from collections.abc import Mapping
from typing import Any

import marshmallow as ma
from flask_smorest.fields import Upload

from app.api.schemas import Body, integer, page_after, page_size, text

_COLUMNS = {"description": "names that differ, theirs to ours", "example": '{"frage": "prompt"}'}


class ColumnsField(ma.fields.String):
    """A JSON object of texts, as a query has it."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs)
        try:
            columns = json.loads(text)
        except (ValueError, RecursionError):
            columns = None
        if not isinstance(columns, dict) or not all(isinstance(name, str) for name in columns.values()):
            raise ma.ValidationError('Not a JSON object of names: {"their column": "our column"}.')
        return columns


class UploadSchema(ma.Schema):
    file = Upload(required=True, metadata={"description": "rows as json, jsonl, csv or parquet"})


class UploadQuerySchema(ma.Schema):
    name = text(64, "new in the project", required=True)
    columns = ColumnsField(load_default=None, metadata=_COLUMNS)


class NextVersionQuerySchema(ma.Schema):
    columns = ColumnsField(load_default=None, metadata=_COLUMNS)


class DatasetVersionSchema(ma.Schema):
    reference = ma.fields.String(metadata={"description": "names this version for ever"})
    dataset_id = ma.fields.String()
    number = ma.fields.Integer()
    digest = ma.fields.String(metadata={"description": "the same rows have the same one everywhere"})
    format = ma.fields.String(metadata={"description": "the shape of row that was found"})
    rows = ma.fields.Integer()
    size = ma.fields.Integer(metadata={"description": "bytes on the disk"})
    source = ma.fields.String(metadata={"description": "the uploaded file's name, or what was done"})
    parent = ma.fields.Integer(allow_none=True, metadata={"description": "the version that it was made of"})
    pipeline = ma.fields.Dict(metadata={"description": "what made it of the parent"})
    changes = ma.fields.List(ma.fields.Dict(), metadata={"description": "what each step changed"})
    created_by = ma.fields.String(allow_none=True)
    created_at = ma.fields.AwareDateTime()


class DatasetSchema(ma.Schema):
    id = ma.fields.String(attribute="dataset.id", metadata={"example": "ds-0123456789abcdef01234567"})
    name = ma.fields.String(attribute="dataset.name")
    created_by = ma.fields.String(attribute="dataset.created_by", allow_none=True)
    created_at = ma.fields.AwareDateTime(attribute="dataset.created_at")
    newest = ma.fields.Nested(DatasetVersionSchema)
    tags = ma.fields.Dict(keys=ma.fields.String(), values=ma.fields.Integer())


class DatasetQuerySchema(ma.Schema):
    limit = page_size()
    after = page_after()


class DatasetListSchema(ma.Schema):
    data = ma.fields.List(ma.fields.Nested(DatasetSchema), attribute="datasets")
    next = ma.fields.String(allow_none=True, metadata={"description": "null on the last page"})


class DatasetVersionListSchema(ma.Schema):
    data = ma.fields.List(ma.fields.Nested(DatasetVersionSchema))


class InspectQuerySchema(ma.Schema):
    version = ma.fields.Integer(
        load_default=None, validate=ma.validate.Range(1, 2**31 - 1), metadata={"description": "else the newest"}
    )
    base_model = text(64, "lengths in its tokens; without it in characters", load_default=None)
    max_length = ma.fields.Integer(
        load_default=1024,
        validate=ma.validate.Range(16, 131_072),
        metadata={"description": "tokens that a row may have before it is truncated"},
    )


class ProcessSchema(Body):
    version = integer(1, 2**31 - 1, "else the newest", None)
    config = ma.fields.Dict(
        keys=ma.fields.String(),
        load_default=dict,
        metadata={"description": "keys of config/data_pipeline.yaml: `steps`, `cleaning`, `splitting` …"},
    )


class DatasetReportSchema(ma.Schema):
    total_samples = ma.fields.Integer()
    label_counts = ma.fields.Dict(keys=ma.fields.String(), values=ma.fields.Integer())
    imbalance_ratio = ma.fields.Float(allow_none=True, metadata={"description": "largest by smallest class"})
    is_balanced = ma.fields.Boolean(allow_none=True, metadata={"description": "null without labels"})
    unit = ma.fields.String(metadata={"enum": ["tokens", "characters"]})
    lengths = ma.fields.Dict(metadata={"description": "percentiles of a row's length"})
    languages = ma.fields.Dict(keys=ma.fields.String(), values=ma.fields.Integer())
    warning_counts = ma.fields.Dict(keys=ma.fields.String(), values=ma.fields.Integer())
    rates = ma.fields.Dict(metadata={"description": "rows a second, of the slow checks that were made"})


class DataWarningSchema(ma.Schema):
    row = ma.fields.Integer(allow_none=True, metadata={"description": "null: the whole dataset"})
    code = ma.fields.String(metadata={"example": "duplicate"})
    message = ma.fields.String(metadata={"description": "what is odd, and how to mend it"})


class ValidationSchema(ma.Schema):
    report = ma.fields.Nested(DatasetReportSchema)
    warnings = ma.fields.List(
        ma.fields.Nested(DataWarningSchema), metadata={"description": "the first hundred of each code"}
    )


class PreviewQuerySchema(ma.Schema):
    base_model = text(64, "whose template and tokenizer read it", example="smollm2-135m-instruct", required=True)
    row = ma.fields.Integer(
        required=True,
        validate=ma.validate.Range(1, 2**31 - 1),
        metadata={"description": "its place in the file that it came in", "example": 1},
    )
    version = ma.fields.Integer(
        load_default=None, validate=ma.validate.Range(1, 2**31 - 1), metadata={"description": "else the newest"}
    )
    max_length = ma.fields.Integer(
        load_default=1024,
        validate=ma.validate.Range(16, 131_072),
        metadata={"description": "tokens that a row may have before it is truncated"},
    )
    reasoning = ma.fields.String(
        load_default="keep",
        validate=ma.validate.OneOf(["keep", "drop"]),
        metadata={"description": "whether answers keep the reasoning that they hold"},
    )


class PreviewTokenSchema(ma.Schema):
    id = ma.fields.Integer()
    text = ma.fields.String(metadata={"description": "empty where a character is begun: its last token has it"})
    kind = ma.fields.String(metadata={"enum": ["trained", "masked", "truncated"]})


class PreviewSequenceSchema(ma.Schema):
    name = ma.fields.String(metadata={"description": "row, chosen, rejected, or a piece of a long text"})
    tokens = ma.fields.List(ma.fields.Nested(PreviewTokenSchema))


class PreviewSchema(ma.Schema):
    row = ma.fields.Integer()
    objective = ma.fields.String()
    reasoning = ma.fields.String()
    sequences = ma.fields.List(ma.fields.Nested(PreviewSequenceSchema))
    count = ma.fields.Dict(keys=ma.fields.String(), values=ma.fields.Integer())
    label = ma.fields.String(allow_none=True)


class RestoreSchema(Body):
    version = ma.fields.Integer(required=True, validate=ma.validate.Range(1, 2**31 - 1))


class TagSchema(RestoreSchema):
    pass


class DiffQuerySchema(ma.Schema):
    before = ma.fields.Integer(
        required=True,
        validate=ma.validate.Range(1, 2**31 - 1),
        metadata={"description": "the version to start from", "example": 1},
    )
    after = ma.fields.Integer(
        required=True,
        validate=ma.validate.Range(1, 2**31 - 1),
        metadata={"description": "the version to compare with it", "example": 2},
    )
    limit = ma.fields.Integer(
        load_default=20,
        validate=ma.validate.Range(0, 1000),
        metadata={"description": "changes that are shown, at most; all are counted"},
    )


class RowSchema(ma.Schema):
    row = ma.fields.Integer(metadata={"description": "its place in the file that it came in"})
    split = ma.fields.String()
    messages = ma.fields.List(ma.fields.Dict())
    rejected = ma.fields.Dict()
    text = ma.fields.String()
    label = ma.fields.String()
    extra = ma.fields.Dict(metadata={"description": "the row's other columns"})

    @ma.post_dump
    def _given(self, row: Mapping[str, Any], **_kwargs: Any) -> Mapping[str, Any]:
        return {key: value for key, value in row.items() if value is not None}


class RowChangeSchema(ma.Schema):
    kind = ma.fields.String(metadata={"enum": ["added", "removed", "changed"]})
    before = ma.fields.Nested(RowSchema, allow_none=True)
    after = ma.fields.Nested(RowSchema, allow_none=True)


class DatasetDiffSchema(ma.Schema):
    before = ma.fields.String()
    after = ma.fields.String()
    unchanged = ma.fields.Integer()
    counts = ma.fields.Dict(keys=ma.fields.String(), values=ma.fields.Integer())
    changes = ma.fields.List(ma.fields.Nested(RowChangeSchema), metadata={"description": "the first ones"})

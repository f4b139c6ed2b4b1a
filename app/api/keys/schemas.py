"""Bodies of /api/v1/keys."""

import marshmallow as ma

from app.api.schemas import Body, integer, text
from app.core.entities.api_keys import MOST_DAYS, NAME_LENGTHS
from app.core.entities.identity import Scope

SCOPES = [scope.value for scope in Scope]


class NewKeySchema(Body):
    name = ma.fields.String(
        required=True,
        validate=ma.validate.Length(NAME_LENGTHS.start, NAME_LENGTHS.stop - 1),
        metadata={"description": "to know it by", "example": "laptop"},
    )
    owner = text(130, "a service account's username; without it, you", example="ci@support", load_default=None)
    scopes = ma.fields.List(
        ma.fields.String(validate=ma.validate.OneOf(SCOPES)),
        load_default=[],
        validate=ma.validate.Length(max=len(SCOPES)),
        metadata={"description": "the parts of the service that it opens; empty: all that the role may"},
    )
    expires_in_days = integer(1, MOST_DAYS, "null: it is good until it is revoked", default=None)


class KeySchema(ma.Schema):
    id = ma.fields.String(metadata={"example": "key-0123456789abcdef01234567"})
    name = ma.fields.String()
    hint = ma.fields.String(metadata={"description": "how it begins", "example": "llmft_3fZk…"})
    user_id = ma.fields.String(metadata={"description": "whose it is"})
    scopes = ma.fields.List(ma.fields.String(), metadata={"description": "empty: all"})
    created_by = ma.fields.String()
    created_at = ma.fields.AwareDateTime()
    expires_at = ma.fields.AwareDateTime(allow_none=True)
    last_used_at = ma.fields.AwareDateTime(allow_none=True, metadata={"description": "to the minute"})
    revoked_at = ma.fields.AwareDateTime(allow_none=True)


class KeyListSchema(ma.Schema):
    data = ma.fields.List(ma.fields.Nested(KeySchema))


class MadeKeySchema(KeySchema):
    key = ma.fields.String(metadata={"description": "shown this once", "example": "llmft_3fZk…"})

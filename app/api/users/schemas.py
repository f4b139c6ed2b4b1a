"""Bodies of /api/v1/users."""

import marshmallow as ma

from app.api.schemas import Body, text
from app.core.entities.identity import DEFAULT_PROJECT_ID, PASSWORD_LENGTHS, Role


class NewUserSchema(Body):
    username = ma.fields.String(required=True, validate=ma.validate.Length(1, 64), metadata={"example": "alice"})
    password = ma.fields.String(
        load_default=None,
        validate=ma.validate.Length(1, 1024),
        metadata={"format": "password", "description": "or a subject"},
    )
    subject = text(255, "what the external issuer's tokens call them (`sub`)", load_default=None)
    role = ma.fields.String(
        required=True,
        validate=ma.validate.OneOf([role.value for role in Role]),
        metadata={"description": "in the project; an operator is its admin, and an operator in every other"},
    )
    project = ma.fields.String(load_default=DEFAULT_PROJECT_ID, validate=ma.validate.Length(1, 63))


class NewPasswordSchema(Body):
    password = ma.fields.String(
        required=True,
        validate=ma.validate.Length(PASSWORD_LENGTHS.start, PASSWORD_LENGTHS.stop - 1),
        metadata={"format": "password"},
    )


class SubjectSchema(Body):
    subject = text(
        255,
        "what the external issuer's tokens call them (`sub`); null: nobody there is them",
        required=True,
        allow_none=True,
    )


class MembershipSchema(ma.Schema):
    project_id = ma.fields.String()
    role = ma.fields.String()


class UserSchema(ma.Schema):
    id = ma.fields.String()
    username = ma.fields.String()
    is_operator = ma.fields.Boolean()
    is_service = ma.fields.Boolean()
    external_id = ma.fields.String(
        allow_none=True, metadata={"description": "the external issuer, `#`, and what that calls them"}
    )
    disabled_at = ma.fields.AwareDateTime(allow_none=True, metadata={"description": "null: they may call"})
    created_at = ma.fields.AwareDateTime()


class ListedUserSchema(UserSchema):
    memberships = ma.fields.List(ma.fields.Nested(MembershipSchema))


class UserListSchema(ma.Schema):
    data = ma.fields.List(ma.fields.Nested(ListedUserSchema))

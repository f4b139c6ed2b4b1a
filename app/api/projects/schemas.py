"""Bodies of /api/v1/projects, /api/v1/members and /api/v1/service-accounts."""

import marshmallow as ma

from app.api.schemas import Body, integer, text
from app.core.entities.identity import MEMBER_ROLES

ROLES = [role.value for role in MEMBER_ROLES]


class ProjectSchema(ma.Schema):
    id = ma.fields.String(metadata={"example": "support"})
    created_at = ma.fields.AwareDateTime()


class ProjectListSchema(ma.Schema):
    data = ma.fields.List(ma.fields.Nested(ProjectSchema))


class NewProjectSchema(Body):
    id = text(63, "small letters, digits and dashes; it stays", example="support", required=True)
    admin = text(64, "a user's name, who becomes its first admin", example="alice", required=True)


def _limit(description: str) -> ma.fields.Integer:
    return integer(1, 2**53, description, default=None)


class ProjectLimitsSchema(Body):
    running = _limit("jobs that train at once")
    queued = _limit("jobs that wait")
    requests = _limit("requests in a minute")
    tokens = _limit("tokens of prompts and answers in a minute")
    storage_bytes = _limit("bytes of datasets and published versions")
    versions = _limit("published versions")


class ProjectUseSchema(ma.Schema):
    running = ma.fields.Integer()
    queued = ma.fields.Integer()
    storage_bytes = ma.fields.Integer()
    versions = ma.fields.Integer()


class LimitReportSchema(ma.Schema):
    limits = ma.fields.Nested(ProjectLimitsSchema, metadata={"description": "as they hold; null: none"})
    own = ma.fields.Nested(ProjectLimitsSchema, metadata={"description": "null: what the service's settings say"})
    used = ma.fields.Nested(ProjectUseSchema)


class MemberSchema(ma.Schema):
    username = ma.fields.String(attribute="user.username", metadata={"example": "alice"})
    user_id = ma.fields.String(attribute="user.id")
    role = ma.fields.String(metadata={"example": "developer"})
    is_service = ma.fields.Boolean(
        attribute="user.is_service", metadata={"description": "a service account: keys, no password"}
    )


class MemberListSchema(ma.Schema):
    data = ma.fields.List(ma.fields.Nested(MemberSchema))


class RoleSchema(Body):
    role = ma.fields.String(required=True, validate=ma.validate.OneOf(ROLES))


class ServiceAccountSchema(RoleSchema):
    name = text(63, "small letters, digits, dots, dashes and underscores", example="ci", required=True)

"""Bodies of /api/v1/auth."""

import marshmallow as ma

from app.api.schemas import Body, text
from app.core.entities.identity import PASSWORD_LENGTHS


class CredentialsSchema(Body):
    username = ma.fields.String(required=True, validate=ma.validate.Length(1, 64), metadata={"example": "admin"})
    password = ma.fields.String(
        required=True, validate=ma.validate.Length(1, 1024), metadata={"format": "password"}
    )
    project = text(63, "the project that the token is for; without it, your first", load_default=None)


class RefreshSchema(Body):
    refresh_token = ma.fields.String(required=True, validate=ma.validate.Length(1, 100))


class TokenSchema(ma.Schema):
    access_token = ma.fields.String(attribute="token")
    token_type = ma.fields.Constant("Bearer")
    expires_in = ma.fields.Integer(metadata={"description": "seconds", "example": 1800})
    refresh_token = ma.fields.String(metadata={"description": "for the next access token; good once"})


class PasswordChangeSchema(Body):
    old_password = ma.fields.String(
        required=True, validate=ma.validate.Length(1, 1024), metadata={"format": "password"}
    )
    new_password = ma.fields.String(
        required=True,
        validate=ma.validate.Length(PASSWORD_LENGTHS.start, PASSWORD_LENGTHS.stop - 1),
        metadata={"format": "password"},
    )


class JwkSchema(ma.Schema):
    kty = ma.fields.String(metadata={"example": "OKP"})
    kid = ma.fields.String(metadata={"description": "its RFC 7638 thumbprint"})
    use = ma.fields.String(metadata={"example": "sig"})
    alg = ma.fields.String(metadata={"example": "EdDSA"})
    crv = ma.fields.String(metadata={"description": "of an Ed25519 key"})
    x = ma.fields.String(metadata={"description": "of an Ed25519 key"})
    n = ma.fields.String(metadata={"description": "of an RSA key"})
    e = ma.fields.String(metadata={"description": "of an RSA key"})


class JwksSchema(ma.Schema):
    keys = ma.fields.List(ma.fields.Nested(JwkSchema))


class CallerSchema(ma.Schema):
    user_id = ma.fields.String()
    username = ma.fields.String(metadata={"example": "alice"})
    project_id = ma.fields.String(metadata={"example": "default"})
    role = ma.fields.String(metadata={"example": "developer"})
    scopes = ma.fields.List(
        ma.fields.String(), allow_none=True, metadata={"description": "of the API key; null: all"}
    )
    key_id = ma.fields.String(allow_none=True, metadata={"description": "of the API key; null: a log-in"})

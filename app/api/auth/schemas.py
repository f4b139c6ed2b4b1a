"""Bodies of /api/v1/auth."""

import marshmallow as ma


class CredentialsSchema(ma.Schema):
    class Meta:
        unknown = ma.RAISE

    username = ma.fields.String(required=True, validate=ma.validate.Length(1, 64), metadata={"example": "admin"})
    password = ma.fields.String(
        required=True, validate=ma.validate.Length(1, 1024), metadata={"format": "password"}
    )


class TokenSchema(ma.Schema):
    access_token = ma.fields.String(attribute="token")
    token_type = ma.fields.Constant("Bearer")
    expires_in = ma.fields.Integer(metadata={"description": "seconds", "example": 3600})

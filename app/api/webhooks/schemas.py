"""Bodies of /api/v1/webhooks."""

import marshmallow as ma

from app.api.schemas import Body, Yes, page_after, page_size
from app.core.entities.webhooks import WebhookEvent

EVENTS = [event.value for event in WebhookEvent]


EVENT = ma.fields.String(
    validate=ma.validate.Length(1, 100),
    metadata={
        "description": "`fine_tuning.job.succeeded|failed|cancelled`, or the same of a kind of job: "
        "`process.job.succeeded` …",
        "example": "fine_tuning.job.succeeded",
    },
)
HOW_MANY = ma.validate.Length(1, 100)
LENGTHS = ma.validate.Length(1, 2000)
URL = {"description": "https, and a public address", "example": "https://hooks.example.com/llm"}


class NewWebhookSchema(Body):
    url = ma.fields.String(required=True, validate=LENGTHS, metadata=URL)
    events = ma.fields.List(EVENT, load_default=EVENTS, validate=HOW_MANY)
    enabled = Yes(load_default=True)


class WebhookChangeSchema(Body):
    """What is left out stays."""

    url = ma.fields.String(validate=LENGTHS, metadata=URL)
    events = ma.fields.List(EVENT, validate=HOW_MANY)
    enabled = Yes()


class WebhookSchema(ma.Schema):
    id = ma.fields.String(metadata={"example": "wh-0123456789abcdef01234567"})
    url = ma.fields.String()
    events = ma.fields.List(ma.fields.String())
    enabled = ma.fields.Boolean()
    created_by = ma.fields.String()
    created_at = ma.fields.AwareDateTime()
    old_secret_until = ma.fields.AwareDateTime(
        allow_none=True, metadata={"description": "until when the secret before the last rotation signs too"}
    )


class WebhookListSchema(ma.Schema):
    data = ma.fields.List(ma.fields.Nested(WebhookSchema))


class WebhookWithSecretSchema(WebhookSchema):
    secret = ma.fields.String(metadata={"description": "shown this once", "example": "whsec_…"})


class DeliverySchema(ma.Schema):
    event_id = ma.fields.String(metadata={"description": "the header `webhook-id`, in every attempt"})
    type = ma.fields.String(metadata={"example": "fine_tuning.job.succeeded"})
    state = ma.fields.String(metadata={"enum": ["pending", "delivered", "failed"]})
    attempts = ma.fields.Integer()
    status = ma.fields.Integer(allow_none=True, metadata={"description": "HTTP's, that the last attempt got"})
    error = ma.fields.String(allow_none=True, metadata={"description": "why the last attempt got none"})
    created_at = ma.fields.AwareDateTime()
    last_attempt_at = ma.fields.AwareDateTime(allow_none=True)
    next_attempt_at = ma.fields.AwareDateTime(allow_none=True)
    delivered_at = ma.fields.AwareDateTime(allow_none=True)


class DeliveryListSchema(ma.Schema):
    data = ma.fields.List(ma.fields.Nested(DeliverySchema), attribute="deliveries")
    next = ma.fields.String(allow_none=True, metadata={"description": "null on the last page"})


class DeliveryQuerySchema(Body):
    limit = page_size()
    after = page_after()

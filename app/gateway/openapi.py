"""flask-smorest, with the gateway's bodies and errors in the place of its own."""

import http
from typing import Any

import flask_smorest
import marshmallow as ma
from flask_smorest.utils import prepare_response

from app.gateway.error_codes import CODES, PAGE
from app.gateway.json_bodies import RequestParser

IDEMPOTENCY_KEY = {
    "in": "header",
    "name": "Idempotency-Key",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    "description": "Of your own choice, new for each request: sent again with it, the request is done once and "
    "answered alike (docs/limits.md).",
    "example": "8e03978e-40d5-43e8-bc93-6894a57f9324",
}
ENVELOPED = "OPENAI_"  # before the name of an error's response: under /v1


class FaultSchema(ma.Schema):
    where = ma.fields.String(metadata={"description": "a field, or a row of the data"})
    code = ma.fields.String()
    message = ma.fields.String()


class ProblemSchema(ma.Schema):
    """RFC 9457."""

    type = ma.fields.String(metadata={"example": f"{PAGE}#invalid_request"})
    title = ma.fields.String(metadata={"example": CODES["invalid_request"].title})
    status = ma.fields.Integer(metadata={"example": 422})
    detail = ma.fields.String(metadata={"example": "the request has faults"})
    code = ma.fields.String(metadata={"description": "stable, for programs", "example": "invalid_request"})
    request_id = ma.fields.String(metadata={"description": "the log has it too"})
    errors = ma.fields.List(ma.fields.Nested(FaultSchema), metadata={"description": "every fault at once"})


class OpenAIErrorSchema(ma.Schema):
    message = ma.fields.String(metadata={"description": "every fault at once, a line each"})
    type = ma.fields.String(metadata={"enum": ["invalid_request_error", "rate_limit_error", "server_error"]})
    param = ma.fields.String(allow_none=True, metadata={"description": "the first field with a fault"})
    code = ma.fields.String(metadata={"description": "stable, for programs", "example": "model_not_found"})


class EnvelopeSchema(ma.Schema):
    """OpenAI's."""

    error = ma.fields.Nested(OpenAIErrorSchema)


class Blueprint(flask_smorest.Blueprint):
    """Its bodies are read by ``RequestParser``."""

    ARGUMENTS_PARSER = RequestParser()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._prepare_doc_cbks.append(self._prepare_idempotency)

    @staticmethod
    def _prepare_idempotency(doc: dict[str, Any], info: dict[str, Any], **_: Any) -> dict[str, Any]:
        if info.get("creates"):  # app.gateway.idempotency
            doc.setdefault("parameters", []).append(dict(IDEMPOTENCY_KEY))
        return doc

    @classmethod
    def errors(cls, *statuses: int) -> Any:
        """Decorates a view with what it may answer besides; every limited route may answer 429."""
        return cls.doc(responses={status: http.HTTPStatus(status).name for status in (*statuses, 429)})


class OpenAIBlueprint(Blueprint):
    """Of /v1: its errors come in OpenAI's envelope, and 422 is 400."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._prepare_doc_cbks.append(self._prepare_envelopes)

    def _prepare_envelopes(self, doc: dict[str, Any], info: dict[str, Any], **_: Any) -> dict[str, Any]:
        for responses in (doc.get("responses", {}), info.get("manual_doc", {}).get("responses", {})):
            for status, answer in list(responses.items()):
                if isinstance(answer, str):
                    responses[status] = ENVELOPED + answer
            for status in [status for status in responses if str(status) == "422"]:
                del responses[status]
                responses["400"] = ENVELOPED + http.HTTPStatus.BAD_REQUEST.name
        return doc


class Api(flask_smorest.Api):
    """The document alone: errors are app.gateway.errors' (of two Apis in one app, the last handler would win)."""

    def _register_error_handlers(self) -> None:
        pass

    def _register_responses(self) -> None:
        for status in http.HTTPStatus:
            if status >= 400:
                self._register_error(status.name, status.phrase)
        self._register_error("DEFAULT_ERROR", "Any other error")

    def _register_error(self, name: str, description: str) -> None:
        for prefix, schema, media in (
            ("", ProblemSchema, "application/problem+json"),
            (ENVELOPED, EnvelopeSchema, "application/json"),
        ):
            response: dict[str, Any] = {"description": description, "schema": schema}
            prepare_response(response, self.spec, media)
            self.spec.components.response(prefix + name, response, lazy=True)

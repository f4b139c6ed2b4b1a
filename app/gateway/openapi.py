"""flask-smorest, with the gateway's bodies and errors in the place of its own."""

import http
from collections.abc import Mapping
from typing import Any

import flask_smorest
import marshmallow as ma
from flask_smorest.spec.plugins import FlaskPlugin
from flask_smorest.utils import prepare_response

from app.gateway.error_codes import CODES, PAGE
from app.gateway.errors import envelope, problem
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
RETRY_AFTER = {
    "description": "seconds to wait, where the service can tell",
    "schema": {"type": "integer", "minimum": 0, "example": 12},
}
LIMIT_HEADERS = {
    "RateLimit-Policy": {
        "description": "each limit: its amount (`q`) in as many seconds (`w`)",
        "schema": {"type": "string", "example": '"requests";q=600;w=60, "tokens";q=100000;w=60'},
    },
    "RateLimit": {
        "description": "of each limit, what is left (`r`) and the seconds until there is more (`t`)",
        "schema": {"type": "string", "example": '"requests";r=0;t=12, "tokens";r=91000;t=6'},
    },
}
OPENAI_LIMIT_HEADERS = {
    f"x-ratelimit-{what}-{unit}": {"description": text, "schema": {"type": "string", "example": example}}
    for unit in ("requests", "tokens")
    for what, text, example in (
        ("limit", f"how many {unit} there are of the limit with the least left", "600"),
        ("remaining", f"how many {unit} are left of it", "0"),
        ("reset", "when there is more", "12s"),
    )
}
EXAMPLE_CODES = {
    400: "malformed_json",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    409: "conflict",
    413: "body_too_large",
    415: "unsupported_media_type",
    422: "invalid_request",
    429: "rate_limited",
    500: "internal_error",
    503: "engine_unavailable",
}
ERROR_HEADERS: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"description": "RFC 6750", "schema": {"type": "string", "example": "Bearer"}}},
    429: {"Retry-After": RETRY_AFTER, **LIMIT_HEADERS},
    503: {"Retry-After": RETRY_AFTER},
}


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
        self._prepare_doc_cbks += [self._prepare_idempotency, self._prepare_bodies]

    @staticmethod
    def _prepare_idempotency(doc: dict[str, Any], info: dict[str, Any], **_: Any) -> dict[str, Any]:
        if info.get("creates"):  # app.gateway.idempotency
            doc.setdefault("parameters", []).append(dict(IDEMPOTENCY_KEY))
        return doc

    @staticmethod
    def _prepare_bodies(doc: dict[str, Any], info: dict[str, Any], **_: Any) -> dict[str, Any]:
        """What every route that reads a body may answer: not JSON, too large, of another type."""
        media = doc.get("requestBody", {}).get("content", {})
        statuses = (400, 413, 415) if "application/json" in media else (413,) if media else ()
        for status in statuses:
            doc["responses"].setdefault(str(status), http.HTTPStatus(status).name)
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


class PathParameters(FlaskPlugin):
    """Describes the parameters in paths, each by its name."""

    def __init__(self, known: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__()
        self._known = known

    def rule_to_params(self, rule: Any) -> list[dict[str, Any]]:
        return [{**parameter, **self._known[parameter["name"]]} for parameter in super().rule_to_params(rule)]


class Api(flask_smorest.Api):
    """The document alone: errors are app.gateway.errors' (of two Apis in one app, the last handler would win)."""

    def _register_error_handlers(self) -> None:
        pass

    def _register_responses(self) -> None:
        for status in http.HTTPStatus:
            if status >= 400:
                self._register_error(status.name, status.phrase, status)
        self._register_error("DEFAULT_ERROR", "Any other error", http.HTTPStatus.INTERNAL_SERVER_ERROR)

    def _register_error(self, name: str, description: str, status: int) -> None:
        """Of those that no route names, none gets into the document."""
        code = EXAMPLE_CODES.get(status, "bad_request")
        title, advice = CODES[code].title, CODES[code].advice
        shown = problem(status, code, advice, [], request_id="5f1c2b7de3a94c6f8a0d1e2f3a4b5c6d")
        headers = ERROR_HEADERS.get(status, {})
        more_headers = OPENAI_LIMIT_HEADERS if status == 429 else {}
        for prefix, schema, media, example, named in (
            ("", ProblemSchema, "application/problem+json", shown, headers),
            (ENVELOPED, EnvelopeSchema, "application/json", envelope(status, code, title), headers | more_headers),
        ):
            response: dict[str, Any] = {"description": description, "schema": schema, "example": example}
            prepare_response(response, self.spec, media)
            if named:
                response["headers"] = dict(named)
            self.spec.components.response(prefix + name, response, lazy=True)

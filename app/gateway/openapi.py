"""flask-smorest, with the gateway's bodies and errors in the place of its own."""

import http
from typing import Any

import flask_smorest
import marshmallow as ma
from flask_smorest.utils import prepare_response

from app.gateway.json_bodies import RequestParser


class FaultSchema(ma.Schema):
    where = ma.fields.String(metadata={"description": "a field, or a row of the data"})
    code = ma.fields.String()
    message = ma.fields.String()


class ProblemSchema(ma.Schema):
    """RFC 9457."""

    type = ma.fields.String(metadata={"example": "about:blank"})
    title = ma.fields.String(metadata={"example": "Unprocessable Content"})
    status = ma.fields.Integer(metadata={"example": 422})
    detail = ma.fields.String(metadata={"example": "the request has faults"})
    code = ma.fields.String(metadata={"description": "stable, for programs", "example": "invalid_request"})
    request_id = ma.fields.String(metadata={"description": "the log has it too"})
    errors = ma.fields.List(ma.fields.Nested(FaultSchema), metadata={"description": "every fault at once"})


class Blueprint(flask_smorest.Blueprint):
    """Its bodies are read by ``RequestParser``."""

    ARGUMENTS_PARSER = RequestParser()

    @classmethod
    def errors(cls, *statuses: int) -> Any:
        """Decorates a view with what it may answer besides; every limited route may answer 429."""
        return cls.doc(responses={status: http.HTTPStatus(status).name for status in (*statuses, 429)})


class Api(flask_smorest.Api):
    """The document alone: errors are app.gateway.errors' (of two Apis in one app, the last handler would win)."""

    def _register_error_handlers(self) -> None:
        pass

    def _register_responses(self) -> None:
        for status in http.HTTPStatus:
            if status >= 400:
                self._register_problem(status.name, status.phrase)
        self._register_problem("DEFAULT_ERROR", "Any other error")

    def _register_problem(self, name: str, description: str) -> None:
        response: dict[str, Any] = {"description": description, "schema": ProblemSchema}
        prepare_response(response, self.spec, "application/problem+json")
        self.spec.components.response(name, response, lazy=True)

"""Ask a model."""

from typing import Any

from app.api.infer.schemas import PredictionSchema, PredictSchema
from app.core.entities.identity import Role
from app.core.entities.inference import Prediction
from app.extensions import current_services
from app.gateway.authentication import current_principal, require
from app.gateway.openapi import Blueprint

blueprint = Blueprint("infer", __name__, url_prefix="/api/v1", description="Ask a model")

EXAMPLE = {
    "text": "How long do I have to return an item?",
    "max_length": 64,
    "temperature": 0,
    "model": "support-assistant",
}

ANSWER = {
    "text": "You have 30 days from delivery.",
    "reasoning": None,
    "model": "support-assistant:1",
    "finish_reason": "stop",
    "prompt_tokens": 41,
    "completion_tokens": 9,
}


@blueprint.post("/predict")
@require(Role.VIEWER)
@blueprint.arguments(PredictSchema, example=EXAMPLE)
@blueprint.response(200, PredictionSchema, example=ANSWER)
@blueprint.errors(400, 404, 503)
def predict(body: dict[str, Any]) -> Prediction:
    """Answer one user message

    It is rendered with the chat template that the version was trained with.
    """
    return current_services().inference.predict(
        current_principal(), body["text"], body["max_length"], body["temperature"], body["model"]
    )

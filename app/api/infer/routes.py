"""Ask a model."""

from typing import Any

from app.api.infer.answers import ChatAnswerSchema, ChatFrames, PredictAnswerSchema
from app.api.infer.schemas import ChatSchema, PredictSchema, options_of
from app.core.entities.identity import Role
from app.core.entities.inference import ChatRequest
from app.extensions import current_services
from app.gateway.authentication import current_principal, require
from app.gateway.openapi import Blueprint
from app.gateway.streams import client_watch, current_streams

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

CHAT = {
    "messages": [
        {"role": "system", "content": "You answer briefly."},
        {"role": "user", "content": "How long do I have to return an item?"},
    ],
    "model": "support-assistant",
    "max_tokens": 64,
    "temperature": 0.2,
    "seed": 7,
}

CHAT_ANSWER: dict[str, Any] = {
    "message": {"role": "assistant", "content": "You have 30 days from delivery.", "reasoning": None},
    "finish_reason": "stop",
    "logprobs": None,
    "model": "support-assistant:1",
    "usage": {"prompt_tokens": 48, "completion_tokens": 9},
    "alternatives": [],
}

STREAM = """data: {"content": "You have"}

data: {"content": " 30 days from delivery."}

data: {"finish_reason": "stop", "model": "support:1", "usage": {"prompt_tokens": 48, "completion_tokens": 9}}

"""


@blueprint.post("/predict")
@require(Role.VIEWER)
@blueprint.arguments(PredictSchema, example=EXAMPLE)
@blueprint.response(200, PredictAnswerSchema, example=ANSWER)
@blueprint.errors(400, 404, 503)
def predict(body: dict[str, Any]) -> Any:
    """Answer one user message, or several at once

    It is rendered with the chat template that the version was trained with. `texts` instead of `text` asks up to
    64 questions at once, each for itself; the answer is `{"predictions": [...]}` in their order. Where one of them
    fails the request fails, and `errors` names each text that has a fault.

    A version with a label head (`objective: classification`) tells `label` and `scores`, each label's share, in
    place of `text`; nothing is drawn, so it takes none of the fields that say how.
    """
    options = options_of(body, max_tokens=body["max_length"])
    texts = body["texts"] if "texts" in body else [body["text"]]
    predictions = current_services().inference.predict(
        current_principal(), texts, options, body["model"], client_watch()
    )
    return {"predictions": predictions} if "texts" in body else predictions[0]


@blueprint.post("/chat")
@require(Role.VIEWER)
@blueprint.arguments(ChatSchema, example=CHAT)
@blueprint.response(200, ChatAnswerSchema, example=CHAT_ANSWER)
@blueprint.doc(responses={200: {"content": {"text/event-stream": {"example": STREAM}}}})
@blueprint.errors(400, 404, 503)
def chat(body: dict[str, Any]) -> Any:
    """Go on with a conversation

    With `stream` the answer comes as server-sent events: `{"content": …}` and `{"reasoning": …}` as they are made,
    at last `finish_reason`, `model` and `usage`. What hinders the answer before its first word is a status, as
    without a stream; what fails later is an event `error` with `code` and `message`. Whoever closes the connection
    ends the answer, with and without `stream`. What stands between `<think>` tags is `reasoning`, and no part of
    `content`.
    """
    logprobs = body["top_logprobs"] if body["logprobs"] else None
    options = options_of(body, logprobs=logprobs)
    request = ChatRequest(body["messages"], body["model"], options, body["conversation"])
    inference, principal = current_services().inference, current_principal()
    if not body["stream"]:
        return inference.chat(principal, request, client_watch())
    streams = current_streams()
    return streams.relay(lambda: ChatFrames(inference.stream(principal, request, client_watch()), streams.is_late))

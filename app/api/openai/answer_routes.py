"""Chat completions and completions."""

from typing import Any

from app.api.infer.schemas import options_of
from app.api.openai.answers import ChatChoices, Chunks, TextChoices, chat_completion, completion
from app.api.openai.chat_schemas import ChatCompletionBodySchema, ChatCompletionSchema
from app.api.openai.completion_schemas import CompletionBodySchema, CompletionSchema
from app.api.openai.options import includes_usage
from app.core.entities.identity import Role
from app.core.entities.inference import ChatRequest, CompletionRequest
from app.extensions import current_services
from app.gateway.authentication import current_principal, require
from app.gateway.openapi import OpenAIBlueprint
from app.gateway.streams import client_watch, current_streams

blueprint = OpenAIBlueprint(
    "openai_answers", __name__, url_prefix="/v1", description="OpenAI's dialect: ask a model"
)

USAGE = {"prompt_tokens": 48, "completion_tokens": 9, "total_tokens": 57}
CHAT = {
    "model": "support-assistant",
    "messages": [
        {"role": "system", "content": "You answer briefly."},
        {"role": "user", "content": "How long do I have to return an item?"},
    ],
    "max_tokens": 64,
    "temperature": 0.2,
    "seed": 7,
}
CHAT_ANSWER: dict[str, Any] = {
    "id": "chatcmpl-0123456789abcdef01234567",
    "object": "chat.completion",
    "created": 1795253400,
    "model": "support-assistant:1",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "You have 30 days from delivery.", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": USAGE,
}
STREAM = """data: {"id": "chatcmpl-01", …, "choices": [{"index": 0, "delta": {"role": "assistant", …}, …}]}

data: {"id": "chatcmpl-01", …, "choices": [{"index": 0, "delta": {"content": "You have 30 days."}, …}]}

data: {"id": "chatcmpl-01", …, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop", …}]}

data: [DONE]

"""
COMPLETION = {"model": "support-assistant", "prompt": "Once upon a time", "max_tokens": 32}
COMPLETION_ANSWER: dict[str, Any] = {
    "id": "cmpl-0123456789abcdef01234567",
    "object": "text_completion",
    "created": 1795253400,
    "model": "support-assistant:1",
    "choices": [{"index": 0, "text": ", a parcel was late.", "logprobs": None, "finish_reason": "stop"}],
    "usage": USAGE,
}


@blueprint.post("/chat/completions")
@require(Role.VIEWER)
@blueprint.arguments(ChatCompletionBodySchema, example=CHAT)
@blueprint.response(200, ChatCompletionSchema, example=CHAT_ANSWER)
@blueprint.doc(responses={200: {"content": {"text/event-stream": {"example": STREAM}}}})
@blueprint.errors(400, 404, 413, 503)
def chat(body: dict[str, Any]) -> Any:
    """Go on with a conversation

    As OpenAI's, with this service's own options beside (`top_k`, `min_p`, `repetition_penalty`, `ignore_eos`,
    `deadline_seconds`, `conversation`: the client's `extra_body`). What stands between `<think>` tags is
    `reasoning_content`, and no part of `content`. `tools` are passed to models whose chat template knows them.
    `docs/openai.md` says what differs.
    """
    top = body["top_logprobs"]
    options = options_of(
        body,
        max_tokens=body.get("max_completion_tokens", body["max_tokens"]),
        logprobs=top if body["logprobs"] else None,
        json_schema=body["response_format"],
    )
    services, principal = current_services(), current_principal()
    model = services.served_models.reference(principal, body["model"])
    tools = tuple(body["tools"]) if body["tool_choice"] == "auto" else ()
    request = ChatRequest(body["messages"], model, options, body["conversation"], tools)
    if not body["stream"]:
        return chat_completion(services.inference.chat(principal, request, client_watch()), top)
    streams = current_streams()
    return streams.relay(
        lambda: Chunks(
            services.inference.stream(principal, request, client_watch()),
            ChatChoices(top),
            includes_usage(body),
            streams.is_late,
        )
    )


@blueprint.post("/completions")
@require(Role.VIEWER)
@blueprint.arguments(CompletionBodySchema, example=COMPLETION)
@blueprint.response(200, CompletionSchema, example=COMPLETION_ANSWER)
@blueprint.doc(responses={200: {"content": {"text/event-stream": {"example": STREAM}}}})
@blueprint.errors(400, 404, 413, 503)
def complete(body: dict[str, Any]) -> Any:
    """Go on with a text

    As it is: no chat template is rendered, and control tokens in it are plain text. Several texts are answered
    each for itself; where one fails, all do.
    """
    options = options_of(body)
    services, principal = current_services(), current_principal()
    model = services.served_models.reference(principal, body["model"])
    request = CompletionRequest(body["prompt"], model, options)
    if not body["stream"]:
        return completion(services.inference.complete(principal, request, client_watch()))
    streams = current_streams()
    return streams.relay(
        lambda: Chunks(
            services.inference.stream_completion(principal, request, client_watch()),
            TextChoices(),
            includes_usage(body),
            streams.is_late,
        )
    )

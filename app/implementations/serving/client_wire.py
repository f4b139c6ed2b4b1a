"""The inference wire from the gateway's side: what is sent to ``/v1/completions``, and what comes back."""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any

from app.core.entities.inference import (
    Choice,
    FinishReason,
    Generation,
    GenerationRequest,
    Piece,
    SamplingOptions,
    TokenCounts,
    TokenLogprob,
)
from app.core.errors import Unavailable

logger = logging.getLogger(__name__)

DATA = b"data:"


def completion_body(request: GenerationRequest, stream: bool) -> dict[str, Any]:
    """vLLM's fields. Each number of the sampling is sent: for one left out, an engine may have its model's own."""
    options = request.options
    body = {
        "model": request.adapter.name if request.adapter else str(request.engine),
        "prompt": list(request.prompt_ids),
        "ignore_eos": options.ignore_eos,
        "n": options.n,
        "stop": list(options.stop),
        "stop_token_ids": list(request.stop_token_ids),
    }
    given = {
        **{one.name: getattr(options, one.name) for one in fields(SamplingOptions)},
        "logprobs": options.logprobs,
        "structured_outputs": None if options.json_schema is None else {"json": options.json_schema},
        "cache_salt": request.sharing,
        "stream": stream or None,
        "stream_options": {"include_usage": True} if stream else None,
    }
    return body | {name: value for name, value in given.items() if value is not None}


def generation_of(answer: Mapping[str, Any]) -> Generation:
    """Of a whole completion. ``ValueError``, ``KeyError`` … where it is none."""
    choices = sorted(answer["choices"], key=lambda choice: choice.get("index", 0))
    if not choices:
        raise ValueError("a completion without a choice")
    return Generation(
        [
            Choice(choice["text"], _reason(choice), _logprobs(choice) if choice.get("logprobs") else None)
            for choice in choices
        ],
        _tokens(answer["usage"]),
    )


def shares_of(answer: Mapping[str, Any]) -> list[Mapping[str, float]]:
    """Label → share, of each text. ``ValueError``, ``KeyError`` … where it is no such answer."""
    data = sorted(answer["data"], key=lambda one: one["index"])
    return [dict(zip(answer["labels"], one["probs"], strict=True)) for one in data]


def pieces_of(chunks: Iterable[bytes]) -> Iterator[Piece]:
    """Of a stream of server-sent events, whose last piece has the counts. ``Unavailable`` for an error among them,
    ``ValueError``, ``KeyError`` … where it is no such stream, or breaks off."""
    counted = False
    for line in _lines(chunks):
        if not line.startswith(DATA):
            continue
        data = line.removeprefix(DATA).strip()
        if data == b"[DONE]":
            break
        event = json.loads(data)
        if "error" in event:
            logger.error("the engine failed on the way: %s", str(event["error"])[:500])
            raise Unavailable("the engine failed while it answered; ask again", code="engine_failed")
        for choice in event["choices"]:
            reason = None if choice["finish_reason"] is None else _reason(choice)
            yield Piece(choice["text"], _logprobs(choice), reason, choice.get("index", 0))
        if event.get("usage") and not event["choices"]:
            counted = True
            yield Piece(tokens=_tokens(event["usage"]))
    if not counted:
        raise ValueError("the stream broke off")


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """At line feeds alone: JSON's strings may hold what ``str.splitlines`` takes for the end of a line."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines


def _reason(choice: Mapping[str, Any]) -> FinishReason:
    return "length" if choice["finish_reason"] == "length" else "stop"


def _tokens(usage: Mapping[str, Any]) -> TokenCounts:
    return TokenCounts(usage["prompt_tokens"], usage["completion_tokens"])


def _logprobs(choice: Mapping[str, Any]) -> tuple[TokenLogprob, ...]:
    block = choice.get("logprobs")
    if not block:
        return ()
    found = zip(block["tokens"], block["token_logprobs"], block["top_logprobs"], strict=True)
    return tuple(TokenLogprob(token, logprob, top) for token, logprob, top in found)

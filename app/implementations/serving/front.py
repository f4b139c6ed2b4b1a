"""The front: HTTP, authentication and text. No torch; the core does the rest."""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from uuid import uuid4

from tokenizers import Tokenizer

from app.core.entities.inference import SamplingOptions
from app.implementations.serving.completions import Completion, events, whole
from app.implementations.serving.core_link import CoreLink
from app.implementations.serving.engine_metrics import EngineMetrics
from app.implementations.serving.http_server import Request, Response
from app.implementations.serving.messages import Ready, Sampling
from app.implementations.serving.ticket import CoreFailure, Ticket
from app.implementations.serving.wire import (
    ClassifyBody,
    CompletionBody,
    LoadAdapterBody,
    UnloadAdapterBody,
    WireError,
    parse,
    to_json,
)

LONG_TEXT = 4096  # characters; beyond this, tokenizing is worth a thread

Route = Callable[[Request, Ready], Awaitable[Response]]


class Front:
    """The routes. ``draining`` refuses what is new while the rest ends."""

    def __init__(
        self, base_model: str, tokenizer: Tokenizer, link: CoreLink, secret: str | None, most_requests: int
    ) -> None:
        self.draining = False
        self._base_model = base_model
        self._tokenizer = tokenizer
        self._link = link
        self._secret = secret
        self._most_requests = most_requests
        self._metrics = EngineMetrics(base_model, link)
        self._routes: Mapping[tuple[str, str], Route] = {
            ("POST", "/v1/completions"): self._complete,
            ("POST", "/classify"): self._classify,
            ("GET", "/v1/models"): self._models,
            ("POST", "/v1/load_lora_adapter"): self._load_adapter,
            ("POST", "/v1/unload_lora_adapter"): self._unload_adapter,
            ("GET", "/metrics"): self._show_metrics,
        }

    async def handle(self, request: Request) -> Response:
        try:
            response = await self._dispatch(request)
        except WireError as error:
            response = error.response()
            if request.path in ("/v1/completions", "/classify"):
                self._metrics.refused(error.code or "")
        except CoreFailure as failure:
            wait = 1 if failure.status == 503 else None
            response = WireError(failure.status, failure.message, code=failure.code, retry_after=wait).response()
        return response

    async def _dispatch(self, request: Request) -> Response:
        if request.path == "/health" and request.method in ("GET", "HEAD"):
            return self._health()
        self._authenticate(request)
        route = self._routes.get((request.method, request.path))
        if route is None:
            if any(path == request.path for _, path in self._routes):
                raise WireError(405, f"{request.method} is not a method of {request.path}")
            raise WireError(404, "no such route", code="unknown_url")
        if self._link.ready is None or self.draining:
            raise WireError(503, self._state(), code="engine_unavailable", retry_after=2)
        return await route(request, self._link.ready)

    def _state(self) -> str:
        if self.draining:
            return "stopping"
        return "ok" if self._link.ready else "loading"

    def _health(self) -> Response:
        told = {"active": self._link.active, "idle_seconds": round(self._link.idle_seconds, 1)}
        body = {"status": self._state(), "model": self._base_model, **told}
        return Response(200 if body["status"] == "ok" else 503, to_json(body))

    def _authenticate(self, request: Request) -> None:
        if self._secret is None:
            return
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode("latin-1"), f"Bearer {self._secret}".encode()):
            raise WireError(401, "the engine's secret is missing or wrong", code="invalid_api_key")

    async def _complete(self, request: Request, ready: Ready) -> Response:
        body = parse(CompletionBody, _json_of(request))
        if ready.labels:
            message = f"{self._base_model} tells labels and writes no text: POST /classify"
            raise WireError(400, message, code="not_generative", param="model")
        adapter = self._adapter_named(body.model)
        if body.structured_outputs and not ready.end_ids:
            message = "structured_outputs: the base model has no token that ends an answer"
            raise WireError(400, message, code="invalid_request", param="structured_outputs")
        prompt_ids = await self._prompt_ids(body.prompt, ready)
        self._check_room(body.n)
        samplings = [_sampling(body, index, len(prompt_ids), ready) for index in range(body.n)]
        ticket = self._link.submit(prompt_ids, samplings, adapter, body.cache_salt or "", body.timeout)
        with_logprobs = body.logprobs is not None
        completion = Completion(body.model, len(prompt_ids), self._tokenizer, with_logprobs, body.stops, body.n)

        def close() -> None:
            ticket.close()
            self._metrics.ended(completion, ticket)

        try:
            return await self._answer(body, completion, ticket, close)
        except BaseException:
            close()
            raise

    async def _answer(
        self, body: CompletionBody, completion: Completion, ticket: Ticket, close: Callable[[], None]
    ) -> Response:
        if not body.stream:
            return Response(200, to_json(await whole(completion, ticket)), close=close)
        first = await completion.grow(ticket)  # before the status goes out: this request may yet fail
        include_usage = body.stream_options is not None and body.stream_options.include_usage
        stream = events(completion, ticket, first, include_usage)
        return Response(200, stream, "text/event-stream; charset=utf-8", [("cache-control", "no-store")], close)

    async def _classify(self, request: Request, ready: Ready) -> Response:
        """vLLM's answer, and the names of all ``labels`` in the order of ``probs``."""
        body = parse(ClassifyBody, _json_of(request))
        if not ready.labels:
            message = f"{self._base_model} has no label head: POST /v1/completions"
            raise WireError(400, message, code="no_label_head", param="model")
        if self._adapter_named(body.model) is not None:
            raise WireError(404, f"the model {body.model!r} does not exist", code="model_not_found", param="model")
        for text in body.texts:
            _check_ids(text, ready, "input", ready.context + 1)
        self._check_room(len(body.texts))
        tokens = sum(map(len, body.texts))
        outcome = "cancelled"
        try:
            # One after the other: behind a batch of many, another's single text need not wait for all of them.
            shares = [await self._link.classify(text) for text in body.texts]
            outcome = "label"
        except CoreFailure as failure:
            outcome = failure.code
            raise
        finally:
            self._metrics.classified(outcome, tokens)
        data = [
            {"index": n, "label": ready.labels[probs.index(max(probs))], "probs": probs, "num_classes": len(probs)}
            for n, probs in enumerate(map(list, shares))
        ]
        head = {"id": f"classify-{uuid4().hex}", "object": "list", "model": body.model, "labels": ready.labels}
        usage = {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens}
        return Response(200, to_json({**head, "data": data, "usage": usage}))

    def _check_room(self, more: int) -> None:
        if self._link.active + more > self._most_requests:
            raise WireError(429, "too many requests wait already", code="queue_full", retry_after=1)

    def _adapter_named(self, model: str) -> str | None:
        if model == self._base_model:
            return None
        if model not in self._link.adapters:
            raise WireError(404, f"the model {model!r} does not exist", code="model_not_found", param="model")
        return model

    async def _prompt_ids(self, prompt: str | list[int], ready: Ready) -> list[int]:
        if isinstance(prompt, str):
            if len(prompt) > LONG_TEXT:
                encoding = await asyncio.to_thread(self._tokenizer.encode, prompt)
            else:
                encoding = self._tokenizer.encode(prompt)
            prompt = encoding.ids
        _check_ids(prompt, ready, "prompt", ready.context)
        return prompt

    async def _models(self, request: Request, ready: Ready) -> Response:
        base = {"id": self._base_model, "object": "model", "created": 0, "owned_by": "engine"}
        adapters = [
            {
                "id": name,
                "object": "model",
                "created": int(adapter.since),
                "owned_by": "engine",
                "parent": self._base_model,
                "bytes": adapter.bytes,
                "pinned": adapter.pinned,
            }
            for name, adapter in self._link.adapters.items()
        ]
        data = [{**base, "max_model_len": ready.context}, *adapters]
        return Response(200, to_json({"object": "list", "data": data}))

    async def _load_adapter(self, request: Request, ready: Ready) -> Response:
        body = parse(LoadAdapterBody, _json_of(request))
        if body.lora_name == self._base_model:
            raise WireError(400, "lora_name is the base model's name", code="invalid_request", param="lora_name")
        if "\0" in body.lora_path or not Path(body.lora_path).is_absolute():
            raise WireError(400, "lora_path must be an absolute path", code="invalid_request", param="lora_path")
        if fault := await self._link.attach(body.lora_name, body.lora_path, body.pinned):
            raise WireError(400, f"the adapter was refused: {fault}", code="adapter_refused", param="lora_path")
        return Response(200, b"Success: the adapter is loaded.", "text/plain; charset=utf-8")

    async def _unload_adapter(self, request: Request, ready: Ready) -> Response:
        body = parse(UnloadAdapterBody, _json_of(request))
        if fault := await self._link.detach(body.lora_name):
            raise WireError(404, fault, code="model_not_found", param="lora_name")
        return Response(200, b"Success: the adapter is unloaded.", "text/plain; charset=utf-8")

    async def _show_metrics(self, request: Request, ready: Ready) -> Response:
        return Response(200, self._metrics.exposition(), "text/plain; version=0.0.4; charset=utf-8")


def _check_ids(ids: Sequence[int], ready: Ready, param: str, below: int) -> None:
    """``below``: so many tokens are too many."""
    if not ids:
        raise WireError(400, f"the {param} has no tokens", code="invalid_request", param=param)
    if max(ids) >= ready.vocabulary:
        message = f"{param}: ids must be below {ready.vocabulary}, the size of the vocabulary"
        raise WireError(400, message, code="invalid_request", param=param)
    if len(ids) >= below:
        room = f"the model's context is {ready.context}{'' if ready.labels else ', answer included'}"
        message = f"the {param} has {len(ids)} tokens; {room}"
        raise WireError(400, message, code="context_length_exceeded", param=param)


def _sampling(body: CompletionBody, index: int, prompt_tokens: int, ready: Ready) -> Sampling:
    """Of the choice with this index. The seeds of the choices are vLLM's: the request's, and one more for each."""
    schema = body.structured_outputs.json_text if body.structured_outputs else None
    # What has a schema ends where the schema does, and an end is all that may come there.
    runs_on = body.ignore_eos and schema is None
    stops = [*(body.stop_token_ids or ()), *(() if runs_on else ready.end_ids)]
    # An answer that would pass the context ends there, with the reason "length".
    room = ready.context - prompt_tokens
    logprobs = None if body.logprobs is None else min(body.logprobs, ready.vocabulary)
    adjusted = {
        "max_tokens": min(body.max_tokens, room),
        "top_k": max(0, body.top_k),
        "seed": None if body.seed is None else body.seed + index,
    }
    options = {one.name: getattr(body, one.name) for one in fields(SamplingOptions)} | adjusted
    return Sampling(**options, stop_token_ids=stops, logprobs=logprobs, schema=schema)


def _json_of(request: Request) -> bytes:
    if request.body is None:
        raise WireError(413, "the body is too large", code="body_too_large")
    # A web page may post text/plain to loopback without asking; JSON it may not (CORS preflight).
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise WireError(400, "the content type must be application/json", code="invalid_request")
    return request.body

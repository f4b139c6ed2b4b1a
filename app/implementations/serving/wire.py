"""The bodies of the inference wire: what vLLM's ``/v1/completions`` and adapter routes take and answer.

A field that this engine does not act on is refused, not ignored: an answer that disregards it would be wrong.
"""

import json
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from app.core.entities.inference import MOST_LOGPROBS
from app.implementations.serving.http_server import Response
from app.implementations.serving.messages import MOST_RUNNING

# At the first wrong id it stops: naming each of a million would hold up everybody's streams.
TokenIds = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(fail_fast=True)]
StopString = Annotated[str, Field(min_length=1, max_length=256)]
MOST_SCHEMA_BYTES = 64 * 1024


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _schema_text(schema: Any) -> str:
    """Given as an object, or as the text of one."""
    value = from_json(schema, allow_inf_nan=False) if isinstance(schema, str) else schema
    if not isinstance(value, dict):
        raise ValueError("a JSON schema is an object")
    text = json.dumps(value, allow_nan=False)
    if len(text) > MOST_SCHEMA_BYTES:
        raise ValueError(f"a JSON schema has at most {MOST_SCHEMA_BYTES} bytes")
    return text


class StreamOptions(_Body):
    include_usage: bool = False


class StructuredOutputs(_Body):
    """vLLM's name and, of what it takes, the one kind: ``json``, a schema."""

    json_text: Annotated[str, BeforeValidator(_schema_text)] = Field(alias="json")


class CompletionBody(_Body):
    """``prompt`` is text or token ids. Temperature 0 is greedy; ``max_tokens`` counts new tokens."""

    model: str = Field(min_length=1, max_length=256)
    prompt: str | TokenIds = Field(min_length=1)
    max_tokens: int = Field(16, ge=1, lt=2**31)
    temperature: float = Field(1.0, ge=0, le=1000)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=-1, lt=2**31)  # 0 and -1: all
    min_p: float = Field(0.0, ge=0, le=1)
    repetition_penalty: float = Field(1.0, gt=0, le=1000)
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: StopString | Annotated[list[StopString], Field(max_length=16)] | None = None
    stop_token_ids: TokenIds | None = Field(None, max_length=1024)
    stream: bool = False
    stream_options: StreamOptions | None = None
    logprobs: int | None = Field(None, ge=0, le=MOST_LOGPROBS)
    ignore_eos: bool = False
    structured_outputs: StructuredOutputs | None = None
    n: int = Field(1, ge=1, le=MOST_RUNNING)
    cache_salt: str | None = Field(None, min_length=1, max_length=256)  # prompts of others are shared with nobody
    timeout: float | None = Field(None, gt=0, le=86400)  # seconds for the whole answer; ours, not vLLM's
    user: str | None = None  # says who asks; changes nothing

    @property
    def stops(self) -> Sequence[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


class ClassifyBody(_Body):
    """Token ids of a text, or of several, each for itself."""

    model: str = Field(min_length=1, max_length=256)
    input: TokenIds | Annotated[list[TokenIds], Field(max_length=MOST_RUNNING)] = Field(min_length=1)

    @property
    def texts(self) -> Sequence[Sequence[int]]:
        return [one for one in self.input if isinstance(one, list)] or [
            [i for i in self.input if isinstance(i, int)]
        ]


class LoadAdapterBody(_Body):
    lora_name: str = Field(min_length=1, max_length=256)
    lora_path: str = Field(min_length=1, max_length=4096)
    pinned: bool = False  # never evicted; this engine's own, where vLLM has no such thing


class UnloadAdapterBody(_Body):
    lora_name: str = Field(min_length=1, max_length=256)


class WireError(Exception):
    """Answered with OpenAI's envelope."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry_after = retry_after  # seconds

    def envelope(self) -> dict[str, Any]:
        kind = {401: "authentication_error", 429: "rate_limit_error"}.get(
            self.status, "invalid_request_error" if self.status < 500 else "server_error"
        )
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        headers = [("retry-after", str(self.retry_after))] if self.retry_after else []
        if self.status == 401:
            headers.append(("www-authenticate", "Bearer"))
        return Response(self.status, to_json(self.envelope()), headers=headers)


def to_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


B = TypeVar("B", bound=_Body)


def parse(kind: type[B], body: bytes) -> B:
    """Raises ``WireError`` 400 with every fault."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        first = str(faults[0]["loc"][0]) if faults[0]["loc"] else None
        told = "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'body'}: {fault['msg']}" for fault in faults)
        raise WireError(400, told, code="invalid_request", param=first) from None

"""What front and core say to each other: one JSON array a line, ``["Submit", {…}]``.

JSON and not pickle, so that neither process ever runs what the other sends. Ids are the front's and never reused.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from app.core.entities.inference import SamplingOptions

FinishReason = Literal["stop", "length"]
Precision = Literal["auto", "bf16", "fp32", "int8", "nf4"]  # the last two of weights, with bf16 or fp32 beside
MOST_RUNNING = 64  # sequences that the core advances in one turn; others wait
LARGEST_LINE = 64 * 1024 * 1024  # bytes; a prompt of a million ids is about 8 MB


@dataclass(frozen=True, slots=True)
class Sampling(SamplingOptions):
    """How tokens are drawn and when they end.

    ``logprobs`` is how many alternatives to report a token; None: no logprobs.
    """

    stop_token_ids: Sequence[int] = ()  # with the model's own end-of-sequence ids, unless they are to be ignored
    logprobs: int | None = None
    schema: str | None = None  # of the JSON that the answer must be


@dataclass(frozen=True, slots=True)
class Submit:
    """front → core: generate. Requests of one ``sharing`` may have what was read of their prompts in common."""

    id: int
    prompt_ids: Sequence[int]
    sampling: Sampling
    adapter: str | None = None
    sharing: str = ""


@dataclass(frozen=True, slots=True)
class Cancel:
    """front → core: nobody waits for this one any more."""

    id: int


@dataclass(frozen=True, slots=True)
class Attach:
    """front → core: load an adapter, and pin it or not; answered by ``Answer``."""

    id: int
    name: str
    folder: str
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class Detach:
    """front → core: unload an adapter; answered by ``Answer``."""

    id: int
    name: str


@dataclass(frozen=True, slots=True)
class Classify:
    """front → core with a label head: read one text; answered by ``Classified``."""

    id: int
    ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class Ready:
    """core → front, once: the model is loaded."""

    context: int  # the most tokens of prompt and answer together
    vocabulary: int  # ids are below this
    end_ids: Sequence[int]
    labels: Sequence[str] = ()  # of a label head, which writes no text


@dataclass(frozen=True, slots=True)
class Classified:
    """core → front: each label's share, in the order of ``Ready.labels``."""

    id: int
    shares: Sequence[float]


@dataclass(frozen=True, slots=True)
class Token:
    """One new token. ``top`` is (id, logprob) of the most likely ones, best first."""

    id: int
    token: int
    finish: FinishReason | None = None
    logprob: float | None = None
    top: Sequence[tuple[int, float]] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """core → front: what one turn of the loop made, how many sequences run and wait after it, and what is held.

    ``batch``: sequences that took part. ``started``: those that got a place for the first time: their id, the
    seconds they waited for it, and how many tokens of the prompt need not be read.
    """

    tokens: Sequence[Token]
    running: int
    waiting: int
    kv_bytes: int = 0
    adapter_bytes: int = 0
    batch: int = 0
    started: Sequence[tuple[int, float, int]] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """core → front: this request ends without an answer. ``status`` is HTTP's."""

    id: int
    status: int
    message: str
    code: str = "engine_failed"


@dataclass(frozen=True, slots=True)
class Answer:
    """core → front: how an ``Attach`` or ``Detach`` went; ``fault`` is None when it was done.

    ``bytes``: what the adapter takes that was loaded.
    """

    id: int
    fault: str | None
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Evicted:
    """core → front: this adapter made room for another."""

    name: str


Message = Submit | Cancel | Attach | Detach | Classify | Ready | Turn | Classified | Failed | Answer | Evicted
_KINDS = {
    kind.__name__: kind
    for kind in (Submit, Cancel, Attach, Detach, Classify, Ready, Turn, Classified, Failed, Answer, Evicted)
}


def encode(message: Message) -> bytes:
    return json.dumps([type(message).__name__, message], default=_fields, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Message:
    kind, fields = json.loads(line)
    if kind == "Turn":
        tokens = [Token(**{**t, "top": [(i, p) for i, p in t["top"]]}) for t in fields["tokens"]]
        started = tuple((i, waited, reused) for i, waited, reused in fields["started"])
        return Turn(**{**fields, "tokens": tokens, "started": started})
    if kind == "Submit":
        fields["sampling"] = Sampling(**fields["sampling"])
    message: Message = _KINDS[kind](**fields)
    return message


def _fields(message: Any) -> dict[str, Any]:
    """Not ``asdict``: that copies each id of a prompt by itself."""
    return {name: getattr(message, name) for name in message.__match_args__}

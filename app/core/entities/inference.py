"""A generation, from the gateway to the engine and back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from app.core.entities.datasets import Message
from app.core.entities.engines import EngineName
from app.core.entities.tool_calls import Tool, ToolCall

FinishReason = Literal["stop", "length", "tool_calls"]  # the last is no engine's


@dataclass(frozen=True, slots=True)
class Adapter:
    """What an engine attaches: a name unique for ever (the version's id) and the folder with its weights."""

    name: str
    folder: str
    pinned: bool = False  # an engine that can keeps it in memory


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn."""

    temperature: float = 1.0  # below 1 sharper, 0 always the likeliest
    top_k: int = 0  # from so many of the likeliest; 0: from all
    top_p: float = 1.0  # from the fewest of those that hold this share of the probability


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """How an answer is drawn and where it ends, by vLLM's names and meanings. ``OPTION_LIMITS`` has the ranges."""

    max_tokens: int = 512  # new ones
    temperature: float = 0.0  # 0: always the likeliest token
    top_p: float = 1.0
    top_k: int = 0  # 0: from all
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: Sequence[str] = ()
    ignore_eos: bool = False
    logprobs: int | None = None  # of each token, and of so many of the likeliest in its place
    n: int = 1  # answers to the one prompt
    json_schema: Mapping[str, Any] | None = None  # what the answer, as JSON, has to keep to
    deadline_seconds: float | None = None  # for the whole of it, the wait for a place included


# What a client may ask for, least and most.
OPTION_LIMITS: Mapping[str, tuple[float, float]] = {
    "max_tokens": (1, 32_768),
    "temperature": (0, 2),
    "top_p": (0.001, 1),
    "top_k": (0, 1_000_000),
    "min_p": (0, 1),
    "repetition_penalty": (0.01, 10),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "seed": (0, 2**63 - 1),
    "deadline_seconds": (0.1, 3600),
}
MOST_STOPS = 4
LONGEST_STOP = 256
MOST_LOGPROBS = 20


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A conversation to go on with. Without ``model`` the first resident base answers."""

    messages: Sequence[Message]
    model: str | None = None
    options: AnswerOptions = field(default_factory=AnswerOptions)
    conversation: str | None = None  # the caller's own name for it
    tools: Sequence[Tool] = ()  # that the model may call


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """Texts to go on with as they are, each for itself: no template, no turns. ``model`` as in ChatRequest.

    A text may be given as the model's own token ids.
    """

    prompts: Sequence[str | Sequence[int]]
    model: str | None = None
    options: AnswerOptions = field(default_factory=AnswerOptions)


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    base_model: str
    prompt_ids: Sequence[int]
    options: AnswerOptions
    stop_token_ids: Sequence[int] = ()
    adapter: Adapter | None = None
    sharing: str | None = None  # requests of one name may have in common what was read of their prompts
    version: str | None = None  # the artifacts of one with an engine of its own; None: the base model's engine

    @property
    def engine(self) -> EngineName:
        return EngineName(self.base_model, self.version)


@dataclass(frozen=True, slots=True)
class LabelRequest:
    """Texts for a label head, each for itself."""

    engine: EngineName
    texts: Sequence[Sequence[int]]  # token ids
    deadline_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    token: str
    logprob: float
    top: Mapping[str, float]  # of the likeliest in its place, and its own


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a generation's ``n`` texts."""

    text: str
    finish_reason: FinishReason
    logprobs: Sequence[TokenLogprob] | None = None


@dataclass(frozen=True, slots=True)
class TokenCounts:
    prompt: int
    completion: int


@dataclass(frozen=True, slots=True)
class Generation:
    choices: Sequence[Choice]
    tokens: TokenCounts

    @property
    def text(self) -> str:
        return self.choices[0].text


@dataclass(frozen=True, slots=True)
class Piece:
    """Of a generation that streams: what is new of a choice. The last of all has the counts, and no more."""

    text: str = ""
    logprobs: Sequence[TokenLogprob] = ()
    finish_reason: FinishReason | None = None  # with the last of its choice
    choice: int = 0
    tokens: TokenCounts | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """``reasoning`` is what stood between the think tags; None where the model does not think aloud."""

    text: str
    reasoning: str | None
    finish_reason: FinishReason
    logprobs: Sequence[TokenLogprob] | None = None
    tool_calls: Sequence[ToolCall] = ()


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model said to a conversation: ``n`` answers, of which the first is at hand."""

    answers: Sequence[Answer]
    model: str  # the reference that answered, or the base model's name
    tokens: TokenCounts

    @property
    def first(self) -> Answer:
        return self.answers[0]

    @property
    def prompt_tokens(self) -> int:
        return self.tokens.prompt

    @property
    def others(self) -> Sequence[Answer]:
        return self.answers[1:]


@dataclass(frozen=True, slots=True)
class LabelPrediction:
    """What a label head told of a text: the likeliest label, and each one's share."""

    label: str
    scores: Mapping[str, float]
    model: str
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class AnswerPiece:
    """What is new of an answer that streams. The last of all has the counts, and no more."""

    text: str = ""
    reasoning: str = ""
    logprobs: Sequence[TokenLogprob] = ()
    finish_reason: FinishReason | None = None
    choice: int = 0
    tokens: TokenCounts | None = None
    tool_calls: Sequence[ToolCall] = ()

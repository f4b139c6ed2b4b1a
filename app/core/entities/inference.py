"""A generation, from the gateway to the engine and back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
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


def _option(default: float | None, about: str, least: float, most: float) -> Any:
    """Declare an option that is a number: what it does, and the least and most that a client may ask for."""
    return field(default=default, metadata={"about": about, "least": least, "most": most})


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """Options for drawing tokens, and how many at most; names and meanings are vLLM's."""

    max_tokens: int = _option(512, "new tokens at most, reasoning among them", 1, 32_768)
    temperature: float = _option(0.0, "0 always takes the likeliest token", 0, 2)
    top_p: float = _option(1.0, "draw from the likeliest tokens that hold this share of the probability", 0.001, 1)
    top_k: int = _option(0, "draw from so many of the likeliest tokens; 0: from all", 0, 1_000_000)
    min_p: float = _option(0.0, "draw from tokens at least this likely, beside the likeliest", 0, 1)
    repetition_penalty: float = _option(1.0, "above 1: what stands in prompt or answer, less", 0.01, 10)
    presence_penalty: float = _option(0.0, "above 0: what the answer has said already, less", -2, 2)
    frequency_penalty: float = _option(0.0, "the same for each time that it has said it", -2, 2)
    seed: int | None = _option(None, "the same answer again", 0, 2**63 - 1)


@dataclass(frozen=True, slots=True)
class AnswerOptions(SamplingOptions):
    """Options of an answer: how it is drawn, where it ends, and what is told of it."""

    deadline_seconds: float | None = _option(None, "for the whole of it; then 503 `engine_timeout`", 0.1, 3600)
    stop: Sequence[str] = ()
    ignore_eos: bool = False
    logprobs: int | None = None  # of each token, and of so many of the likeliest in its place
    n: int = 1  # answers to the one prompt
    json_schema: Mapping[str, Any] | None = None  # what the answer, as JSON, has to keep to


@dataclass(frozen=True, slots=True)
class NumericOption:
    """An option that is a number, and what a client may give for it; None only if that is its default."""

    default: float | None
    whole: bool
    about: str
    least: float
    most: float


NUMERIC_OPTIONS: Mapping[str, NumericOption] = {
    one.name: NumericOption(getattr(AnswerOptions(), one.name), one.type in (int, int | None), **one.metadata)
    for one in fields(AnswerOptions)
    if one.metadata
}
MOST_STOPS = 4
LONGEST_STOP = 256
MOST_LOGPROBS = 20  # vLLM's default limit


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

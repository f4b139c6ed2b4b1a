"""A row of data as the token ids that its objective trains on: the same for the check of a job and for its run."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from app.core.entities.datasets import Conversation, TokenizedRow
from app.core.entities.reasoning import without_thought, without_thoughts
from app.core.entities.training_config import TrainingConfig
from app.core.errors import Fault, Invalid
from app.core.factories import OBJECTIVES
from app.core.interfaces.components import ChatTokenizer
from app.core.interfaces.parts import ObjectivePart


def encode(
    conversation: Conversation, tokenizer: ChatTokenizer, config: TrainingConfig, labels: Sequence[str] = ()
) -> Sequence[TokenizedRow]:
    """One row, or the pieces of a long text; ``row`` is the conversation's.

    ``labels`` is ``labels_of`` the cut's training rows, for an objective with a label head.
    ``Invalid`` with the faults of a row that the objective cannot use (wrong_shape: it wants other rows).
    """
    rows = _encoded(config.objective, as_trained(conversation, config), tokenizer, config.max_length)
    if config.has_label_head:
        return [_with_class(row, conversation.label, labels) for row in rows]
    return rows


def encode_whole(
    conversation: Conversation, tokenizer: ChatTokenizer, config: TrainingConfig
) -> Sequence[TokenizedRow]:
    """As ``encode``, with nothing cut off: a long text is one piece, and a label has no class."""
    return _encoded(config.objective, as_trained(conversation, config), tokenizer, None)


def as_trained(conversation: Conversation, config: TrainingConfig) -> Conversation:
    """With the thoughts that ``reasoning`` keeps. ``Invalid`` (only_a_thought) where no answer is left."""
    if config.reasoning == "keep":
        return conversation
    messages = without_thoughts(conversation.messages)
    rejected = without_thought(conversation.rejected) if conversation.rejected else None
    for answer in (*messages[-1:], *([rejected] if rejected else ())):
        if not answer["content"]:
            raise _fault("", "only_a_thought", "has an answer of which reasoning: drop leaves nothing")
    return replace(conversation, messages=messages, rejected=rejected)


def labels_of(rows: Iterable[Conversation]) -> list[str]:
    """The different labels in alphabetical order; a label's place is its class."""
    return sorted({row.label for row in rows if row.label is not None})


def encode_prompt(text: str, tokenizer: ChatTokenizer, config: TrainingConfig) -> list[int]:
    """Encode what a model trained so is given to go on from: a user's question, or the beginning of a text."""
    prompt: list[int] = OBJECTIVES.load(config.objective).prompt(text, tokenizer)
    return prompt


def encode_by_shape(
    conversation: Conversation, tokenizer: ChatTokenizer, max_length: int
) -> Sequence[TokenizedRow]:
    """Encode a row as the objective would that rows of this shape are for."""
    return _encoded(objective_of(conversation), conversation, tokenizer, max_length)


def objective_of(conversation: Conversation) -> str:
    """Name the first objective that rows of this shape are for."""
    return next(name for name in OBJECTIVES if conversation.shape in OBJECTIVES.load(name).rows)


def _encoded(
    objective: str, conversation: Conversation, tokenizer: ChatTokenizer, max_length: int | None
) -> Sequence[TokenizedRow]:
    declared: ObjectivePart = OBJECTIVES.load(objective)
    if conversation.shape not in declared.rows:
        message = f"is {conversation.shape}, and the objective {objective} trains on {declared.wanted}"
        raise Invalid(message, code="wrong_shape")
    return [replace(row, row=conversation.row) for row in declared.encode(conversation, tokenizer, max_length)]


def _with_class(row: TokenizedRow, label: str | None, labels: Sequence[str]) -> TokenizedRow:
    if label not in labels:
        raise _fault("label", "unknown_label", f"is {str(label)[:80]!r}, which no training row has")
    if not row.input_ids:
        raise _fault("text", "no_token", "has nothing that this base model's tokenizer keeps")
    return replace(row, class_id=labels.index(label))


def _fault(where: str, code: str, message: str) -> Invalid:
    return Invalid(f"{where} {message}", code=code, faults=[Fault(where, code, message)])

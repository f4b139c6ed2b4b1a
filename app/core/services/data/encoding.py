"""A row of data as the token ids that its objective trains on: the same for the check of a job and for its run."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from app.core.entities.datasets import IGNORED, Conversation, Message, TokenizedRow
from app.core.entities.reasoning import without_thought, without_thoughts
from app.core.entities.training_config import TrainingConfig
from app.core.errors import Fault, Invalid
from app.core.interfaces.components import ChatTokenizer

Objective = Literal["sft", "dpo", "pretrain", "classification"]
Encoder = Callable[[Conversation, ChatTokenizer, int | None], Sequence[TokenizedRow]]

CONVERSATION, PAIR, TEXT, LABELLED = "a conversation", "a preference pair", "a plain text", "a labelled text"


def encode(
    conversation: Conversation, tokenizer: ChatTokenizer, config: TrainingConfig, labels: Sequence[str] = ()
) -> Sequence[TokenizedRow]:
    """One row, or the pieces of a long text; ``row`` is the conversation's.

    ``labels`` is ``labels_of`` the cut's training rows, for the objective classification.
    ``Invalid`` with the faults of a row that the objective cannot use (wrong_shape: it wants other rows).
    """
    rows = _encoded(config.objective, as_trained(conversation, config), tokenizer, config.max_length)
    if config.objective == "classification":
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
    """What a model that was trained so is given to go on from: a user's question, or the beginning of a text."""
    if config.objective == "pretrain":
        return tokenizer.encode_text(text)[:-1]  # it goes on
    return tokenizer.encode_prompt([{"role": "user", "content": text}])


def encode_by_shape(
    conversation: Conversation, tokenizer: ChatTokenizer, max_length: int
) -> Sequence[TokenizedRow]:
    """As the objective would that rows of this shape are for."""
    return _encoded(objective_of(conversation), conversation, tokenizer, max_length)


def objective_of(conversation: Conversation) -> Objective:
    """The first that rows of this shape are for."""
    shape = _shape(conversation)
    return next(objective for objective, encoders in _ENCODERS.items() if shape in encoders)


def _encoded(
    objective: Objective, conversation: Conversation, tokenizer: ChatTokenizer, max_length: int | None
) -> Sequence[TokenizedRow]:
    encoders, shape = _ENCODERS[objective], _shape(conversation)
    if shape not in encoders:
        raise Invalid(
            f"is {shape}, and the objective {objective} trains on {_WANTED[objective]}", code="wrong_shape"
        )
    rows = encoders[shape](conversation, tokenizer, max_length)
    return [replace(row, row=conversation.row) for row in rows]


def _shape(conversation: Conversation) -> str:
    if conversation.text is not None:
        return TEXT if conversation.label is None else LABELLED
    return CONVERSATION if conversation.rejected is None else PAIR


def _answers(
    conversation: Conversation, tokenizer: ChatTokenizer, max_length: int | None
) -> Sequence[TokenizedRow]:
    return [tokenizer.encode_training(conversation.messages, max_length)]


def _pair(conversation: Conversation, tokenizer: ChatTokenizer, max_length: int | None) -> Sequence[TokenizedRow]:
    """The chosen answer's row with the rejected one's, supervised after the prompt that they share."""
    assert conversation.rejected is not None
    prompt = conversation.messages[:-1]
    length = len(tokenizer.encode_prompt(prompt))

    def after_prompt(answer: Message) -> TokenizedRow:
        row = tokenizer.encode_training([*prompt, answer], max_length)
        labels = [IGNORED] * min(length, len(row.labels)) + list(row.labels[length:])
        return replace(row, row=conversation.row, labels=labels)

    chosen, rejected = after_prompt(conversation.messages[-1]), after_prompt(conversation.rejected)
    if chosen.supervised and chosen.input_ids == rejected.input_ids:
        raise Invalid(
            f"both answers are the same within max_length ({max_length} tokens): shorten the row or raise it",
            code="same_answer",
        )
    truncated, dropped = chosen.truncated + rejected.truncated, chosen.dropped + rejected.dropped
    return [replace(chosen, rejected=rejected, truncated=truncated, dropped=dropped)]


def _pieces(
    conversation: Conversation, tokenizer: ChatTokenizer, max_length: int | None
) -> Sequence[TokenizedRow]:
    """Every token supervised, up to the end of a conversation's last turn.

    A piece begins with the last token of the one before it: its own first token is nobody's target.
    """
    dropped = 0
    if conversation.text is None:
        whole = tokenizer.encode_training(conversation.messages, None)
        ids, dropped = whole.input_ids, whole.dropped
    else:
        ids = tokenizer.encode_text(conversation.text)
    step = (max_length or len(ids) + 1) - 1
    pieces = [ids[start : start + step + 1] for start in range(0, max(1, len(ids) - 1), max(1, step))]
    return [TokenizedRow(0, piece, piece, dropped=0 if n else dropped) for n, piece in enumerate(pieces)]


def _plain(conversation: Conversation, tokenizer: ChatTokenizer, max_length: int | None) -> Sequence[TokenizedRow]:
    """Not as a chat turn: a text to classify is no question, and plain transformers reads it alike."""
    assert conversation.text is not None
    return [tokenizer.encode_plain(conversation.text, max_length)]


def _with_class(row: TokenizedRow, label: str | None, labels: Sequence[str]) -> TokenizedRow:
    if label not in labels:
        raise _fault("label", "unknown_label", f"is {str(label)[:80]!r}, which no training row has")
    if not row.input_ids:
        raise _fault("text", "no_token", "has nothing that this base model's tokenizer keeps")
    return replace(row, class_id=labels.index(label))


def _fault(where: str, code: str, message: str) -> Invalid:
    return Invalid(f"{where} {message}", code=code, faults=[Fault(where, code, message)])


_ENCODERS: Mapping[Objective, Mapping[str, Encoder]] = {
    "sft": {CONVERSATION: _answers},
    "dpo": {PAIR: _pair},
    "pretrain": {TEXT: _pieces, CONVERSATION: _pieces},
    "classification": {LABELLED: _plain},
}
_WANTED = {
    "sft": "conversations: messages, or instruction and output, or prompt and completion",
    "dpo": "preference pairs: prompt, chosen and rejected, or input, preferred_output and non_preferred_output",
    "pretrain": "plain texts (text) or conversations (messages)",
    "classification": "labelled texts: text and label",
}

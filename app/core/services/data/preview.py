"""What a row becomes: its tokens in order, each trained, masked or truncated."""

from dataclasses import replace

from app.core.entities.datasets import IGNORED, Conversation, TokenizedRow
from app.core.entities.previews import Kind, PreviewSequence, PreviewToken, RowPreview
from app.core.entities.training_config import TrainingConfig
from app.core.interfaces.components import ChatTokenizer
from app.core.services.data.encoding import encode, encode_whole
from app.core.services.data.ledger import count_row


def preview(conversation: Conversation, tokenizer: ChatTokenizer, config: TrainingConfig) -> RowPreview:
    """Of any objective. ``Invalid`` as ``encode``; a label is taken as it is, whatever the other rows have."""
    labels = () if conversation.label is None else (conversation.label,)
    rows = encode(conversation, tokenizer, config, labels)
    count = count_row(rows)
    if len(rows) > 1:
        sequences = [
            _sequence(f"piece {number}", row, row, tokenizer, skip=min(number - 1, 1))
            for number, row in enumerate(rows, 1)
        ]
    else:
        (row,), (whole,) = rows, encode_whole(conversation, tokenizer, config)
        if row.class_id is not None:
            row = _with_reading_place(row, tokenizer)
        sequences = [_sequence("row" if row.rejected is None else "chosen", row, whole, tokenizer)]
        if row.rejected is not None and whole.rejected is not None:
            sequences.append(_sequence("rejected", row.rejected, whole.rejected, tokenizer))
    return RowPreview(
        conversation.row, config.objective, config.reasoning, tuple(sequences), count, conversation.label
    )


def _sequence(
    name: str, kept: TokenizedRow, whole: TokenizedRow, tokenizer: ChatTokenizer, skip: int = 0
) -> PreviewSequence:
    """``kept`` is ``whole`` less a part that was cut out, at the end or before the special tokens that end it."""
    cut = len(whole.input_ids) - len(kept.input_ids)
    ids = list(whole.input_ids)
    start = len(kept.input_ids)
    if cut:
        start = next(
            (n for n, (a, b) in enumerate(zip(kept.input_ids, ids, strict=False)) if a != b), len(kept.input_ids)
        )
    kinds: list[Kind] = ["masked" if label == IGNORED else "trained" for label in kept.labels]
    if kinds and kept.class_id is None:
        kinds[0] = "masked"  # nobody's target
    beyond: Kind = "truncated"
    kinds[start:start] = [beyond] * cut
    texts = tokenizer.token_texts(ids)
    tokens = [PreviewToken(*token) for token in zip(ids, texts, kinds, strict=True)]
    return PreviewSequence(name, tuple(tokens[skip:]))


def _with_reading_place(row: TokenizedRow, tokenizer: ChatTokenizer) -> TokenizedRow:
    """A label on the one token at which the head reads the text: the last, and an encoder's first."""
    labels = [IGNORED] * len(row.input_ids)
    place = len(labels) - 1 if tokenizer.generates else 0
    labels[place] = row.input_ids[place]
    return replace(row, labels=labels)

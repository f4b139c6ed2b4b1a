"""What a row becomes: its tokens in order, each trained, masked or truncated; as data, and for a terminal."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from app.core.entities.datasets import IGNORED, Conversation, TokenizedRow
from app.core.entities.previews import Kind, PreviewSequence, PreviewToken, RowPreview
from app.core.entities.training_config import TrainingConfig
from app.core.interfaces.components import ChatTokenizer
from app.core.services.data.encoding import encode, encode_whole
from app.core.services.data.ledger import count_row

# Two of each, in turn: where one token ends and the next begins. Black on green, grey, red and struck through.
_COLOURS: dict[Kind, tuple[str, str]] = {
    "trained": ("30;42", "30;102"),
    "masked": ("90", "37"),
    "truncated": ("31;9", "91;9"),
}
_BRACKETS: dict[Kind, tuple[str, str]] = {"trained": ("[", "]"), "masked": ("", ""), "truncated": ("{", "}")}
_BEGUN = "‥"  # a token with some bytes of a character, which stands with the last of them
_SIGNS = {" ": "·", "\n": "⏎", "\t": "→", "\r": "␍", "\u00a0": "⍽"}


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


def render_preview(preview: RowPreview, colour: bool) -> str:
    """For a terminal, with a legend: colours, or brackets around what is trained and braces around what is cut.

    Each token is shown as it is, white space by signs, and control characters by their pictures.
    """
    count = preview.count
    about = f"row {preview.row} · {preview.objective} · reasoning: {preview.reasoning}"
    about += "" if preview.label is None else f" · label: {_visible(preview.label)}"
    words = {kind: f"{kind} {getattr(count, kind)}" for kind in _COLOURS}
    legend = "  ".join(
        _coloured(text, kind) if colour else _bracketed([text], kind) for kind, text in words.items()
    )
    lines = [about, f"{legend}  dropped {count.dropped}  of {count.total} tokens"]
    for sequence in preview.sequences:
        lines += ["", *([f"{sequence.name}:"] if len(preview.sequences) > 1 else [])]
        lines.append("".join(_rendered(sequence.tokens, colour)))
    return "\n".join(lines) + "\n"


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


def _rendered(tokens: Sequence[PreviewToken], colour: bool) -> Iterator[str]:
    """Each token in colour; without it, neighbours of a kind in one pair of brackets, a bar between two of them.

    Where a line of the text ends, one ends here.
    """
    for kind, group in groupby(tokens, key=lambda token: token.kind):
        texts = [_visible(token.text) or _BEGUN for token in group]
        yield (
            "".join(_coloured(text, kind, n) for n, text in enumerate(texts))
            if colour
            else _bracketed(texts, kind)
        )


def _bracketed(texts: Sequence[str], kind: Kind) -> str:
    opening, closing = _BRACKETS[kind]
    return f"{opening}{'|'.join(texts)}{closing}"


def _coloured(text: str, kind: Kind, number: int = 0) -> str:
    """The colour ends before a line does: a terminal would paint the rest of it."""
    colour = _COLOURS[kind][number % 2]
    return "\n".join(f"\033[{colour}m{line}\033[0m" if line else "" for line in text.split("\n"))


def _visible(text: str) -> str:
    """White space by signs. What would move the cursor, or turn the direction of the text, is written as U+…"""
    return "".join(_sign(character) for character in text)


def _sign(character: str) -> str:
    if character in _SIGNS:
        return _SIGNS[character] + ("\n" if character == "\n" else "")
    if character.isprintable() or character == "\u200d":  # the joiner of emoji
        return character
    return f"<U+{ord(character):04X}>"

"""Show in a terminal what a row becomes."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from app.core.entities.previews import Kind, PreviewToken, RowPreview

# Two of each, in turn: where one token ends and the next begins. Black on green, grey, red and struck through.
_COLOURS: dict[Kind, tuple[str, str]] = {
    "trained": ("30;42", "30;102"),
    "masked": ("90", "37"),
    "truncated": ("31;9", "91;9"),
}
_BRACKETS: dict[Kind, tuple[str, str]] = {"trained": ("[", "]"), "masked": ("", ""), "truncated": ("{", "}")}
_BEGUN = "‥"  # a token with some bytes of a character, which stands with the last of them
_SIGNS = {" ": "·", "\n": "⏎", "\t": "→", "\r": "␍", "\u00a0": "⍽"}


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

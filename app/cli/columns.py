"""Texts that grow, side by side in a terminal."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import click

GAP = " │ "
_WORDS = re.compile(r"\S+\s*|\s+")


def plain(text: str) -> str:
    """Without what would steer the terminal: a model may say anything."""
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")


def cells(text: str) -> int:
    """Columns of a terminal that it takes."""
    return sum(map(_cells, text))


def wrap(text: str, width: int) -> list[str]:
    """Rows of at most ``width`` columns. More text changes nothing but the last of them."""
    rows: list[str] = []
    for line in text.expandtabs(4).split("\n"):
        row = ""
        for word in _WORDS.findall(line):
            if row and cells(row) + cells(word.rstrip()) > width:
                rows.append(row.rstrip())
                row = ""
            while cells(word.rstrip()) > width:
                head = _head(word, width)
                rows.append(head)
                word = word[len(head) :]
            row += word
        rows.append(row)
    return rows


@dataclass(frozen=True, slots=True)
class Row:
    text: str = ""
    dim: bool = False


class Column:
    """One text. Its rows but the last stay as they are."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._done: list[Row] = []
        self._last = Row()
        self.ended = False

    def push(self, text: str, dim: bool) -> None:
        if not text:
            return
        if self._last.dim and not dim:  # after the reasoning the answer has a row of its own
            self._done.append(self._last)
            self._last = Row()
        *rows, last = wrap(self._last.text + plain(text), self._width)
        self._done += [Row(row, dim) for row in rows]
        self._last = Row(last, dim)

    def row(self, place: int) -> Row | None:
        """None: it has not come so far."""
        rows = [*self._done[place : place + 1], self._last] if place <= len(self._done) else []
        return rows[0] if rows else Row() if self.ended else None

    def is_final(self, place: int) -> bool:
        return self.ended or place < len(self._done)

    @property
    def count(self) -> int:
        return len(self._done) + 1


class SideBySide:
    """Columns that are written row by row, as far as all of them have come; ``live``: the row on its way too."""

    def __init__(self, columns: Sequence[Column], width: int, write: Callable[[str], None], live: bool) -> None:
        self._columns = columns
        self._width = width
        self._write = write
        self._live = live
        self._next = 0

    def draw(self) -> None:
        while self._next < max(column.count for column in self._columns):
            line = GAP.join(self._cell(column.row(self._next) or Row()) for column in self._columns)
            if all(column.is_final(self._next) for column in self._columns):
                self._write(f"\r{line}\n" if self._live else f"{line.rstrip()}\n")
                self._next += 1
                continue
            if self._live:
                self._write(f"\r{line}")
            return

    def _cell(self, row: Row) -> str:
        text = row.text.rstrip()
        padded = text + " " * (self._width - cells(text))
        return click.style(padded, dim=True) if row.dim else padded


def _cells(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Cc", "Cf", "Me", "Mn"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _head(word: str, width: int) -> str:
    """As much of it as goes into a row: a character at least."""
    end, taken = 0, 0
    for character in word:
        taken += _cells(character)
        if taken > width:
            break
        end += 1
    return word[: max(1, end)]

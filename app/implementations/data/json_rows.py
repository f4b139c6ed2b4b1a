"""Rows of jsonl files, line by line, and of json arrays, through a window that slides over the text."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from app.core.entities.datasets import DataLimits
from app.core.errors import Fault
from app.implementations.data.raw_file import RawFile, Unreadable, not_utf8, row_too_large
from app.implementations.data.validation import Faults, too_deep

NumberedRow = tuple[int, Any]  # 1-based: the place in the array, or the line

_SPACE = re.compile(r"[ \t\n\r]*")
# A value that ends, or a fault that lies, so close to the end of what is read may be another when more is read.
_MARGIN = 16
_ELSE = "one object a line is a .jsonl file"
_KINDS = {"{": "an object", '"': "a text", "t": "true or false", "f": "true or false", "n": "null"}


class RowDecoder:
    """JSON to Python. What Python would let pass and JSON or a reader would not is noted in ``problems``."""

    def __init__(self) -> None:
        self.problems: list[tuple[str, str]] = []  # (code, message)
        self._json = json.JSONDecoder(
            object_pairs_hook=self._object,
            parse_constant=self._constant,
            parse_float=self._float,
            parse_int=self._int,
        )

    def decode(self, text: str) -> Any:
        """The one value of a text. Raises what ``json.loads`` does."""
        self.problems.clear()
        return self._json.decode(text)

    def decode_at(self, text: str, start: int) -> tuple[Any, int]:
        """The value that begins there, and where it ends."""
        self.problems.clear()
        return self._json.raw_decode(text, start)

    def tell(self, where: str, faults: Faults) -> bool:
        """Whether there were problems: they are faults now."""
        for code, message in self.problems:
            faults.add(where, code, message)
        return bool(self.problems)

    def _object(self, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
            self._note("duplicate_key", f"has the key {twice[:50]!r} more than once in one object: keep one")
        return found

    def _constant(self, name: str) -> None:
        self._note(
            "invalid_number", f"has the number {name}, which JSON does not know: write null or leave it out"
        )

    def _float(self, digits: str) -> float | None:
        value = float(digits)
        if value in (float("inf"), float("-inf")):
            self._note("invalid_number", "has a number that is too large to be kept: write it as a text")
            return None
        return value

    def _int(self, digits: str) -> int | None:
        try:
            return int(digits)
        except ValueError:  # Python reads 4300 digits at most
            self._note("invalid_number", "has a number that is absurdly long: write it as a text")
            return None

    def _note(self, code: str, message: str) -> None:
        if (code, message) not in self.problems:
            self.problems.append((code, message))


def json_lines(raw: RawFile, limits: DataLimits, faults: Faults) -> Iterator[NumberedRow]:
    decoder = RowDecoder()
    for number, line in raw.lines(limits.row_bytes):
        if faults.hopeless:
            return
        if line is None:
            faults.take(row_too_large(number, limits.row_bytes))
            continue
        if line.isspace():
            continue
        try:
            row = decoder.decode(line.decode().rstrip("\r\n"))
        except UnicodeDecodeError as error:
            faults.take(not_utf8(error, number, error.start + 1))
        except json.JSONDecodeError as error:
            faults.add(f"line {number}, column {error.colno}", "invalid_json", f"is not JSON: {error.msg}")
        except RecursionError:
            faults.add(f"row {number}", "too_deep", too_deep(limits.depth))
        else:
            if not decoder.tell(f"row {number}", faults):
                yield number, row


def json_array(raw: RawFile, limits: DataLimits, faults: Faults) -> Iterator[NumberedRow]:
    """The text is JSON up to the first fault of its syntax, where the reading ends: ``Unreadable``."""
    window = _Window(raw.chunks(), limits)
    first = window.character()
    if first is None:
        return
    if first != "[":
        kind = _KINDS.get(first, "a number" if first in "-0123456789" else f"{first!r}")
        raise Unreadable(Fault("file", "wrong_type", f"must hold an array of rows, not {kind}; {_ELSE}"))
    window.step()
    number, closed = 0, window.character() == "]"
    while not closed:
        if faults.hopeless:
            return
        number += 1
        row = window.value(number)
        if not window.decoder.tell(f"row {number}", faults):
            yield number, row
        separator = window.character()
        if separator not in (",", "]"):
            why = "a comma or ] is due after a row" if separator else "the file ends before the array does"
            raise Unreadable(Fault(window.where(), "invalid_json", f"is not JSON: {why}"))
        closed = separator == "]"
        if not closed:
            window.step()
    window.step()
    if window.character() is not None:
        message = f"is not JSON: something follows the array; {_ELSE}"
        raise Unreadable(Fault(window.where(), "invalid_json", message))


class _Window:
    """A part of a long text, and a place in it. It reads on as it is asked, and forgets what was read."""

    def __init__(self, chunks: Iterator[str], limits: DataLimits) -> None:
        self.decoder = RowDecoder()
        self._chunks = chunks
        self._limits = limits
        self._text = ""
        self._at = 0
        self._line = self._column = 1  # of the text's first character
        self._ended = False

    def character(self) -> str | None:
        """The next one that is no white space: it is stepped to, not over. None at the end."""
        while True:
            found = _SPACE.match(self._text, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return None
            self._read_on()

    def step(self) -> None:
        self._at += 1

    def value(self, number: int) -> Any:
        self.character()
        while True:
            value, end, is_whole = None, len(self._text), False
            try:
                value, end = self.decoder.decode_at(self._text, self._at)
                is_whole = self._ended or end + _MARGIN < len(self._text)
            except json.JSONDecodeError as error:
                self._refuse(error)
            except RecursionError:
                fault = Fault(f"row {number}", "too_deep", too_deep(self._limits.depth))
                raise Unreadable(fault) from None
            self._refuse_large(number, end)
            if is_whole:
                self._at = end
                return value
            self._read_on()

    def where(self, place: int | None = None) -> str:
        """Line and column of a place in the text: the one at hand, unless another is named."""
        place = self._at if place is None else place
        line, column = self._after(place)
        return f"line {line}, column {column}"

    def _refuse(self, error: json.JSONDecodeError) -> None:
        """Unless it may only be that the text ends in the middle of a value, and there is more."""
        is_open = error.msg.startswith("Unterminated string")
        if not self._ended and (is_open or error.pos + _MARGIN >= len(self._text)):
            return
        hint = ": the file ends in the middle of a row" if is_open or error.pos >= len(self._text) else ""
        message = f"is not JSON: {error.msg}{hint}"
        raise Unreadable(Fault(self.where(error.pos), "invalid_json", message)) from None

    def _refuse_large(self, number: int, end: int) -> None:
        limit = self._limits.row_bytes
        is_long = (end - self._at) * 4 > limit  # a character has 4 bytes at most
        if is_long and len(self._text[self._at : end].encode()) > limit:
            raise Unreadable(row_too_large(number, limit))

    def _read_on(self) -> None:
        """At least as much again as is left, so that a long row is not parsed too often."""
        self._line, self._column = self._after(self._at)
        parts = [self._text[self._at :]]
        wanted = len(parts[0])
        while wanted >= 0 and not self._ended:
            piece = next(self._chunks, None)
            self._ended = piece is None
            parts.append(piece or "")
            wanted -= len(parts[-1]) or 1
        self._text, self._at = "".join(parts), 0

    def _after(self, place: int) -> tuple[int, int]:
        breaks = self._text.count("\n", 0, place)
        if not breaks:
            return self._line, self._column + place
        return self._line + breaks, place - self._text.rfind("\n", 0, place)

"""Bytes of a json or jsonl file to rows, every fault with its line and column."""

from __future__ import annotations

import codecs
import json
from typing import Any, NoReturn

from app.implementations.data.validation import Faults, json_type

SUFFIXES = (".json", ".jsonl")

_OTHER_ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_NO_ROWS = "has no rows"

NumberedRow = tuple[int, Any]  # 1-based: the place in the array, or the line


def parse_rows(content: bytes, suffix: str, faults: Faults) -> list[NumberedRow]:
    """Rows of any JSON type; what cannot be read is added to ``faults`` (``where``: file, or line and column)."""
    text = _decode(content, faults)
    if text is None:
        return []
    before = len(faults)
    rows = _lines(text, faults) if suffix == ".jsonl" else _array(text, faults)
    if not rows and len(faults) == before:
        faults.add("file", "no_rows", _NO_ROWS if text.strip() else "is empty")
    return rows


def _decode(content: bytes, faults: Faults) -> str | None:
    for mark, name in _OTHER_ENCODINGS.items():
        if content.startswith(mark):
            faults.add("file", "encoding", f"is {name}: save it as UTF-8")
            return None
    if b"\0" in content[:4]:
        faults.add("file", "encoding", "is not UTF-8 text (perhaps UTF-16): save it as UTF-8")
        return None
    try:
        return content.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        message = f"the byte 0x{error.object[error.start]:02X} is not UTF-8: save the file as UTF-8"
        faults.add(f"line {line}, byte {column}", "encoding", message)
        return None


def _lines(text: str, faults: Faults) -> list[NumberedRow]:
    rows: list[NumberedRow] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if faults.hopeless:
            break
        if line.strip():
            rows.extend((number, value) for value in _load(line, number, faults))
    return rows


def _array(text: str, faults: Faults) -> list[NumberedRow]:
    for value in _load(text, None, faults) if text.strip() else ():
        if isinstance(value, list):
            return list(enumerate(value, start=1))
        message = f"must hold an array of rows, not {json_type(value)}"
        faults.add("file", "wrong_type", f"{message}; one object a line is a .jsonl file")
    return []


def _load(text: str, line: int | None, faults: Faults) -> tuple[Any, ...]:
    """The one value, or none and a fault."""
    where = f"line {line}" if line else "file"
    try:
        return (json.loads(text, parse_constant=_refuse_constant, parse_float=_finite),)
    except json.JSONDecodeError as error:
        hint = "; one object a line is a .jsonl file" if error.msg == "Extra data" and not line else ""
        where = f"line {line or error.lineno}, column {error.colno}"
        faults.add(where, "invalid_json", f"is not JSON: {error.msg}{hint}")
    except RecursionError:
        faults.add(where, "too_deep", "is nested too deep")
    except ValueError:
        faults.add(where, "invalid_json", "has a number that is infinite, NaN or absurdly long")
    return ()


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError
    return value

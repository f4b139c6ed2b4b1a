"""Whether an answer states a fact: the check behind the accuracy of a fine-tuned model."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_NUMBER = re.compile(r"(?:(?<!\S)\.)?(?:\d{1,3}(?: \d{3})+(?!\d)|\d+)(?:[.,'’⁄]\d+)*")
_CJK = re.compile(r"[\u3005-\u3007\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]")


def states_fact(answer: str, keys: Sequence[Sequence[str]]) -> bool:
    """Whether ``answer`` states the fact that ``keys`` describe.

    ``keys`` is a list of requirements, each a list of accepted alternatives. The answer states the fact when
    for every requirement at least one alternative occurs in it. Without requirements it states nothing.

    Both sides are normalised first: Unicode NFKC, casefold, white space folded to single spaces. Then an
    alternative occurs where

    - no letter and no digit touches it on either side;
    - neither of its ends lies inside a longer number, decimals and thousands included: "5 euros" occurs
      neither in "15 euros" nor in "4.5 euros", "1,005 euros" or "1 005 euros";
    - letters may touch where one of the two characters is Chinese, Japanese or Korean, as these scripts
      write no spaces, digits still may not: "45天" occurs in "收货后45天内", not in "145天". Nor may one
      numeral of these scripts touch another: "四年" does not occur in "十四年".
    """
    text = _normalise(answer)
    return bool(keys) and all(any(_occurs(_normalise(one), text) for one in options) for options in keys)


def _normalise(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _occurs(wanted: str, text: str) -> bool:
    if not wanted:
        return False
    numbers = [match.span() for match in _NUMBER.finditer(text)]
    start = text.find(wanted)
    while start >= 0:
        end = start + len(wanted)
        glued = (start > 0 and _glued(text[start], text[start - 1])) or (
            end < len(text) and _glued(text[end - 1], text[end])
        )
        if not glued and not any(a < edge < b for a, b in numbers for edge in (start, end)):
            return True
        start = text.find(wanted, start + 1)
    return False


def _glued(edge: str, neighbour: str) -> bool:
    """Whether ``neighbour`` continues the word or the number that ends in ``edge``."""
    if neighbour.isdecimal() or (edge.isnumeric() and neighbour.isnumeric()):
        return True
    return neighbour.isalpha() and not (_CJK.match(edge) or _CJK.match(neighbour))

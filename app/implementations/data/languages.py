"""Which language a text is in.

py3langid has its model of 5 MB in the package and needs nothing but numpy; on a short text it says how sure it is,
and here it may say that it is not. lingua is better with single words, and has models of a hundred megabytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

from app.implementations.data.near_duplicates import data_extra

_SURE = 0.5  # of py3langid's confidence, which it lowers for short texts by itself
_ENOUGH = 2000  # characters tell; a book would only take longer
_NOT_PROSE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`|https?://\S+|\S+@\S+", re.DOTALL)
_LETTER = re.compile(r"[^\W\d_]")
_FEWEST_LETTERS = 3


@cache  # the model takes half a second to read
def language_finder() -> Callable[[str], str | None]:
    """A function from a text to its language's ISO 639-1 code, None where that is uncertain or no language."""
    with data_extra("languages"):
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    # Without dialects and creoles that differ from the large language beside them by little: wuu, yue, pcm.
    identifier.set_languages([code for code in identifier.labels if len(code) == 2 or code == "zxx"])

    def find(text: str) -> str | None:
        prose = _NOT_PROSE.sub(" ", text[:_ENOUGH])
        if len(_LETTER.findall(prose)) < _FEWEST_LETTERS:
            return None
        code, confidence = identifier.classify(prose)
        return str(code) if confidence >= _SURE and code != "zxx" else None

    return find

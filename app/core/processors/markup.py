"""HTML to text: what was scraped from a page or an e-mail, not what speaks of HTML."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_BLOCK_NAMES = (
    "address|article|aside|blockquote|body|div|dl|dd|dt|fieldset|figure|figcaption|footer|form|h[1-6]|head|header|hr|"
    "html|main|nav|ol|p|pre|section|table|tbody|td|tfoot|th|thead|title|tr|ul"
)
_INLINE_NAMES = "a|abbr|b|big|br|cite|code|em|font|i|img|ins|kbd|li|mark|s|small|span|strike|strong|sub|sup|u"
_NAMES = f"{_BLOCK_NAMES}|{_INLINE_NAMES}"
_BLOCK = re.compile(_BLOCK_NAMES)
# A whole tag of a known name. "<" ends an attempt, so that a million of "<p" take no longer than a million of "p".
_TAG = re.compile(rf"</?(?:{_NAMES})(?:\s(?:[^<>\"']|\"[^\"<]*\"|'[^'<]*')*)?/?>", re.IGNORECASE)
_TELLING = re.compile(rf"</(?:{_NAMES})\s*>|<br\s*/?>", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:amp|lt|gt|quot|apos|nbsp|#\d{1,7}|#x[0-9a-f]{1,6});", re.IGNORECASE)
_BARE_AMPERSAND = re.compile(r"&(?!(?:[a-z][a-z0-9]{1,31}|#\d{1,7}|#x[0-9a-f]{1,6});)", re.IGNORECASE)
_ABOUT = re.compile(r"\b(?:html5?|xhtml|xml|css|svg|jsx|javascript|markup|markdown|tags)\b", re.IGNORECASE)
_CODE = re.compile(r"(```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]+`)", re.DOTALL)


def is_html(text: str) -> bool:
    """Whether it has closing tags, line breaks or entities outside code, and says nothing of markup."""
    if "<" not in text and "&" not in text:
        return False
    prose = _prose(text)
    return bool(_TELLING.search(prose) or _ENTITY.search(prose)) and not speaks_of_markup(text)


def speaks_of_markup(text: str) -> bool:
    return _ABOUT.search(_TAG.sub("", _prose(text))) is not None


def without_html(text: str) -> str:
    """Code is kept as it stands; tags of no HTML (``<think>``) are text."""
    pieces = _CODE.split(text)
    pieces[::2] = [_to_text(piece) for piece in pieces[::2]]
    return "".join(pieces)


def _prose(text: str) -> str:
    """What is not code. The blank keeps the parts on both sides of it from making a tag."""
    return " ".join(_CODE.split(text)[::2])


def _to_text(html: str) -> str:
    reader = _Reader()
    # The parser also reads entities without their semicolon, as in ?a=1&copy=2.
    reader.feed(_only_known_tags(_BARE_AMPERSAND.sub("&amp;", html)))
    reader.close()
    return "".join(reader.said)


def _only_known_tags(html: str) -> str:
    """All other ``<`` as an entity, which the parser takes for text."""
    parts = []
    end = 0
    for tag in _TAG.finditer(html):
        parts += [html[end : tag.start()].replace("<", "&lt;"), tag[0]]
        end = tag.end()
    return "".join([*parts, html[end:].replace("<", "&lt;")])


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.said: list[str] = []
        self._in_pre = False

    def handle_data(self, data: str) -> None:
        self.said.append(data.replace("\N{NO-BREAK SPACE}", " "))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "pre":
            self._in_pre = True
        self.said.append(self._mark(tag, opening=True))

    def handle_endtag(self, tag: str) -> None:
        self.said.append(self._mark(tag, opening=False))
        if tag == "pre":
            self._in_pre = False

    def _mark(self, tag: str, opening: bool) -> str:
        """What stands for a tag: code becomes Markdown's, for a model is to tell it from prose."""
        if tag == "pre":
            return "\n```\n"
        if tag in ("code", "kbd"):
            return "" if self._in_pre else "`"
        if tag == "li":
            return "\n- " if opening else ""
        if tag == "br":
            return "\n" if opening else ""
        if tag == "tr" or (tag in ("p", "ul", "ol", "table") and not opening):
            return "\n"
        if tag in ("td", "th"):
            return "" if opening else " "
        return "\n" if _BLOCK.fullmatch(tag) else ""

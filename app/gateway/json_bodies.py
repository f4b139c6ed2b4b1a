"""JSON from strangers: RFC 8259, and no deeper, no stranger, no more ambiguous than this service needs."""

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from flask import Request
from marshmallow import RAISE, Schema, ValidationError
from webargs.flaskparser import FlaskParser, is_json_request
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from app.core.errors import Fault, Invalid

DEEPEST = 32

# Possessive, and the end quote optional: an unterminated string costs one pass and not its length squared.
_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_AS_SQUARE = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_CODES = {"Missing data for required field.": "missing", "Unknown field.": "extra_forbidden"}


class Malformed(Invalid):
    """Not JSON at all, so that no field can be named."""

    status = 400
    default_code = "malformed_json"


def parse_json(body: bytes) -> Any:
    """``Malformed`` for what is not JSON, is nested deeper than 32, or means two things at once."""
    if _too_deep(body):
        raise Malformed(f"the JSON is nested deeper than {DEEPEST}", code="json_too_deep")
    twice: list[str] = []

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) < len(pairs):
            seen: set[str] = set()
            twice.extend(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        return result

    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=once, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise Malformed(f"the body is not JSON: {error.msg} at {place}") from None
    except UnicodeDecodeError:
        raise Malformed("the body is not UTF-8") from None
    except ValueError:  # Python reads no integer of more than 4,300 digits
        raise Malformed("the body holds a number with too many digits") from None
    # Only an escape can bring in a NUL, which PostgreSQL refuses, or half a surrogate pair, which no one encodes.
    if b"\\u" in body and not all(map(_is_text, _strings(value))):
        raise Malformed("a string holds \\u0000 or half a surrogate pair", code="invalid_text")
    if twice:
        faults = [Fault(key, "duplicate_key", "the key is given twice") for key in twice]
        raise Malformed("the body gives a key twice", code="duplicate_key", faults=faults)
    return value


def _too_deep(body: bytes) -> bool:
    """Before the parser, which recurses. Each pass takes the innermost pairs away, at the speed of memory."""
    brackets = _STRINGS.sub(b"", body).translate(_AS_SQUARE, _NO_BRACKETS)
    for _ in range(DEEPEST):
        outer = brackets.replace(b"[]", b"")
        if len(outer) == len(brackets):  # only what has no partner is left: the parser names the place
            return brackets.count(b"[") > DEEPEST
        brackets = outer
    return b"[" in brackets


def _no_constant(name: str) -> NoReturn:
    raise Malformed(f"{name} is not JSON")


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, dict):
        yield from value
        for item in value.values():
            yield from _strings(item)


def _is_text(string: str) -> bool:
    try:
        string.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in string


class RequestParser(FlaskParser):
    """Loads what the decorators ask for; what a schema refuses becomes one ``Invalid`` with every fault."""

    DEFAULT_UNKNOWN_BY_LOCATION = {**FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION, "query": RAISE}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self._schemas: dict[type[Schema], Schema] = {}

    def _get_schema(self, argmap: Any, req: Request) -> Schema:
        """Made once: to make one takes longer than to read a body with it."""
        if isinstance(argmap, type) and issubclass(argmap, Schema):
            return self._schemas.setdefault(argmap, self._schemas.get(argmap) or argmap())
        schema: Schema = super()._get_schema(argmap, req)
        return schema

    def load_json(self, req: Request, schema: Schema) -> Any:
        if not is_json_request(req):
            raise UnsupportedMediaType
        body = req.get_data(cache=True)
        if req.content_length is None and len(body) == req.max_content_length:
            raise RequestEntityTooLarge  # werkzeug has cut a chunked body there, without a word
        return parse_json(body)

    def load_files(self, req: Request, schema: Schema) -> Any:
        """The fields beside them too."""
        return self._makeproxy(MultiDict([*req.form.items(multi=True), *req.files.items(multi=True)]), schema)

    def handle_error(
        self,
        error: ValidationError,
        req: Request,
        schema: Schema,
        *,
        error_status_code: int | None,
        error_headers: Any,
    ) -> NoReturn:
        messages = error.messages
        if isinstance(messages, dict) and len(messages) == 1:
            messages = next(iter(messages.values()))  # webargs puts the location on top: json, query
        raise Invalid("the request has faults", faults=list(_faults(messages, ())))


def _faults(messages: Any, path: tuple[str, ...]) -> Iterator[Fault]:
    """``messages`` of marshmallow: mappings by key and lists of texts, or of Faults that are whole already."""
    if isinstance(messages, dict):
        for key, nested in messages.items():
            yield from _faults(nested, path if key == "_schema" else (*path, str(key)))
    elif isinstance(messages, list):
        for item in messages:
            yield from _faults(item, path)
    elif isinstance(messages, Fault):
        yield messages
    else:
        text = str(messages)
        yield Fault(".".join(path) or "body", _CODES.get(text, "invalid"), text)

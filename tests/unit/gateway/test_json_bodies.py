"""The JSON that this service reads."""

import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.gateway.json_bodies import DEEPEST, Malformed, parse_json

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text('ab[]{}\\"'), inner),
)


@given(JSON)
@example({"[[[[": "]]]]", '"': "\\"})
@example("[" * 1000)
def test_it_reads_what_json_writes(value):
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.binary(max_size=100) | st.text('[]{}":,\\u0123456789 ', max_size=60).map(str.encode))
def test_it_agrees_with_python_or_refuses(body):
    try:
        value = parse_json(body)
    except Malformed:
        return
    assert value == json.loads(body)


def nested(depth):
    return b"[" * depth + b"]" * depth


def test_the_deepest():
    assert parse_json(nested(DEEPEST))
    assert parse_json(b'{"a":' * DEEPEST + b"1" + b"}" * DEEPEST)
    with pytest.raises(Malformed, match="nested deeper"):
        parse_json(nested(DEEPEST + 1))


def test_brackets_in_strings_are_no_nesting():
    assert parse_json(json.dumps({"a": "[" * 100_000 + '\\"' + "{" * 100_000}).encode())


@pytest.mark.parametrize(
    "body",
    [
        b'"' + rb"\"" * 2_000_000,  # an unterminated string of escaped quotes
        b'"a' * 2_000_000,
        b"[" * 5_000_000,
        b"]" * 5_000_000,
        b"[]" * 2_500_000,
        b'["\\' * 1_000_000,
        b"{}[" * 1_500_000,
    ],
)
def test_a_hostile_body_costs_no_more_than_its_length(body):
    started = time.process_time()
    with pytest.raises(Malformed):
        parse_json(body)
    assert time.process_time() - started < 5  # linear: a fraction of a second; squared: days

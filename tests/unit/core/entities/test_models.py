"""References to published versions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.entities.models import Reference
from app.core.errors import Invalid

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)


@given(names, st.none() | st.integers(1, 999_999_999))
def test_a_reference_is_a_name_and_perhaps_a_number(name: str, number: int | None) -> None:
    text = name if number is None else f"{name}:{number}"
    assert Reference.parse(text) == Reference(name, number)


@pytest.mark.parametrize(
    "text",
    [
        *("", ":1", "a:", "a:0", "a:01", "a:-1", "a:1.0", "a:x", "a:1:2", "-a", ".a", "../a", "a/b", "a b"),
        *("a:1\n", "a\n", "x" * 65, "a:1234567890", "a:¹", "ä"),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="name or name:3"):
        Reference.parse(text)


@given(st.text(max_size=200))
def test_whatever_comes_is_a_reference_or_refused_briefly(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except Invalid as refused:
        answer = refused.message
    else:
        answer = reference.name
    assert len(answer) < 500

"""The check of messages and its quick way through sound ones."""

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from app.implementations.data.validation import (
    OURS,
    Faults,
    _check_message,
    _role_if_sound,
    check_text,
    is_unicode,
)

CONTENT = st.none() | st.integers() | st.text(max_size=3) | st.sampled_from(["", " \n", "a\0", "\ud800", "é", "q"])
MESSAGES = st.dictionaries(
    st.sampled_from(["role", "content", "weight", "name", "tool_calls"]),
    CONTENT | st.sampled_from(["user", "assistant", "system", "bot"]) | st.lists(st.just("user"), max_size=1),
    max_size=4,
)


@given(message=MESSAGES | st.integers() | st.fixed_dictionaries({"role": st.just("user"), "content": CONTENT}))
@example(message={"role": "user", "content": "q"})
@example(message={"role": "user", "content": "\u2003"})
def test_the_quick_way_says_what_the_whole_check_says(message: Any) -> None:
    faults = Faults()
    role = _check_message("messages[0]", message, faults)
    quick = _role_if_sound(message, OURS)
    assert quick is None or (quick == role and not faults)
    if isinstance(message, dict) and message.keys() == {"role", "content"} and not faults:
        assert quick == role


@given(text=st.text(st.characters()))
@example(text="\0")
@example(text="é\udfff")
def test_a_tokenizer_takes_what_utf8_can_write_without_nul(text: str) -> None:
    encodable = text == text.encode("utf-8", "ignore").decode() and "\0" not in text
    assert is_unicode(text) == encodable
    assert check_text("x", text, Faults()) == bool(encodable and text.strip())

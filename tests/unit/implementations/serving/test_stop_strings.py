"""Stops are found wherever the text is cut."""

from hypothesis import given
from hypothesis import strategies as st

from app.implementations.serving.stop_strings import StopStrings

letters = st.text("abc", max_size=12)


@given(st.lists(letters, max_size=8), st.lists(st.text("abc", min_size=1, max_size=4), max_size=3))
def test_the_answer_ends_before_a_stop_however_the_text_is_cut(pieces: list[str], stops: list[str]) -> None:
    finder = StopStrings(stops)
    said = "".join(finder.push(piece) for piece in pieces) + finder.finish()
    text = "".join(pieces)
    ends = [place for stop in stops if (place := text.find(stop)) >= 0]
    if ends and len(pieces) == 1:
        assert said == text[: min(ends)]
    # A stop that is complete ends the answer at once, before another that began earlier and is not complete yet.
    assert text.startswith(said)
    assert (finder.found is None) == (not ends)
    assert not any(stop in said for stop in stops)
    if not ends:
        assert said == text


def test_what_may_be_a_stop_waits() -> None:
    finder = StopStrings(["</s>", "\n\n"])
    assert [finder.push(piece) for piece in ("a<", "b", "\n", "c</", "s>d", "e")] == ["a", "<b", "", "\nc", "", ""]
    assert finder.found == "</s>"
    assert StopStrings(["ab"]).push("a") == ""


def test_what_never_became_a_stop_is_said_in_the_end() -> None:
    finder = StopStrings(["stop"])
    assert (finder.push("sto"), finder.finish(), finder.found) == ("", "sto", None)

"""Clean texts stay as they are, dirty ones become clean at once, and code is not touched."""

import unicodedata
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.entities.data_pipeline import CleaningOptions, PipelineConfig
from app.core.entities.datasets import Conversation
from app.core.entities.recording import Recorder
from app.core.interfaces.components import unwatched
from app.core.processors.cleaning import CleanRows, clean_row, clean_text, is_empty
from app.core.processors.markup import is_html

ALL = CleaningOptions()
# What the cleaning looks for, so that random texts are full of it.
PIECES = st.sampled_from(
    [
        *("<b>", "</b>", "<br/>", "<pre>", "</pre>", "<code>", "</code>", "<p>", "</p>", "<li>", "<think>"),
        *(
            "&amp;",
            "&lt;",
            "b&gt;",
            "&nbsp;",
            "&#101;",
            "&#769;",
            "&",
            "<",
            ">",
            "`",
            "```",
            "~~~",
            "html",
            "```py",
        ),
        *(" ", "  ", "\t", "\n", "\n\n\n", "\r\n", "\r", "\0", "\x1b", "\x85", "\ufeff", "\u037e", "\u1fef"),
        *("ﬁ", "e\u0301", "é", "2⁸", "word", "中文", "👩\u200d👩\u200d👧", "\u202e", '"', "'", "="),
    ]
)
TEXTS = st.one_of(st.lists(PIECES, max_size=25).map("".join), st.text(max_size=60))
OPTIONS = st.builds(
    CleaningOptions,
    unicode=st.sampled_from(["NFC", "NFKC", "none"]),
    control_characters=st.booleans(),
    html=st.booleans(),
    white_space=st.booleans(),
)


def row(question: str, answer: str, number: int = 1, **extra: object) -> Conversation:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return Conversation(number, messages, extra=extra)


@settings(deadline=None, max_examples=500)
@given(TEXTS, OPTIONS)
def test_cleaning_again_changes_nothing(text: str, options: CleaningOptions) -> None:
    cleaned, done = clean_text(text, options)
    assert clean_text(cleaned, options) == (cleaned, ())
    assert bool(done) == (cleaned != text)


@settings(deadline=None)
@given(TEXTS)
def test_what_is_clean_is_normal(text: str) -> None:
    cleaned, _ = clean_text(text, ALL)
    assert unicodedata.is_normalized("NFC", cleaned)
    assert not any(unicodedata.category(c) == "Cc" and c not in "\n\t" for c in cleaned)


@pytest.mark.parametrize(
    ("dirty", "clean", "why"),
    [
        ("cafe\u0301", "café", ("characters",)),
        ("2⁸ ≠ ²8 and ﬁne", "2⁸ ≠ ²8 and ﬁne", ()),
        ("a\0b\x1b[0m\r\nc\rd\te", "ab[0m\nc\nd\te", ("characters",)),
        ("\n\n  Hello  \n\n\n\nthere \n\n", "Hello\n\nthere", ("white_space",)),
        ("a  b", "a  b", ()),
        ("<p>Dear&nbsp;<b>Anna</b>,</p><p>R&amp;D says 3 &lt; 4.</p>", "Dear Anna,\n\nR&D says 3 < 4.", None),
        ("Hello<br>World", "Hello\nWorld", ("html",)),
        ("<ul><li>one</li><li>two</li></ul>", "- one\n- two", None),
        ("see ?a=1&copy=2<br>", "see ?a=1&copy=2", None),
        ("<p>run</p><pre>if a:\n    b</pre>", "run\n\n```\nif a:\n    b\n```", None),
        ("👩‍👩‍👧 \u202eabc", "👩‍👩‍👧 \u202eabc", ()),
    ],
)
def test_examples(dirty: str, clean: str, why: tuple[str, ...] | None) -> None:
    cleaned, done = clean_text(dirty, ALL)
    assert cleaned == clean
    assert why is None or done == why


@pytest.mark.parametrize(
    "text",
    [
        "Write `<b>word</b>` for bold.",
        "```html\n<p>  kept   </p>  \n\n\n\n</p>\n```",
        "In HTML, <b>word</b> is bold.",
        "How do I close a <div>?",
        "<think>Is 3 < 4?</think>Yes.",
        "List<String> names; if (a && b) { c &= d; }",
        "&lt;b&gt; is shown as &amp;lt;b&amp;gt;",
        "~~~\nopen to the end  \n\n\n",
    ],
)
def test_what_shows_or_speaks_of_markup_stays(text: str) -> None:
    assert clean_text(text, ALL) == (text, ())


def test_nfkc_is_an_option() -> None:
    assert clean_text("2⁸ ﬁ", CleaningOptions(unicode="NFKC"))[0] == "28 fi"


@pytest.mark.parametrize(
    "text", ["<p " * 100_000, '<p "' * 100_000, "</p>" * 100_000, "`" * 300_000, "&" * 300_000]
)
def test_hostile_texts_are_read_in_linear_time(text: str) -> None:
    """In quadratic time each would take minutes."""
    clean_text(text, ALL)
    assert is_html(text) == ("</p>" in text)


def test_every_text_of_a_row_is_cleaned() -> None:
    pair = Conversation(1, row("a ", "b ").messages, rejected={"role": "assistant", "content": "c "})
    cleaned = clean_row(pair, ALL)
    assert [message["content"] for message in cleaned.messages] == ["a", "b"]
    assert cleaned.rejected == {"role": "assistant", "content": "c"}
    assert clean_row(Conversation(2, [], text=" d", label="x"), ALL).text == "d"
    assert clean_row(cleaned, ALL) is cleaned


def test_an_answer_in_html_stays_where_html_was_asked_for() -> None:
    asked = row("Write it in HTML, please.", "<p>Open from 9 to 5.</p>")
    assert clean_row(asked, ALL) is asked
    assert clean_row(row("When?", "<p>Open from 9 to 5.</p>"), ALL).messages[1]["content"] == "Open from 9 to 5."


def cleaned(rows: list[Conversation], options: CleaningOptions, record: Recorder) -> Sequence[Conversation]:
    return CleanRows(PipelineConfig(cleaning=options)).process(rows, record, unwatched)


def test_empty_rows_and_duplicates_go_and_are_counted() -> None:
    rows = [row("a", "b", 1), row("<br>", "b", 2), row("a ", "b", 3, id="other"), row("a", "c", 4)]
    recorder = Recorder("clean", None)
    kept = cleaned(rows, ALL, recorder)
    record = recorder.record(len(rows), len(kept))
    assert [row.row for row in kept] == [1, 4]
    assert kept[0] is rows[0]
    assert (record.rows_before, record.rows_after, record.rows_dropped, record.rows_changed) == (4, 2, 2, 0)
    assert {**record.reasons} == {
        "duplicate": 1,
        "empty_after_cleaning": 1,
        "html+white_space": 1,
        "white_space": 1,
    }
    assert [(warning.row, warning.code) for warning in record.warnings] == [(2, "empty_after_cleaning")]
    assert [(c.row, c.where) for c in record.changes if c.after is None] == [(2, "row"), (3, "row")]


def test_equal_rows_of_two_splits_are_no_duplicates() -> None:
    rows = [
        Conversation(number, row("a", "b").messages, split) for number, split in enumerate(["train", "test"], 1)
    ]
    assert len(cleaned(rows, ALL, Recorder("clean", 0))) == 2


def test_duplicates_may_stay() -> None:
    rows = [row("a", "b", 1), row("a", "b", 2)]
    assert len(cleaned(rows, CleaningOptions(duplicates=False), Recorder("clean", 0))) == 2


def test_half_a_row_is_an_empty_row() -> None:
    assert is_empty(row("question", " \n"))
    assert not is_empty(row("question", "answer"))

"""Texts side by side: rows of a width, whatever comes however it is cut."""

from hypothesis import given
from hypothesis import strategies as st

from app.cli.columns import GAP, Column, SideBySide, cells, plain, wrap

TEXTS = st.lists(st.sampled_from(["a", "word ", "longer-than-a-row", " ", "\n", "好", "é", "e\u0301", "👍"])).map(
    "".join
)
WIDTH = 8


def rows(column):
    column.ended = True
    return [column.row(place).text.rstrip() for place in range(column.count)]


@given(TEXTS)
def test_rows_are_no_wider_than_they_may_be_and_lose_nothing(text):
    wrapped = wrap(text, WIDTH)
    assert all(cells(row.rstrip()) <= WIDTH for row in wrapped)
    assert "".join("".join(wrapped).split()) == "".join(text.split())


@given(text=TEXTS, data=st.data())
def test_a_text_in_pieces_has_the_same_rows(text, data):
    cut = data.draw(st.integers(0, len(text)))
    whole, pieces = Column(WIDTH), Column(WIDTH)
    whole.push(text, dim=False)
    for piece in (text[:cut], text[cut:]):
        pieces.push(piece, dim=False)
    assert rows(pieces) == rows(whole)


def test_words_are_kept_together():
    assert wrap("one two three", 8) == ["one two", "three"]
    assert wrap("a\n\nb", 8) == ["a", "", "b"]
    assert wrap("好好好好好", 8) == ["好好好好", "好"]


def test_control_characters_are_left_out():
    assert plain("a\x1b[2J\x9b\r\nb\tc\u200d") == "a[2J\nb\tc\u200d"


def drawn(live):
    """Two columns, the second ahead of the first."""
    columns = [Column(6), Column(6)]
    said = []
    table = SideBySide(columns, 6, said.append, live)
    columns[1].push("one two three", dim=False)
    table.draw()
    columns[0].push("thought", dim=True)
    columns[0].push("x", dim=False)
    table.draw()
    before = len(said)
    for column in columns:
        column.ended = True
    table.draw()
    return said, before


def test_a_row_is_written_when_all_columns_have_come_so_far():
    said, before = drawn(live=False)
    assert "".join(said) == "\x1b[2mthough\x1b[0m │ one\n\x1b[2mt     \x1b[0m │ two\nx      │ three\n"
    assert before == 2


def test_a_row_on_its_way_is_shown_where_it_can_be_written_anew():
    said, _ = drawn(live=True)
    assert said[0] == f"\r      {GAP}one   "
    assert said[-1] == f"\rx     {GAP}three \n"

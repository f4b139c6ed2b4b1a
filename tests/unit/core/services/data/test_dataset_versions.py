"""What became of rows from one version to another."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from app.core.entities.datasets import Conversation, row_key
from app.core.services.data.dataset_versions import compare


def row(number, question, answer="yes"):
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return Conversation(number, messages)


def test_places_do_not_matter_and_a_new_answer_is_a_change():
    before = [row(1, "a"), row(2, "b"), row(3, "c"), row(4, "d")]
    after = [row(1, "c"), row(2, "b", "no"), row(3, "a"), row(4, "e")]
    unchanged, changes = compare(before, after)
    assert unchanged == 2
    assert [
        (change.kind, change.before and change.before.row, change.after and change.after.row) for change in changes
    ] == [
        ("changed", 2, 2),
        ("added", None, 4),
        ("removed", 4, None),
    ]


def test_equal_rows_are_counted():
    unchanged, changes = compare([row(1, "a"), row(2, "a")], [row(1, "a")])
    assert (unchanged, [change.kind for change in changes]) == (1, ["removed"])


some_rows = st.lists(st.builds(row, st.integers(1, 9), st.sampled_from("abc"), st.sampled_from(["yes", "no"])))


@given(some_rows, some_rows)
def test_every_row_is_accounted_for(before, after):
    unchanged, changes = compare(before, after)
    kinds = Counter(change.kind for change in changes)
    assert unchanged + kinds["changed"] + kinds["removed"] == len(before)
    assert unchanged + kinds["changed"] + kinds["added"] == len(after)
    left = Counter(map(row_key, before))
    left.subtract(row_key(change.before) for change in changes if change.before)
    left.update(row_key(change.after) for change in changes if change.after)
    assert left == Counter(map(row_key, after))

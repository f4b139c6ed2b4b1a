"""References to published versions, and aliases."""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.entities.models import ModelAlias, Reference
from app.core.errors import Invalid

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)


@given(names, st.none() | st.integers(1, 999_999_999))
def test_a_reference_is_a_name_and_perhaps_a_number(name: str, number: int | None) -> None:
    text = name if number is None else f"{name}:{number}"
    assert Reference.parse(text) == Reference(name, number)


@given(names, names)
def test_or_a_name_and_an_alias(name: str, alias: str) -> None:
    assert Reference.parse(f"{name}@{alias}") == Reference(name, alias=alias)


@pytest.mark.parametrize(
    "text",
    [
        *("", ":1", "a:", "a:0", "a:01", "a:-1", "a:1.0", "a:x", "a:1:2", "-a", ".a", "../a", "a/b", "a b"),
        *("a@", "@b", "a@b:1", "a:1@b", "a@b@c", "a@-b", "a@b\n"),
        *("a:1\n", "a\n", "x" * 65, "a:1234567890", "a:¹", "ä"),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="name, name:3 or name@alias"):
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


def alias(weights: Mapping[int, int], **changes: str) -> ModelAlias:
    names = {"project_id": "default", "model": "support", "alias": "champion", **changes}
    return ModelAlias(**names, weights=weights, set_by=None, set_at=datetime(2026, 1, 1, tzinfo=UTC))


CONVERSATIONS = [f"conversation-{number}" for number in range(4000)]


def test_a_split_follows_its_weights_and_a_conversation_stays() -> None:
    split = alias({3: 90, 4: 10})
    drawn = [split.draw(conversation) for conversation in CONVERSATIONS]
    assert drawn == [alias({4: 10, 3: 90}).draw(conversation) for conversation in CONVERSATIONS]
    assert 320 < Counter(drawn)[4] < 480  # 400, and four standard deviations of 19
    assert {split.draw() for _ in range(400)} == {3, 4}  # without a conversation, by chance


def test_a_changed_weight_moves_conversations_to_that_version_alone() -> None:
    before, after = alias({1: 40, 2: 40, 3: 20}), alias({1: 40, 2: 40, 3: 40})
    moves = Counter((before.draw(c), after.draw(c)) for c in CONVERSATIONS)
    moved = {pair for pair in moves if pair[0] != pair[1]}
    assert moved == {(1, 3), (2, 3)}


def test_projects_models_and_aliases_are_split_each_by_themselves() -> None:
    changes: list[dict[str, str]] = [{}, {"project_id": "other"}, {"model": "sales"}, {"alias": "canary"}]
    splits = [[alias({1: 1, 2: 1}, **change).draw(c) for c in CONVERSATIONS[:64]] for change in changes]
    assert len({tuple(drawn) for drawn in splits}) == len(changes)


def test_an_alias_of_one_version_is_that_one() -> None:
    assert alias({7: 3}).the_one() == alias({7: 3}).draw("x") == alias({7: 3}).draw() == 7
    with pytest.raises(Invalid, match="support@champion is split between versions: write support:3 or support:4"):
        alias({4: 1, 3: 1}).the_one()

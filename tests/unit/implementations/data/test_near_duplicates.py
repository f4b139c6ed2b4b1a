"""MinHash finds them, exact sets decide, and the same are found on any machine."""

import random
import sys
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.entities.data_pipeline import NearDuplicateOptions
from app.core.errors import Unavailable
from app.implementations.data.near_duplicates import Union, find_near_duplicates, jaccard, shingles

OPTIONS = NearDuplicateOptions()
LONG = "How long do I have to return an item that I bought in the shop in Utrecht last week"


def test_case_punctuation_and_white_space_do_not_count() -> None:
    found = find_near_duplicates(["Where is  my order?", "where is my ORDER", "Where is your order?"], OPTIONS, 1)
    assert found.like == {1: (0, 1.0)}
    assert found.clusters == [0, 0, 2]


def test_a_word_more_is_near_and_other_words_are_far() -> None:
    found = find_near_duplicates([LONG, "Do you sell spare parts?", f"{LONG} please"], OPTIONS, 1)
    assert found.like == {2: (0, pytest.approx(18 / 19))}
    assert found.clusters == [0, 1, 0]


def test_the_exact_similarity_decides() -> None:
    """All are compared with all here; MinHash may miss a pair at the threshold, and must not invent one."""
    rng = random.Random(7)
    words = [f"w{number}" for number in range(12)]
    texts = [" ".join(rng.choices(words, k=10)) for _ in range(150)]
    options = NearDuplicateOptions(threshold=0.5, shingle_words=1)
    found = find_near_duplicates(texts, options, 3)
    sets = [shingles(text, 1) for text in texts]
    for place, (other, similarity) in found.like.items():
        assert other < place
        assert similarity == jaccard(sets[place], sets[other]) >= 0.5
    near = {b for a, b in combinations(range(150), 2) if jaccard(sets[a], sets[b]) >= 0.7}
    assert len(near) > 20
    assert len(near - found.like.keys()) <= 0.02 * len(near)


def test_clusters_hang_together_through_others() -> None:
    words = LONG.split()
    chain = [" ".join([*words[: -n or None], *["x", "y", "z"][:n]]) for n in range(4)]
    found = find_near_duplicates(chain, NearDuplicateOptions(threshold=0.8), 1)
    assert jaccard(shingles(chain[0], 2), shingles(chain[3], 2)) < 0.8
    assert found.clusters == [0, 0, 0, 0]


def test_a_crowd_of_rows_from_one_template_is_one_cluster() -> None:
    texts = [f"{LONG} order {number}" for number in range(400)]
    assert set(find_near_duplicates(texts, OPTIONS, 1).clusters) == {0}


def test_scripts_without_spaces_have_words_too() -> None:
    assert shingles("订单多久到?", 2) == {"订 单", "单 多", "多 久", "久 到"}
    found = find_near_duplicates(["退货的时限是多少天?", "请问退货的时限是多少天"], OPTIONS, 1)
    assert found.clusters == [0, 0]


@pytest.mark.parametrize("text", ["", "?!", "one", "\ud800", "a\0b"])
def test_short_and_odd_texts_are_read(text: str) -> None:
    assert find_near_duplicates([text, text, "something else entirely"], OPTIONS, 1).clusters == [0, 0, 2]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.text("ab c", max_size=12), max_size=30), st.integers(0, 2**32 - 1))
def test_pure(texts: list[str], seed: int) -> None:
    assert find_near_duplicates(texts, OPTIONS, seed) == find_near_duplicates(texts, OPTIONS, seed)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=20))
def test_a_union_is_named_by_its_first(pairs: list[tuple[int, int]]) -> None:
    union = Union(10)
    for one, other in pairs:
        union.join(one, other)
    for one, other in pairs:
        assert union.root(one) == union.root(other) <= min(one, other)


def test_progress_and_rate() -> None:
    seen: list[tuple[str, int, int]] = []
    rates: dict[str, float] = {}
    find_near_duplicates(["a", "b", "c"], OPTIONS, 1, lambda *said: seen.append(said), rates)
    assert seen == [("near_duplicates", 3, 3)]
    assert rates["near_duplicates"] > 0


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(Unavailable, match=r"'\.\[data\]'") as refused:
        find_near_duplicates(["a"], OPTIONS, 1)
    assert refused.value.code == "extra_missing"

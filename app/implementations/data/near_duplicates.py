"""Texts that share most of their words: MinHash finds the candidates (Broder 1997), exact sets decide."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

from app.core.entities.data_pipeline import NearDuplicateOptions
from app.core.errors import Unavailable
from app.core.interfaces.components import RowProgress, unwatched
from app.core.processors.splitting import Union
from app.core.processors.watching import watched

# A Chinese or Japanese character is a word: these scripts write no spaces.
_CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+")
# A text like so many others joins them, and is no candidate itself: rows made from one template would else be
# compared each with each.
_CROWD = 100
_REMEMBERED = 4096  # candidates' shingles, which are asked for again and again where rows are alike
_RECALL = 0.95  # of the pairs right at the threshold; of those above it more


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """By place in the texts. ``like`` is of a text the most similar earlier one and how similar: 1.0 for the same
    words. ``clusters`` has for each text the first that it hangs together with, perhaps through others.
    """

    like: Mapping[int, tuple[int, float]]
    clusters: Sequence[int]


def find_near_duplicates(
    texts: Sequence[str],
    options: NearDuplicateOptions,
    seed: int,
    on_progress: RowProgress = unwatched,
    rates: MutableMapping[str, float] | None = None,
) -> NearDuplicates:
    """The same for the same texts, options and seed, on any machine."""
    with data_extra("near-duplicates"):
        from datasketch import MinHash, MinHashLSH

    # The permutations are drawn once, for the empty hash; a copy shares them.
    empty = MinHash(num_perm=options.permutations, seed=seed, hashfunc=zlib.crc32)
    index = MinHashLSH(num_perm=options.permutations, params=_bands(options))
    union = Union(len(texts))
    shingles_at = lru_cache(_REMEMBERED)(lambda place: shingles(texts[place], options.shingle_words))
    like: dict[int, tuple[int, float]] = {}
    first: dict[bytes, int] = {}
    for place, text in watched("near_duplicates", enumerate(texts), len(texts), on_progress, rates):
        own = shingles(text, options.shingle_words)
        encoded = [shingle.encode("utf-8", "surrogatepass") for shingle in sorted(own)]
        same = first.setdefault(hashlib.blake2b(b"\n".join(encoded), digest_size=16).digest(), place)
        if same != place:
            like[place] = (same, 1.0)
            union.join(same, place)
            continue
        hashed = empty.copy()
        hashed.update_batch(encoded)
        candidates = sorted(index.query(hashed))
        for candidate in candidates[:_CROWD]:
            similarity = jaccard(own, shingles_at(candidate))
            if similarity >= options.threshold:
                union.join(candidate, place)
                if similarity > like.get(place, (0, 0.0))[1]:
                    like[place] = (candidate, similarity)
        if len(candidates) < _CROWD:
            index.insert(place, hashed, check_duplication=False)
    return NearDuplicates(like, [union.root(place) for place in range(len(texts))])


def _bands(options: NearDuplicateOptions) -> tuple[int, int]:
    """Bands, and hashes in each: two texts are candidates where all hashes of a band agree. The fewest candidates
    with the recall wanted.
    """
    for hashes in range(options.permutations // 2, 1, -1):
        bands = options.permutations // hashes
        if 1 - (1 - options.threshold**hashes) ** bands >= _RECALL:
            return bands, hashes
    return options.permutations, 1


def shingles(text: str, words: int) -> frozenset[str]:
    """Runs of so many neighbouring words, case and punctuation aside; of a shorter text, all of it."""
    found = _WORD.findall(text.casefold())
    if len(found) <= words:
        return frozenset([" ".join(found) or text])
    return frozenset(" ".join(found[start : start + words]) for start in range(len(found) - words + 1))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)


@contextmanager
def data_extra(what: str) -> Iterator[None]:
    """``Unavailable`` (extra_missing) where a library of the extra ``data`` is not installed."""
    try:
        yield
    except ImportError as error:
        message = f"{what} need the package {error.name}: pip install -c requirements.txt '.[data]'"
        raise Unavailable(message, code="extra_missing") from None

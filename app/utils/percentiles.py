"""Percentiles of lengths."""

from collections.abc import Sequence


def percentiles(lengths: Sequence[int], percents: Sequence[int]) -> dict[int, int]:
    """Find the nearest rank of each percent: the smallest length that so many per cent of all do not exceed."""
    ordered = sorted(lengths)
    return {percent: ordered[max(1, -(-len(ordered) * percent // 100)) - 1] for percent in percents if ordered}

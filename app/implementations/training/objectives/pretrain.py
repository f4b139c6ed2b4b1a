"""Pretraining, from scratch or continued: cross-entropy of every token of a text."""

from app.implementations.training.objectives.sft import SftObjective


class PretrainObjective(SftObjective):
    """What differs from sft is which tokens are supervised: all, as ``core/services/encoding.py`` has it."""

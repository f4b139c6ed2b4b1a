"""Which engine serves which version."""

import pytest

from app.core.entities.engines import EngineKind, not_servable
from app.core.entities.training_config import TrainingConfig

OURS, VLLM, OTHER = EngineKind


def config(**changes):
    return TrainingConfig(**changes).model_dump(mode="json")


@pytest.mark.parametrize("changes", [{}, {"r": 512}, {"use_rslora": True}, {"adaptation": "qlora"}])
def test_plain_adapters_are_served_by_both(changes):
    assert not_servable(config(**changes), OURS) is None
    assert not_servable(config(**changes), VLLM) is None
    assert "no adapters" in not_servable(config(**changes), OTHER)


def test_dora_is_ours_alone():
    assert not_servable(config(use_dora=True), OURS) is None
    assert "use_dora" in not_servable(config(use_dora=True), VLLM)


@pytest.mark.parametrize("engine", list(EngineKind))
def test_what_is_no_adapter_of_a_generative_base_is_served_by_none(engine):
    assert "adaptation: full" in not_servable(config(adaptation="full"), engine)
    assert "label head" in not_servable(config(objective="classification"), engine)


def test_versions_of_earlier_days_lack_keys():
    assert not_servable({}, VLLM) is None

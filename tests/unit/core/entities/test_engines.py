"""Which engine serves which version."""

import pytest

from app.core.entities.engines import EngineKind, needs_own_engine, not_servable
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


@pytest.mark.parametrize("engine", [VLLM, OTHER])
def test_what_is_no_adapter_of_a_generative_base_is_ours_alone(engine):
    for changes, why in (
        ({"adaptation": "full"}, "adaptation: full"),
        ({"objective": "classification"}, "label head"),
    ):
        assert needs_own_engine(config(**changes))
        assert not_servable(config(**changes), OURS) is None
        assert why in not_servable(config(**changes), engine)
    assert not needs_own_engine(config())


def test_versions_of_earlier_days_lack_keys():
    assert not_servable({}, VLLM) is None

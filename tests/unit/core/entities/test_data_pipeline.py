"""The pipeline's config: the shipped YAML says every default, and a fault is named by its key."""

import re
from pathlib import Path

import pytest
import yaml

from app.core.entities.data_pipeline import PipelineConfig, pipeline_config
from app.core.errors import Invalid

SHIPPED = Path(__file__).parents[4] / "config" / "data_pipeline.yaml"


def test_the_shipped_file_has_every_key_with_its_default() -> None:
    raw = yaml.safe_load(SHIPPED.read_text("utf-8"))
    config = pipeline_config(raw)
    assert config == PipelineConfig()
    assert config.model_dump(mode="json") == raw


def test_each_key_has_a_comment() -> None:
    keys = [line for line in SHIPPED.read_text("utf-8").splitlines() if re.match(r" *\w+:", line)]
    assert len(keys) > 20
    assert [line for line in keys if not re.search(r"# \S+", line)] == []


@pytest.mark.parametrize(
    ("raw", "where", "says"),
    [
        ({"seed": -1}, "config.seed", "greater than or equal to 0"),
        ({"cleaning": {"htlm": True}}, "config.cleaning.htlm", "not permitted"),
        ({"steps": ["clean", "polish"]}, "config.steps.1", "'clean', 'split' or 'augment'"),
        ({"steps": ["augment", "split"]}, "config", "split has to come before"),
        ({"steps": ["augment"]}, "config", "split has to come before"),
        ({"steps": ["clean", "clean"]}, "config", "more than once: clean"),
        ({"splitting": {"method": "grouped"}}, "config.splitting", "give both or neither"),
        ({"splitting": {"group_by": "customer"}}, "config.splitting", "give both or neither"),
        ({"near_duplicates": {"threshold": 0}}, "config.near_duplicates.threshold", "greater than 0"),
        ({"augmentation": {"system_prompts": []}}, "config.augmentation.system_prompts", "at least 1"),
    ],
)
def test_a_fault_is_named_by_its_key(raw: dict[str, object], where: str, says: str) -> None:
    with pytest.raises(Invalid) as refused:
        pipeline_config(raw)
    assert [fault.where for fault in refused.value.faults] == [where]
    assert says in refused.value.faults[0].message


def test_all_faults_at_once() -> None:
    with pytest.raises(Invalid) as refused:
        pipeline_config({"seed": "x", "splitting": {"test": 0.7}, "colour": "red"}, where="data_pipeline.yaml")
    assert {fault.where for fault in refused.value.faults} == {
        "data_pipeline.yaml.seed",
        "data_pipeline.yaml.splitting.test",
        "data_pipeline.yaml.colour",
    }

"""The YAML files that people write: a run's, a pipeline's, a strategy's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from app.core.entities.data_pipeline import PipelineConfig, pipeline_config
from app.core.entities.training_config import TrainingConfig, training_config
from app.core.errors import Invalid


def load_training_config(path: Path, **changes: Any) -> TrainingConfig:
    """Read a training YAML, ``changes`` over it. ``Invalid`` lists every faulty key."""
    raw = _mapping(path, str(path))
    # `model:` may hold any key, so a change must replace the key where it stands.
    nested = raw.get("model")
    merged = (
        {**raw, "model": {k: v for k, v in nested.items() if k not in changes}}
        if isinstance(nested, dict)
        else raw
    )
    return training_config({**merged, **changes}, where=path.name)


def load_pipeline_config(path: Path) -> PipelineConfig:
    """Read a pipeline's YAML. ``Invalid`` lists every faulty key."""
    return pipeline_config(_mapping(path, str(path)), where=path.name)


def read_strategy_options(folder: Path, config: TrainingConfig) -> Mapping[str, Any]:
    """The strategy's own file in ``folder``; ``Invalid`` where it is no mapping of keys."""
    name = {"deepspeed": f"deepspeed_zero{config.zero_stage}.json", "fsdp": "fsdp.yaml"}.get(config.strategy)
    return {} if name is None else _mapping(folder / name, f"config/{name}")


def _mapping(path: Path, called: str) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(path.read_text("utf-8"))  # JSON is YAML
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Invalid(f"{called}: cannot be read as YAML: {error}") from None
    if not isinstance(raw, dict):
        raise Invalid(f"{called}: must be a mapping of keys")
    return raw

"""The folders that an engine is made of."""

from pathlib import Path

from app.bootstrap import Settings, build_base_models
from app.core.entities.engines import EngineName
from app.core.errors import Invalid, Unavailable
from app.implementations.serving.label_config import head_labels
from app.utils.folders import manifest_of

PROCESS_BYTES = 600 * 2**20  # front and core with a model of no size


def engine_folders(settings: Settings, engine: EngineName) -> tuple[Path, Path | None]:
    """What it serves, and the base model below, where that is a label head's adapter.

    ``Unavailable`` (base_model_missing, artifacts_missing) where they are not on this host; ``Invalid`` for a base
    model or version that does not exist, or is an adapter to be attached.
    """
    bases = build_base_models(settings)
    if engine.version is None:
        return bases.folder(engine.base_model), None
    folder = settings.models_dir / "registry" / engine.version
    if "/" in engine.version or engine.version.startswith("."):
        raise Invalid(f"{engine.version!r} is no folder of models/registry")
    if manifest_of(folder) is None:
        message = f"models/registry/{engine.version} is gone or damaged: restore it, or train the version again"
        raise Unavailable(message, code="artifacts_missing")
    if not (folder / "adapter_config.json").exists():
        return folder, None
    if not head_labels(folder):
        raise Invalid(f"{engine.version} is an adapter, which the engine of {engine.base_model} attaches")
    return folder, bases.folder(engine.base_model)


def engine_bytes(settings: Settings, engine: EngineName, folder: Path, base_folder: Path | None) -> int:
    """What it may take at most: its weights, keys and values, adapters, and the process itself."""
    weights = sum(
        file.stat().st_size for place in (folder, base_folder) if place for file in place.glob("*.safetensors")
    )
    if head_labels(folder):
        return PROCESS_BYTES + weights
    adapters = settings.engine_adapter_bytes if engine.version is None else 0
    return PROCESS_BYTES + weights + settings.engine_kv_bytes + adapters

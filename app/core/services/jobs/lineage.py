"""Training on from a published version: what a request takes over from it, and what contradicts it."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.core.entities.models import Reference
from app.core.entities.training_config import ADAPTER_SHAPE, flattened, training_config
from app.core.errors import Fault, Invalid
from app.core.factories import ADAPTATIONS
from app.core.services.models.resolver import ModelResolver


def begin_from_version(
    resolver: ModelResolver, project_id: str, overrides: Mapping[str, Any]
) -> tuple[Mapping[str, Any], Sequence[Fault]]:
    """``overrides`` with what ``from_version`` decides, as ``name:3``, so that it never moves; and every fault.

    The base model, the adaptation and the adapter's shape are the version's, unless the request has its own: then
    they must fit. A key of the wrong type is left to the config's own check.
    """
    flat, problems = flattened(overrides)
    reference = flat.get("from_version")
    if problems or not isinstance(reference, str):
        return overrides, ()
    try:
        parsed = Reference.parse(reference)
    except Invalid:
        return overrides, ()
    try:
        version = resolver.version(project_id, parsed)
    except Invalid as error:
        return overrides, (Fault("config.from_version", error.code, error.message),)
    if version is None:
        message = f"there is no version {reference!r} in this project"
        return overrides, (Fault("config.from_version", "model_not_found", message),)
    if not version.generates:
        message = f"{version.reference} has a label head, which no objective trains on: begin with the base model"
        return overrides, (Fault("config.from_version", "not_generative", message),)
    # As a config of today: versions of earlier days lack the keys that were added since.
    held = training_config(version.config).model_dump(mode="json")
    whole = {"base_model": version.base_model, "adaptation": held["adaptation"]}
    shape = {} if version.is_whole_model else {key: held["lora"][key] for key in ADAPTER_SHAPE}
    lora = flat.get("lora", {})
    if not isinstance(lora, Mapping):
        return overrides, ()
    faults = [
        Fault(where, "contradicts_version", f"{version.reference} has {value}: leave it out, or set that")
        for where, own, value in (
            ("base_model", flat.get("base_model"), whole["base_model"]),
            ("config.adaptation", flat.get("adaptation"), whole["adaptation"]),
            *((f"config.lora.{key}", lora.get(key), value) for key, value in shape.items()),
        )
        if own is not None and not _fits(own, value)
    ]
    return {**whole, **flat, "from_version": version.reference, "lora": {**shape, **lora}}, faults


def _fits(own: Any, held: Any) -> bool:
    if isinstance(own, list) and isinstance(held, list):
        return sorted(map(str, own)) == sorted(held)
    if published := ADAPTATIONS.declared(held, "publishes"):  # one that publishes the same files fits
        return bool(published == ADAPTATIONS.declared(own, "publishes"))
    return bool(own == held)

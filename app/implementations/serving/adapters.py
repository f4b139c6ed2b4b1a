"""The adapters in memory beside the base model, through PEFT; one is active at a time."""

import logging
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from app.implementations.models.lean_peft import LoraConfig, PeftModel
from app.implementations.serving.adapter_files import AdapterRefused, check_adapter
from app.implementations.serving.model import BaseModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Attached:
    """One loading of one adapter. ``key`` is its name inside PEFT, where a name must not hold a dot."""

    name: str
    folder: str
    key: str


class Adapters:
    """Attach, select, evict. The weights stay float32 beside a bf16 base, as PEFT loads them and the trainer has
    them: cast down, they would not answer as ``PeftModel.generate`` does."""

    def __init__(self, model: BaseModel, capacity: int = 32) -> None:
        self._model = model
        self._capacity = capacity
        self._by_name: OrderedDict[str, Attached] = OrderedDict()  # least recently used first
        self._retired: list[Attached] = []  # no longer to be had, perhaps still in use
        self._peft: Any = None  # a PeftModel, from the first adapter on
        self._active: Attached | None = None
        self._loaded = 0

    def get(self, name: str) -> Attached | None:
        if name in self._by_name:
            self._by_name.move_to_end(name)
        return self._by_name.get(name)

    def attach(self, name: str, folder: str) -> None:
        """Load; once more with the same folder does nothing. ``AdapterRefused``, and all is as it was."""
        known = self._by_name.get(name)
        if known is not None and known.folder == folder:
            return
        path = Path(folder)
        layers = check_adapter(path, self._model.linear_shapes)
        self._loaded += 1
        # Of fixed width: PEFT tells one adapter's missing weights from another's by substring.
        attached = Attached(name, folder, f"a{self._loaded:09d}")
        try:
            self._load(path, attached.key, layers)
        except Exception as error:
            self._delete(attached.key)
            if isinstance(error, AdapterRefused):
                raise
            logger.exception("adapter %s cannot be loaded", name)
            raise AdapterRefused(f"cannot be loaded ({type(error).__name__})") from error
        if known is not None:
            self._retired.append(known)
        self._by_name[name] = attached
        self._by_name.move_to_end(name)

    def detach(self, name: str) -> bool:
        """Whether there was one of this name. Sequences that use it go on to their end."""
        attached = self._by_name.pop(name, None)
        if attached is not None:
            self._retired.append(attached)
        return attached is not None

    def collect(self, in_use: Collection[Attached]) -> list[str]:
        """Free what nobody uses: what was detached, and the least recently used above capacity (its names)."""
        idle = [attached for attached in self._by_name.values() if attached not in in_use]
        evicted = [attached.name for attached in idle[: max(0, len(self._by_name) - self._capacity)]]
        for name in evicted:
            self.detach(name)
        for attached in [a for a in self._retired if a not in in_use]:
            self._retired.remove(attached)
            self._delete(attached.key)
        return evicted

    def select(self, attached: Attached | None) -> None:
        """Make the next steps run with this adapter, or with the base model alone."""
        if attached is not self._active:
            self._activate(attached)

    def _load(self, folder: Path, key: str, layers: list[str]) -> None:
        config = LoraConfig.from_pretrained(folder)
        config.inference_mode = True
        # The layers that the file has weights for: no pattern can then reach a layer that PEFT cannot adapt, which
        # would leave the base model changed in part.
        config.target_modules, config.exclude_modules = set(layers), None
        config.layers_to_transform = config.layers_pattern = None
        if self._peft is None:
            # Puts its layers into the network in place; steps go on calling the network itself.
            self._peft = PeftModel(self._model.network, config, adapter_name=key).eval()
        else:
            self._peft.add_adapter(key, config)
        result = self._peft.load_adapter(folder, key, torch_device=str(self._model.device))
        self._activate(self._active)  # PEFT makes the first adapter of all active by itself
        if result.missing_keys or result.unexpected_keys:
            raise AdapterRefused("the weights are not those that its config names")
        for name, weight in self._model.network.named_parameters():
            if f".{key}." in name and not bool(torch.isfinite(weight).all()):
                raise AdapterRefused("the weights hold numbers that are not finite")

    def _activate(self, attached: Attached | None) -> None:
        if self._peft is not None:
            self._peft.base_model.set_adapter([attached.key] if attached else [], inference_mode=True)
        self._active = attached

    def _delete(self, key: str) -> None:
        if self._peft is None or key not in self._peft.peft_config:
            return
        if self._active is None or self._active.key == key:
            self._activate(None)
        self._peft.base_model.delete_adapter(key)

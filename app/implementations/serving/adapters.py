"""The adapters in memory beside the base model, by name."""

import logging
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.implementations.serving.adapter_files import AdapterRefused, check_adapter
from app.implementations.serving.model import ServedModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Attached:
    """One loading of one adapter: ``weights`` as the model has them."""

    name: str
    folder: str
    weights: Any
    bytes: int


class Adapters:
    """Attach, get, evict. ``capacity`` in bytes; what sequences use, or who was attached last, may exceed it."""

    def __init__(self, model: ServedModel, capacity: int) -> None:
        self._model = model
        self._capacity = capacity
        self._by_name: OrderedDict[str, Attached] = OrderedDict()  # least recently used first
        self._retired: list[Attached] = []  # no longer to be had, perhaps still in use

    @property
    def bytes(self) -> int:
        return sum(attached.bytes for attached in (*self._by_name.values(), *self._retired))

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
        try:
            weights, size = self._model.load_adapter(path, layers)
        except AdapterRefused:
            raise
        except Exception as error:
            logger.exception("adapter %s cannot be loaded", name)
            raise AdapterRefused(f"cannot be loaded ({type(error).__name__})") from error
        if known is not None:
            self._retired.append(known)
        self._by_name[name] = Attached(name, folder, weights, size)
        self._by_name.move_to_end(name)

    def detach(self, name: str) -> bool:
        """Whether there was one of this name. Sequences that use it go on to their end."""
        attached = self._by_name.pop(name, None)
        if attached is not None:
            self._retired.append(attached)
        return attached is not None

    def collect(self, in_use: Collection[Attached]) -> list[str]:
        """Free what nobody uses: what was detached, and the least recently used above capacity (its names)."""
        evicted = []
        held = sum(attached.bytes for attached in self._by_name.values())
        for attached in list(self._by_name.values())[:-1]:
            if held <= self._capacity:
                break
            if attached not in in_use:
                held -= attached.bytes
                evicted.append(attached.name)
                self.detach(attached.name)
        for attached in [a for a in self._retired if a not in in_use]:
            self._retired.remove(attached)
            self._model.drop_adapter(attached.weights)
        return evicted

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
    """Attach, get, evict. ``capacity`` in bytes; what sequences use, or who was attached last, may exceed it.

    Those that are pinned, which stay, take no more than it.
    """

    def __init__(self, model: ServedModel, capacity: int) -> None:
        self._model = model
        self._capacity = capacity
        self._by_name: OrderedDict[str, Attached] = OrderedDict()  # least recently used first
        self._pinned: set[str] = set()
        self._retired: list[Attached] = []  # no longer to be had, perhaps still in use

    @property
    def bytes(self) -> int:
        return sum(attached.bytes for attached in (*self._by_name.values(), *self._retired))

    def get(self, name: str) -> Attached | None:
        if name in self._by_name:
            self._by_name.move_to_end(name)
        return self._by_name.get(name)

    def attach(self, name: str, folder: str, pinned: bool = False) -> int:
        """Load, and pin or unpin; the bytes that it takes. Once more with the same folder loads nothing.

        ``AdapterRefused``, and all is as it was.
        """
        known = self._by_name.get(name)
        is_new = known is None or known.folder != folder
        attached = self._load(name, folder) if known is None or is_new else known
        if pinned and not self._may_pin(attached):
            if is_new:
                self._model.drop_adapter(attached.weights)
            raise AdapterRefused(f"with those that are pinned it takes more than the {self._capacity:,} bytes")
        if known is not None and is_new:
            self._retired.append(known)
        self._by_name[name] = attached
        self._by_name.move_to_end(name)
        (self._pinned.add if pinned else self._pinned.discard)(name)
        return attached.bytes

    def _may_pin(self, attached: Attached) -> bool:
        others = sum(self._by_name[name].bytes for name in self._pinned - {attached.name})
        return others + attached.bytes <= self._capacity

    def _load(self, name: str, folder: str) -> Attached:
        path = Path(folder)
        layers = check_adapter(path, self._model.linear_shapes)
        try:
            weights, size = self._model.load_adapter(path, layers)
        except AdapterRefused:
            raise
        except Exception as error:
            logger.exception("adapter %s cannot be loaded", name)
            raise AdapterRefused(f"cannot be loaded ({type(error).__name__})") from error
        return Attached(name, folder, weights, size)

    def detach(self, name: str) -> bool:
        """Whether there was one of this name. Sequences that use it go on to their end."""
        attached = self._by_name.pop(name, None)
        self._pinned.discard(name)
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
            if attached not in in_use and attached.name not in self._pinned:
                held -= attached.bytes
                evicted.append(attached.name)
                self.detach(attached.name)
        for attached in [a for a in self._retired if a not in in_use]:
            self._retired.remove(attached)
            self._model.drop_adapter(attached.weights)
        return evicted

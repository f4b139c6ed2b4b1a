"""One generic factory for every kind of component."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Generic, TypeVar

from app.core.errors import Invalid

T = TypeVar("T")


class ComponentFactory(Generic[T]):
    """Builds components by name from a table of ``"module:Class"`` strings, each imported when first built.

    So a process that never trains never imports torch. An unknown name raises ``Invalid`` with the known ones.
    """

    def __init__(self, kind: str, table: Mapping[str, str]) -> None:
        self.kind = kind
        self._table = dict(table)

    def names(self) -> list[str]:
        return sorted(self._table)

    def load(self, name: str) -> Callable[..., T]:
        """The class (or function) behind ``name``, imported now."""
        try:
            target = self._table[name]
        except KeyError:
            raise Invalid(f"unknown {self.kind} {name!r}; known: {', '.join(self.names())}") from None
        module, _, attribute = target.partition(":")
        loaded: Callable[..., T] = getattr(import_module(module), attribute)
        return loaded

    def create(self, name: str, /, **arguments: Any) -> T:
        return self.load(name)(**arguments)

"""Build components by the names that configs use; and the tables of parts that say themselves what they need.

A *part* is an objective, an adaptation, a tracker or a data processor. Its class is its own declaration: class
attributes and class methods say which rows it trains on, what it cannot be combined with, how much memory it
takes, which package it needs (``app/core/interfaces/parts.py``). So a new part is one file and one line in
``app/registries.py``: the config's choices, its rules, the JSON schema and the forecast are read from the table
and the class when they are asked for.

The tables stand here, empty, because the training config is validated by them. ``app/registries.py`` fills them,
and ``app/__init__.py`` imports that, so no process can meet them empty. Whoever reads a declaration imports the
part's file, in the web process too: such a file imports torch inside its methods, never at its top. Strategies and
model loaders are no such parts: the config knows a strategy's name alone, and nobody chooses a loader by name.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class ComponentFactory(Generic[T]):
    """Builds components by name from a table of ``"module:Class"`` strings, each imported when first built.

    So a process that never trains never imports torch. An unknown name raises ``Invalid`` with the known ones.
    """

    def __init__(self, kind: str, table: Mapping[str, str] | None = None) -> None:
        self.kind = kind
        self._table = dict(table or {})

    def add(self, table: Mapping[str, str]) -> None:
        self._table.update(table)

    def __iter__(self) -> Iterator[str]:
        """Names in the order of the table."""
        return iter(self._table)

    def names(self) -> list[str]:
        return sorted(self._table)

    def load(self, name: str) -> Any:
        """Import the class (or function) behind ``name``, to build it or to read what it declares."""
        if name not in self._table:
            from app.core.errors import Invalid  # not at the top: ``import app`` would load dataclasses

            raise Invalid(f"unknown {self.kind} {name!r}; known: {', '.join(self.names())}")
        module, _, attribute = self._table[name].partition(":")
        return getattr(import_module(module), attribute)

    def create(self, name: str, /, **arguments: Any) -> T:
        component: T = self.load(name)(**arguments)
        return component

    def declared(self, name: object, attribute: str) -> Any:
        """Return what the part ``name`` declares as ``attribute``; None where there is no such part."""
        return getattr(self.load(name), attribute) if isinstance(name, str) and name in self._table else None


DATA_FORMATS = ComponentFactory[Any]("data format")
OBJECTIVES = ComponentFactory[Any]("objective")
ADAPTATIONS = ComponentFactory[Any]("adaptation")
STRATEGIES = ComponentFactory[Any]("strategy")
TRACKERS = ComponentFactory[Any]("tracker")
DATA_PROCESSORS = ComponentFactory[Any]("data processor")
MODEL_LOADERS = ComponentFactory[Any]("model loader")

"""Services are known by their interfaces."""

import ast
import inspect
import pkgutil
from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import get_type_hints

import pytest

from app.core import services
from app.core.services import Services

APP = Path(__file__).parents[3] / "app"
MOST_METHODS = 9
INTERFACES = get_type_hints(Services)


def public(of: type) -> set[str]:
    """Return the names of the class's own public methods."""
    return {
        name
        for name, value in vars(of).items()
        if not name.startswith("_") and (callable(value) or isinstance(value, property | staticmethod))
    }


def concrete_services() -> Iterator[type]:
    for found in pkgutil.walk_packages(services.__path__, f"{services.__name__}."):
        for value in vars(import_module(found.name)).values():
            if not inspect.isclass(value) or value.__module__ != found.name:
                continue
            if set(value.__bases__) & set(INTERFACES.values()):
                yield value


CONCRETE = list(concrete_services())


@pytest.mark.parametrize("field", [field.name for field in fields(Services)])
def test_a_field_of_services_is_typed_by_an_interface(field: str) -> None:
    interface = INTERFACES[field]
    assert inspect.isabstract(interface)
    assert interface.__abstractmethods__ == public(interface), "every public method is abstract"
    assert 1 <= len(public(interface)) <= MOST_METHODS
    assert interface.__doc__
    for name in public(interface):
        assert inspect.getdoc(getattr(interface, name)), f"{interface.__name__}.{name} has no docstring"


def test_an_interface_has_no_body() -> None:
    for file in sorted((APP / "core/interfaces/services").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef):
                assert len(node.body) == 1, f"{file.name}:{node.lineno}: {node.name} does something"
                assert ast.get_docstring(node), f"{file.name}:{node.lineno}: {node.name} has no docstring"


def test_an_interface_of_services_has_one_implementation() -> None:
    implemented = [base for service in CONCRETE for base in service.__bases__]
    assert sorted(map(repr, implemented)) == sorted(map(repr, INTERFACES.values()))


@pytest.mark.parametrize("service", CONCRETE)
def test_a_service_offers_its_interfaces_and_no_more(service: type) -> None:
    assert public(service) == set().union(*(public(base) for base in service.__bases__))
    for name in public(service):
        assert vars(service)[name].__doc__ is None, f"{service.__name__}.{name}: its interface says it"

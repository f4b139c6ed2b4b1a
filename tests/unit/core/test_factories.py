"""The generic factory, and the tables that bootstrap gives it."""

import subprocess
import sys
from collections import Counter
from fractions import Fraction

import pytest

from app.core.errors import Invalid
from app.core.factories import ComponentFactory
from app.registries import FACTORIES

TABLE = {"fraction": "fractions:Fraction", "counter": "collections:Counter"}


def test_it_builds_what_the_table_names_with_the_arguments_given() -> None:
    factory = ComponentFactory[Fraction]("number", TABLE)
    assert factory.create("fraction", numerator=3, denominator=6) == Fraction(1, 2)
    assert factory.load("counter") is Counter


def test_a_components_own_name_argument_does_not_collide() -> None:
    assert ComponentFactory[dict[str, str]]("mapping", {"d": "builtins:dict"}).create("d", name="x") == {
        "name": "x"
    }


def test_names_are_sorted_and_the_table_is_its_own() -> None:
    table = dict(TABLE)
    factory = ComponentFactory[object]("thing", table)
    table["late"] = "builtins:object"
    assert factory.names() == ["counter", "fraction"]


@pytest.mark.parametrize("name", ["", "Fraction", "fractions:Fraction", "__class__", "fraction "])
def test_an_unknown_name_lists_the_known_ones(name: str) -> None:
    """A client sends a registry name, never a dotted path."""
    with pytest.raises(Invalid, match=r"unknown number .*; known: counter, fraction"):
        ComponentFactory[object]("number", TABLE).create(name)


def test_nothing_is_imported_before_it_is_built() -> None:
    program = (
        "import sys; from app.core.factories import ComponentFactory; "
        "f = ComponentFactory('x', {'a': 'fractions:Fraction'});"
        "assert 'fractions' not in sys.modules; f.create('a'); assert 'fractions' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("factory", "name"),
    [(factory, name) for factory in FACTORIES for name in factory.names()],
    ids=lambda value: value if isinstance(value, str) else value.kind,
)
def test_every_string_of_bootstrap_can_be_imported(factory: ComponentFactory[object], name: str) -> None:
    assert callable(factory.load(name))

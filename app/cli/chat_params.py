"""``/params`` of ``flask chat``: how answers are drawn."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from app.core.entities.inference import LONGEST_STOP, MOST_STOPS, NUMERIC_OPTIONS, AnswerOptions
from app.core.errors import Fault, Invalid

NAMES = (*NUMERIC_OPTIONS, "stop")


def shown(options: AnswerOptions) -> str:
    return "\n".join(f"{name}={json.dumps(getattr(options, name), ensure_ascii=False)}" for name in NAMES)


def changed(options: AnswerOptions, text: str) -> AnswerOptions:
    """By ``temperature=0.2 stop='["\\n"]'``. ``Invalid`` with every fault, and then nothing is changed."""
    values: dict[str, Any] = {}
    faults = []
    for word in _words(text):
        name, equals, given = word.partition("=")
        values[name] = _value(given)
        if name not in NAMES or not equals:
            faults.append(Fault(name, "unknown", f"write one of {', '.join(NAMES)}, =, and a value"))
        elif fault := _fault(name, values[name]):
            faults.append(Fault(name, "invalid", fault))
    if faults:
        raise Invalid("not changed", faults=faults)
    return replace(options, **_lists(values))


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise Invalid(f"not changed: {error}") from None


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _fault(name: str, value: Any) -> str | None:
    if name == "stop":
        stops = [value] if isinstance(value, str) else value
        sound = isinstance(stops, list) and all(isinstance(s, str) and 0 < len(s) <= LONGEST_STOP for s in stops)
        return None if sound and len(stops) <= MOST_STOPS else f"must be at most {MOST_STOPS} texts"
    option = NUMERIC_OPTIONS[name]
    if value is None and option.default is None:
        return None
    number = isinstance(value, int if option.whole else int | float) and not isinstance(value, bool)
    if number and option.least <= value <= option.most:
        return None
    kind = "a whole number" if option.whole else "a number"
    return f"must be {kind} from {option.least:g} to {option.most:g}"


def _lists(values: Mapping[str, Any]) -> Mapping[str, Any]:
    stop = values.get("stop")
    return {**values, "stop": [stop]} if isinstance(stop, str) else values

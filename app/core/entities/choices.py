"""Fields of a config whose values are the names of a table of parts."""

from collections.abc import Collection
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from app.core.factories import ComponentFactory


class OneOf:
    """Marks a field as one of the names of ``parts``: ``Annotated[str, OneOf(OBJECTIVES)]``.

    Faults and the JSON schema read like those of a ``Literal`` with the names that the table has by then.
    """

    def __init__(self, parts: ComponentFactory[Any], without: Collection[str] = ()) -> None:
        self._parts, self._without = parts, without

    def names(self) -> list[str]:
        return [name for name in self._parts if name not in self._without]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._known)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"enum": self.names(), "type": "string"}

    def _known(self, value: Any) -> str:
        names = self.names()
        if isinstance(value, str) and value in names:
            return value
        *others, last = map(repr, names)
        expected = f"{', '.join(others)} or {last}" if others else last
        raise PydanticKnownError("literal_error", {"expected": expected})

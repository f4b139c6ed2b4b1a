"""Fields that schemas of several nouns share."""

from typing import Any

import marshmallow as ma


class Body(ma.Schema):
    """A body that is refused with the name of each key that it should not have."""

    class Meta:
        unknown = ma.RAISE


class Number(ma.fields.Float):
    """A number as JSON writes it: marshmallow's own takes "0.5" as well."""

    def _validated(self, value: Any) -> float:
        if isinstance(value, str):
            raise self.make_error("invalid", input=value)
        return super()._validated(value)


class Yes(ma.fields.Boolean):
    """A boolean as JSON writes it: marshmallow's own takes "yes" and 1 as well."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


def integer(least: int, most: int, about: str, default: Any = ma.missing) -> ma.fields.Integer:
    """Make a field for a whole number in these limits; null stands for a default of None."""
    return ma.fields.Integer(
        strict=True,
        load_default=default,
        allow_none=default is None,
        validate=ma.validate.Range(least, most),
        metadata={"description": about},
    )


def text(most: int, about: str, example: str | None = None, **options: Any) -> ma.fields.String:
    """Make a field for a text of 1 to ``most`` characters."""
    metadata = {"description": about} | ({"example": example} if example else {})
    return ma.fields.String(validate=ma.validate.Length(1, most), metadata=metadata, **options)


def page_size() -> ma.fields.Integer:
    """Make the field ``limit`` of a query for a page."""
    return ma.fields.Integer(
        load_default=20, validate=ma.validate.Range(1, 100), metadata={"description": "at most, on a page"}
    )


def page_after() -> ma.fields.String:
    """Make the field ``after`` of a query for a page."""
    return ma.fields.String(load_default=None, metadata={"description": "`next` of the page before"})

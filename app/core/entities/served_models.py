"""Models by the names that OpenAI's dialect gives them."""

import re
from dataclasses import dataclass
from datetime import datetime

from app.core.entities.models import ModelVersion, Reference
from app.core.errors import NotFound

_TUNED = re.compile(r"ft:(?P<base>[^:]+):(?P<project>[^:]+):(?P<reference>[^:]+:[0-9]+)")


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A version of the project, or a base model that an engine serves: no one's, and without a date."""

    id: str
    created_at: datetime | None = None
    project_id: str | None = None


@dataclass(frozen=True, slots=True)
class TunedName:
    """``ft:<base model>:<project>:<name>:<number>`` names one version, for good."""

    base_model: str
    project_id: str
    reference: Reference

    @classmethod
    def parse(cls, text: str) -> "TunedName | None":
        """None for what is no such name. ``Invalid`` where its last parts are no reference."""
        match = _TUNED.fullmatch(text)
        return match and cls(match["base"], match["project"], Reference.parse(match["reference"]))


def tuned_name(version: ModelVersion) -> str:
    return f"ft:{version.base_model}:{version.project_id}:{version.reference}"


def no_served_model(name: str) -> NotFound:
    """For clients of OpenAI's dialect, who can list the models that there are."""
    return NotFound(
        f"there is no model {name[:80]!r} here: GET /v1/models lists those that there are", code="model_not_found"
    )

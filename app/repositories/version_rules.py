"""What the repositories of model versions refuse, over SQL and in memory alike."""

from collections.abc import Collection

from app.core.errors import Conflict, Fault, NotFound


def no_versions(model: str, numbers: Collection[int]) -> NotFound:
    faults = [
        Fault(f"{model}:{number}", "model_not_found", "there is no such version") for number in sorted(numbers)
    ]
    return NotFound(
        f"not in this project: {', '.join(fault.where for fault in faults)}", code="model_not_found", faults=faults
    )


def has_alias(reference: str, aliases: Collection[str]) -> Conflict:
    named = ", ".join(sorted(aliases))
    return Conflict(
        f"{reference} stays while an alias carries it: move or remove {named} first", code="version_has_alias"
    )

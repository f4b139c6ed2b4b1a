"""What the repositories of datasets refuse, over SQL and in memory alike."""

from app.core.errors import Conflict, Fault, Invalid, NotFound


def name_taken(name: str) -> Conflict:
    return Conflict(
        f"a dataset named {name!r} is there already: upload to it as a new version, or choose another name",
        code="dataset_name_taken",
    )


def no_dataset(dataset_id: str) -> NotFound:
    return NotFound(f"no dataset {dataset_id[:80]!r} in this project", code="dataset_not_found")


def in_use(dataset_id: str) -> Conflict:
    return Conflict(
        f"{dataset_id} is what a job trains on, or trained a model version on: it stays", code="dataset_in_use"
    )


def unknown_page(after: str) -> Invalid:
    fault = Fault("after", "unknown_dataset", "there is no such dataset")
    return Invalid(f"no dataset {after[:80]!r} to go on from", faults=[fault])

"""What the repositories of datasets refuse, over SQL and in memory alike."""

from app.core.errors import Conflict, Fault, Invalid


def name_taken(name: str) -> Conflict:
    return Conflict(
        f"a dataset named {name!r} is there already: upload to it as a new version, or choose another name",
        code="dataset_name_taken",
    )


def in_use(dataset_id: str) -> Conflict:
    return Conflict(
        f"{dataset_id} is what a job trains on, or trained a model version on: it stays", code="dataset_in_use"
    )


def unknown_page(after: str) -> Invalid:
    fault = Fault("after", "unknown_dataset", "there is no such dataset")
    return Invalid(f"no dataset {after[:80]!r} to go on from", faults=[fault])

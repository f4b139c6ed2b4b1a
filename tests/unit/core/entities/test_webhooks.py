"""Which events there are: two names for the end of a fine-tuning job, one for that of any other."""

import pytest

from app.core.entities.jobs import JobState
from app.core.entities.webhooks import ENDS, events_of_end, known_events


def test_every_kind_has_its_ends_beside_openais_names() -> None:
    assert known_events(["train", "count"]) == (
        *(f"fine_tuning.job.{end}" for end in ("succeeded", "failed", "cancelled")),
        *(f"train.job.{end}" for end in ("succeeded", "failed", "cancelled")),
        *(f"count.job.{end}" for end in ("succeeded", "failed", "cancelled")),
    )


@pytest.mark.parametrize("end", ENDS)
def test_the_end_of_a_job_is_told_by_its_kind(end: JobState) -> None:
    assert events_of_end("count", end) == (f"count.job.{end}",)
    assert events_of_end("train", end) == (f"fine_tuning.job.{end}", f"train.job.{end}")


def test_whatever_ends_is_an_event_that_may_be_asked_for() -> None:
    kinds = ["train", "estimate", "process"]
    told = {event for kind in kinds for end in ENDS for event in events_of_end(kind, end)}
    assert told == set(known_events(kinds))

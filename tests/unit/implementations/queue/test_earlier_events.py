"""What trainers of earlier claims have left in a run folder."""

import json
from pathlib import Path

from app.implementations.queue.trainer_launcher import ProcessTrainerLauncher
from tests.unit.implementations.queue.test_event_file import line


def leave(run_folder: Path, name: str, job_id: str, attempt: int, events: bytes | None) -> None:
    folder = run_folder / "attempts" / name
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(json.dumps({"job_id": job_id, "attempt": attempt}))
    if events is not None:
        (folder / "events.ndjson").write_bytes(events)


def test_of_this_job_by_claim_and_none_of_another(tmp_path: Path) -> None:
    leave(tmp_path, "10", "job", 10, line(1) + line(2)[:-1])  # killed within its second line
    leave(tmp_path, "9", "job", 9, line(1) + line(2))
    leave(tmp_path, "3", "other", 3, line(1))  # whose run folder this job took over
    leave(tmp_path, "4", "job", 4, None)
    leave(tmp_path, "11", "job", 11, line(1))
    (tmp_path / "attempts" / "5").mkdir()  # its worker was lost before it wrote a job file
    found = ProcessTrainerLauncher().earlier_events(tmp_path, "job", 11, lambda _: 0)
    assert [(attempt, [event.seq for event in events]) for attempt, events in found] == [(9, [1, 2]), (10, [1])]


def test_a_first_attempt_finds_none(tmp_path: Path) -> None:
    assert list(ProcessTrainerLauncher().earlier_events(tmp_path, "job", 2, lambda _: 0)) == []


def test_only_what_is_not_known(tmp_path: Path) -> None:
    for attempt in (1, 2, 3):
        leave(tmp_path, str(attempt), "job", attempt, b"".join(map(line, range(1, 6))))
    found = ProcessTrainerLauncher().earlier_events(tmp_path, "job", 4, {1: 5, 2: 3, 3: 0}.__getitem__)
    assert [(attempt, [event.seq for event in events]) for attempt, events in found] == [
        (2, [4, 5]),
        (3, [1, 2, 3, 4, 5]),
    ]

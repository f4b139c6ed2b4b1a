"""Jobs of the host's own commands, and those that its commands leave to a worker."""

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from app.core.entities.identity import Principal, Role
from app.core.entities.jobs import FineTuningJob, JobState
from app.core.entities.limits import ProjectLimits
from app.core.interfaces.job_kinds import Draft, Finished, JobKind
from app.core.services.jobs import execution
from app.core.services.jobs.execution import ExecutionService
from app.core.services.jobs.job_records import JobRecords
from app.core.services.jobs.job_service import JobService


class Heard(JobKind):
    """A kind that knows who asked for its jobs."""

    name, id_prefix, runner = "heard", "heard", "none"

    def __init__(self) -> None:
        self.askers: list[Principal] = []

    def check(self, principal: Principal, request: Mapping[str, Any]) -> Draft:
        self.askers.append(principal)
        return Draft("heard", request)

    def begin(self, job: FineTuningJob, attempt: int, watch: Any) -> Finished:
        return Finished({})

    def taking_up(self, job: Any, attempt: int, result: Any, folder: Any) -> Any:
        raise NotImplementedError


def submitted(principal: Principal, **options: Any) -> tuple[Principal, FineTuningJob]:
    """Submit a job; return who asked its kind, and the job."""
    kind, queue = Heard(), SimpleNamespace(ring=lambda job_id, queue: None)
    jobs: Any = SimpleNamespace(add=lambda jobs, limits, since, needs: jobs)
    service = JobService(jobs, JobRecords(jobs), {"heard": kind}, queue, ["default"], ProjectLimits())  # type: ignore[arg-type]
    job = service.submit(principal, "heard", {}, **options)
    return kind.askers[0], job


def test_a_job_of_the_foreground_may_name_any_path_and_is_nobodys() -> None:
    asker, job = submitted(Principal.host(), foreground=True)
    assert asker.is_host
    assert job.created_by is None
    assert job.asker == Principal.host()


@pytest.mark.parametrize("foreground", [False, True])
def test_a_client_is_no_host(foreground: bool) -> None:
    client = Principal("user-1", "alice", "support", Role.OPERATOR)
    asker, job = submitted(client, foreground=foreground)
    assert asker == client
    assert (job.created_by, job.project_id) == ("user-1", "support")
    assert not job.asker.is_host


def test_a_job_that_the_host_leaves_to_a_worker_names_no_path_of_this_host() -> None:
    asker, job = submitted(Principal.host("support"))
    assert asker == replace(Principal.host("support"), is_host=False)
    assert (job.created_by, job.project_id) == ("operator", "support")
    assert not job.asker.is_host


class Lost(ExecutionService):
    """The claim of its job was lost: nobody can claim it until the leases have been looked at twice."""

    def __init__(self) -> None:
        self.looks = 0
        self._jobs: Any = SimpleNamespace(get=lambda project_id, job_id: self.job())

    def job(self) -> FineTuningJob:
        state = JobState.FAILED if self.looks == 2 else JobState.RUNNING
        return replace(submitted(Principal.host(), foreground=True)[1], state=state)

    def run_next(self, *arguments: Any, **options: Any) -> bool:
        return False

    def watch_leases(self) -> None:
        self.looks += 1


def test_a_claim_that_was_lost_is_found_out_without_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "LOST_SECONDS", 0.0)
    lost = Lost()
    assert lost.carry(lost.job()).state is JobState.FAILED
    assert lost.looks == 2

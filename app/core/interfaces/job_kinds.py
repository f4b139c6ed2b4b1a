"""The interface of a kind of job. The engine, app/core/services/jobs, carries any kind and knows none of them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from app.core.entities.dataset_versions import DatasetVersion
from app.core.entities.forecasts import Shortage
from app.core.entities.identity import Principal
from app.core.entities.jobs import FineTuningJob
from app.core.entities.limits import NOTHING, ProjectUse
from app.core.entities.models import ModelVersion
from app.core.interfaces.operations import TrainerOutcome


@dataclass(frozen=True, slots=True)
class Draft:
    """A request that was checked: what its job's row says of it (see ``FineTuningJob``)."""

    name: str
    config: Mapping[str, Any]
    base_model: str = ""
    dataset_digest: str = ""
    dataset_id: str | None = None
    dataset_number: int | None = None
    request: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Task:
    """The part of a job file that a kind writes, and the folder of its files."""

    job_file: Mapping[str, Any]
    folder: Path
    name: str  # of the folder, as the row has it


@dataclass(frozen=True, slots=True)
class Finished:
    """What a job came to: its row's ``result``, and the versions that are added with its end."""

    result: Mapping[str, Any]
    made: Sequence[ModelVersion | DatasetVersion] = ()


@dataclass(frozen=True, slots=True)
class Watch:
    """A kind's hold on the attempt that it works for, in the worker."""

    go_on: Callable[[], bool]  # False: the job is to be cancelled or given back, or is lost
    say: Callable[[str, Mapping[str, Any]], None]  # a message, with its data, among the job's events
    persist: Callable[[Callable[[], Any]], Any]  # a look into the database, tried again while that is away


class JobKind(ABC):
    """One kind of job. One file has it, and one line of ``bootstrap`` names it.

    A worker may be killed between any two steps: each may be done again by another one.
    """

    name: str
    runner: str  # what works in the child process: a name of registries.RUNNERS, or "module:Class"
    id_prefix: str  # of its jobs' ids, before the dash
    is_light = False  # True: soon done; light slots of workers take it, and it is not counted with the others
    can_pause = False  # True: a child that is told to stop leaves a place to go on from
    is_validated = False  # True: a job begins in validating_files, and ``validate`` is its first step
    needs: ProjectUse = NOTHING  # of the project's quotas, at least, when it succeeds
    kept: timedelta | None = None  # how long the row of a job that has ended is kept; None: for good
    seconds: float | None = None  # that an attempt may take; None: any number

    @abstractmethod
    def check(self, principal: Principal, request: Mapping[str, Any]) -> Draft:
        """Check a request where it is submitted. ``Invalid`` with every fault; nothing is changed.

        It may be called again in the worker, once what a chain's earlier jobs made is known.
        """

    def validate(self, job: FineTuningJob, watch: Watch) -> None:  # noqa: B027 - most kinds have nothing to do
        """Check in the worker what takes longer. ``Invalid`` fails the job."""

    @abstractmethod
    def begin(self, job: FineTuningJob, attempt: int, watch: Watch) -> Task | Finished:
        """Return what the child process of this attempt is told; or the result, where it is known by now."""

    @abstractmethod
    def taking_up(
        self, job: FineTuningJob, attempt: int, result: Mapping[str, Any], folder: Path
    ) -> AbstractContextManager[Finished]:
        """Lay what the child made where it stays. Within the block the job's row is ended, with the versions.

        An error in the block means that it was not: what was laid down is taken away again.
        """

    def discard(self, job: FineTuningJob, attempt: int) -> None:  # noqa: B027
        """Remove what a lost attempt may have laid down in ``taking_up``."""

    def explain(
        self, outcome: TrainerOutcome, job_file: Mapping[str, Any], last_seen: Shortage | None
    ) -> TrainerOutcome:
        """Say more of an attempt that failed. ``last_seen`` is the memory that its child last said it held."""
        del job_file, last_seen
        return outcome

    def forget(self, job_id: str) -> None:  # noqa: B027
        """Remove the files of a job whose row is gone."""

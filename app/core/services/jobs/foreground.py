"""Jobs of a command in the foreground."""

import os
import socket
import time
from collections.abc import Callable

from app.core.entities.jobs import FINAL_STATES, FineTuningJob, JobEvent
from app.core.services.jobs.execution import ExecutionService
from app.core.services.jobs.job_records import JobRecords

LOST_SECONDS = 0.5  # between two looks at a job that another process holds


def carry(
    execution: ExecutionService,
    records: JobRecords,
    job: FineTuningJob,
    on_event: Callable[[JobEvent], None] | None = None,
) -> FineTuningJob:
    """Carry one job to its end in this process, unless a worker does; return it as it is then."""
    owner = f"{socket.gethostname()}:{os.getpid()}:foreground"
    while job.state not in FINAL_STATES:
        if not execution.run_next(owner, job.id, on_event=on_event):
            # A worker has it; or the claim was lost, and there may be no worker to find that out.
            time.sleep(LOST_SECONDS)
            execution.watch_leases()
        job = records.get(job.asker, job.id)
    return job

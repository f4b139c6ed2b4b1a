"""Many short jobs over two workers that are killed again and again, and a broker that forgets."""

import os
import random
import signal
import subprocess
from collections.abc import Callable

import pytest

from tests.integration.faults.conftest import Stack, check_taken_up_once, wait_for_all
from tests.running_service import Service, wait_until

SEED = 20_261_124
KILLS = 5
MODEL = "helper"


@pytest.mark.parametrize("jobs", [60, pytest.param(500, marks=pytest.mark.slow)])
def test_every_job_is_done_and_taken_up_once(stack: Stack, jobs: int) -> None:
    choose = random.Random(SEED)
    service = stack.make(worker_slots=2, max_attempts=KILLS + 1)  # so that no job can be lost as often as that
    workers = [service.worker(), service.worker()]
    ids = [service.submit(f"double-{number}", model_name=MODEL) for number in range(jobs)]

    faults = [*[lambda: kill_one(service, workers, choose)] * KILLS, lambda: stack.lose_messages(service)]
    if stack.redis is not None:
        faults.append(stack.redis.restart)
    choose.shuffle(faults)
    # An undisturbed job leaves two marks. The moments are counts of marks: the same on a machine of any speed.
    moments = sorted(choose.sample(range(10, 2 * jobs - 20), len(faults)))
    at_each(moments, faults, service)

    wait_for_all(service, 60 + jobs)
    check_taken_up_once(service, ids, MODEL)
    assert sum(service.job(job_id).attempts for job_id in ids) > jobs  # the kills did hit
    assert [worker.poll() for worker in workers] == [None, None]


def at_each(moments: list[int], faults: list[Callable[[], None]], service: Service) -> None:
    for moment, fault in zip(moments, faults, strict=True):
        wait_until(lambda moment=moment: service.count_of_marks() >= moment, service.log, 300)
        fault()


def kill_one(service: Service, workers: list[subprocess.Popen[bytes]], choose: random.Random) -> None:
    """And start another in its place."""
    worker = workers.pop(choose.randrange(len(workers)))
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    workers.append(service.worker())

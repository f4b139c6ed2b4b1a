"""Doorbells that ring too often, or not at all: the row is the truth, and the timer looks at it too."""

from concurrent.futures import ThreadPoolExecutor

from app.implementations.queue.celery_queue import CeleryQueue
from tests.integration.faults.conftest import Stack, check_taken_up_once, wait_for_all

MODEL = "helper"
RINGERS, RINGS = 4, 10
# So long that what is seen to happen, happened by a doorbell.
NO_TIMER = {"poll_seconds": 60.0, "lease_seconds": 200.0}


def test_one_job_rung_for_many_times_is_taken_up_once(stack: Stack) -> None:
    service = stack.make(worker_slots=4, **NO_TIMER)
    workers = [service.worker(), service.worker()]
    settings = service.settings
    queues = [CeleryQueue(settings.redis_url, settings.instance_dir, settings.queues) for _ in range(RINGERS)]
    ids = []
    with ThreadPoolExecutor(RINGERS) as ringers:
        for number in range(10):  # one at a time: eight slots want the same job
            ids.append(service.submit(f"double-{number}", model_name=MODEL))
            # A bell each time: it is validated, and then trained.
            list(ringers.map(lambda queue: [queue.ring(ids[-1], "default") for _ in range(RINGS)], queues))
            service.wait_for(ids[-1])
    check_taken_up_once(service, ids, MODEL)
    assert {service.job(job_id).attempts for job_id in ids} == {1}
    assert [worker.poll() for worker in workers] == [None, None]


def test_no_doorbell_reaches_a_worker(stack: Stack) -> None:
    service = stack.make(poll_seconds=1.0)
    worker = service.worker()
    ids = [service.submit("double-0", model_name=MODEL)]
    service.wait_for(ids[0])  # so the worker is up, and has the broker
    with stack.broker_away(service):
        ids += [service.submit(f"double-{number}", model_name=MODEL) for number in (1, 2, 3)]
        wait_for_all(service, 60)
    ids.append(service.submit("double-4", model_name=MODEL))
    wait_for_all(service, 60)
    check_taken_up_once(service, ids, MODEL)
    assert {service.job(job_id).attempts for job_id in ids} == {1}
    assert worker.poll() is None

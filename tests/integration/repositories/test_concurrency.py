"""Many threads at one database."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Barrier

import pytest

from app.core.entities.dataset_versions import Dataset, DatasetVersion
from app.core.entities.jobs import JobEvent, JobState
from app.core.entities.limits import ProjectLimits
from app.core.entities.models import ModelAlias
from app.core.errors import Conflict, NotFound, StaleAttempt, TooMany
from app.core.interfaces.job_kinds import Finished
from app.repositories.mapping import job_row

NOW = datetime(2026, 1, 1, tzinfo=UTC)
THREADS = 8
JOBS = 400


@pytest.fixture
def together():
    """Runs a function in THREADS threads that start at one moment; answers what each returned."""
    barrier = Barrier(THREADS)

    def start(function, number):
        barrier.wait(timeout=30)
        return function(number)

    with ThreadPoolExecutor(THREADS) as pool:
        yield lambda function: list(pool.map(lambda number: start(function, number), range(THREADS)))


@pytest.fixture
def add_jobs(repositories, make_job):
    def add(count):
        jobs = [make_job() for _ in range(count)]
        with repositories.jobs._database.write() as session:  # one transaction: adding is not what is tested
            session.add_all(map(job_row, jobs))
        return jobs

    return add


def test_each_of_many_claims_gets_a_job_of_its_own(repositories, add_jobs, together):
    jobs = add_jobs(JOBS)

    def claim_all(number):
        mine = []
        while claim := repositories.jobs.claim(f"worker-{number}", 30):
            mine.append(claim.job.id)
        return mine

    shares = together(claim_all)
    claimed = [job_id for share in shares for job_id in share]
    assert Counter(claimed) == Counter(job.id for job in jobs)
    assert len(repositories.jobs.leases()) == JOBS
    assert sum(map(bool, shares)) > 1
    for share in shares:
        assert share == sorted(share)  # each saw the oldest first


def test_many_claims_at_once_keep_to_the_limit(repositories, add_jobs, together):
    add_jobs(4 * THREADS)
    shares = together(
        lambda number: repositories.jobs.claim(f"worker-{number}", 30, limits=ProjectLimits(running=3))
    )
    assert sum(claim is not None for claim in shares) <= 3
    while repositories.jobs.claim("worker", 30, limits=ProjectLimits(running=3)):
        pass
    assert len(repositories.jobs.leases()) == 3


def test_many_submissions_at_once_keep_to_the_limit(repositories, make_job, together):
    new = [make_job() for _ in range(THREADS)]

    def submit(number):
        try:
            repositories.jobs.add([new[number]], ProjectLimits(queued=3))
        except TooMany:
            return False
        return True

    assert together(submit).count(True) == 3


def test_two_successes_under_one_name_get_two_numbers(repositories, add_jobs, make_version, together):
    held = [(job, repositories.claim(job.id)) for job in add_jobs(THREADS)]

    def succeed(number):
        job, fence = held[number]
        [reference] = repositories.jobs.succeed(job.id, fence, Finished({}, [make_version(job)]))
        return reference

    assert sorted(together(succeed)) == sorted(f"assistant:{number}" for number in range(1, THREADS + 1))
    published = repositories.versions.versions("default", "assistant")
    assert [version.number for version in published] == list(range(THREADS, 0, -1))


def test_only_one_of_many_releases_a_lost_job(repositories, add_jobs, together):
    add_jobs(1)
    repositories.claim()
    (lease,) = repositories.jobs.leases()
    outcomes = together(lambda _: repositories.jobs.release_lost(lease, 3))
    assert Counter(outcomes) == {JobState.QUEUED: 1, None: THREADS - 1}


def test_a_job_is_either_claimed_or_cancelled(repositories, add_jobs, together):
    jobs = add_jobs(40)

    def race(number):
        if number % 2:
            return [job.id for job in jobs if repositories.jobs.request_cancel("default", job.id) is None]
        return [claim.job.id for job in jobs if (claim := repositories.jobs.claim("worker", 30, job.id))]

    claimed = Counter(job_id for mine in together(race) for job_id in mine)
    assert set(claimed.values()) <= {1}
    for job in jobs:
        ended = repositories.jobs.get("default", job.id)
        assert ended.state is (JobState.RUNNING if job.id in claimed else JobState.CANCELLED)
        assert ended.cancel_requested


def test_events_ingested_twice_at_once_are_kept_once(repositories, add_jobs, together):
    (job,) = add_jobs(1)
    fence = repositories.claim()
    events = [JobEvent(seq, "message", "info", f"event {seq}", job.created_at) for seq in range(1, 21)]

    def ingest(number):
        for size in (7, 13, 20):
            repositories.jobs.ingest(job.id, fence, events[:size], None)

    together(ingest)
    assert repositories.jobs.events("default", job.id) == events


def test_a_stale_attempt_never_writes_over_the_new_one(repositories, add_jobs, together):
    (job,) = add_jobs(1)
    first = repositories.claim()
    (lease,) = repositories.jobs.leases()

    def race(number):
        if number == 0:
            if repositories.jobs.release_lost(lease, 3) is None:
                return None
            # PostgreSQL passes over a row that a write about to be refused still locks.
            while (claim := repositories.jobs.claim("worker", 30)) is None:
                pass
            return claim.fence
        try:
            repositories.jobs.set_run_folder(job.id, first, f"old-{number}")
            repositories.jobs.move(job.id, first, JobState.FAILED)
        except StaleAttempt:
            return None
        return "failed"

    second, *others = together(race)
    state = repositories.jobs.get("default", job.id).state
    assert (second is not None) + others.count("failed") == 1
    assert state is (JobState.FAILED if second is None else JobState.RUNNING)


@pytest.fixture
def dataset(repositories):
    """Its first version."""
    version = DatasetVersion("ds-1", "default", 0, "a" * 64, "messages", 1, 1, "a.json", None, {}, [], None, NOW)
    return repositories.datasets.add(Dataset("ds-1", "default", "support", None, NOW), version)


def test_two_versions_at_once_get_two_numbers(repositories, dataset, together):
    numbers = together(lambda number: repositories.datasets.add_version(dataset).number)
    assert sorted(numbers) == list(range(2, THREADS + 2))


def test_a_dataset_is_either_deleted_or_trained_on(repositories, dataset, make_job, together):
    jobs = [make_job(dataset_id="ds-1", dataset_number=1) for _ in range(THREADS)]

    def compete(number):
        try:
            if number == 0:
                return repositories.datasets.delete("default", "ds-1") is not None
            repositories.jobs.add([jobs[number]])
        except (Conflict, NotFound):
            return False
        return True

    deleted, *submitted = together(compete)
    assert deleted is not any(submitted)
    assert (repositories.datasets.get("default", "ds-1") is None) is deleted


def test_an_alias_that_many_set_at_once_is_wholly_one_of_theirs(repositories, add_jobs, make_version, together):
    for job in add_jobs(THREADS):
        repositories.jobs.succeed(job.id, repositories.claim(job.id), Finished({}, [make_version(job)]))
    wanted = [{number + 1: 2, (number + 1) % THREADS + 1: 3} for number in range(THREADS)]

    def set_and_read(number):
        seen = []
        for _ in range(10):
            repositories.versions.set_alias(
                ModelAlias("default", "assistant", "champion", wanted[number], None, NOW)
            )
            seen.append(repositories.versions.alias("default", "assistant", "champion").weights)
        return seen

    assert all(weights in wanted for seen in together(set_and_read) for weights in seen)


def test_jobs_that_are_added_behind_jobs_that_end_wait_for_none_for_ever(
    repositories, add_jobs, make_job, make_version, together
):
    """Half of the threads end jobs, with a version each, while the others add jobs that wait for these."""
    pairs = 30
    first = add_jobs(pairs)
    second = [make_job(after=[job.id]) for job in first]
    limits = ProjectLimits(queued=1000, versions=1000)

    def work(number):
        for place in range(number // 2, pairs, THREADS // 2):
            if number % 2:
                repositories.jobs.add([second[place]], limits)
            else:
                job = first[place]
                while (claim := repositories.jobs.claim("worker", 30, job.id)) is None:
                    pass  # whoever adds a job behind it has its row locked for a moment
                repositories.jobs.succeed(job.id, claim.fence, Finished({}, [make_version(job)]), limits)

    together(work)
    claimed = {claim.job.id for claim in iter(lambda: repositories.jobs.claim("worker", 30, limits=limits), None)}
    assert claimed == {job.id for job in second}

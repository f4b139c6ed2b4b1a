"""What every repository refuses beyond a project's quotas."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import pytest

from app.core.entities.dataset_versions import Dataset, DatasetVersion
from app.core.entities.jobs import JobState
from app.core.entities.limits import ProjectLimits, ProjectUse
from app.core.errors import Forbidden
from app.core.interfaces.job_kinds import Finished
from app.implementations.kinds.train import ONE_VERSION

NOW = datetime(2026, 3, 3, tzinfo=UTC)
VERSION = DatasetVersion(
    dataset_id="ds-1",
    project_id="default",
    number=0,
    digest="a" * 64,
    format="messages",
    rows=3,
    size=3_000_000_000,
    source="rows.jsonl",
    parent=None,
    pipeline={},
    changes=[],
    created_by="user-1",
    created_at=NOW,
)


def dataset(number, **changes):
    version = replace(VERSION, dataset_id=f"ds-{number}", **changes)
    return Dataset(version.dataset_id, version.project_id, f"support-{number}", "user-1", NOW), version


@pytest.fixture
def publish(repositories, make_job, make_version):
    """One version of that many bytes, within those limits."""

    def one(limits, size=1, **of_job):
        job = make_job(**of_job)
        repositories.jobs.add([job])
        fence = repositories.claim(job.id)
        return repositories.jobs.succeed(job.id, fence, Finished({}, [make_version(job, size=size)]), limits)

    return one


def refused(call, *arguments):
    with pytest.raises(Forbidden) as caught:
        call(*arguments)
    assert caught.value.code == "quota_exceeded"
    return caught.value.message


def test_bytes_of_datasets_and_versions_are_one_quota(repositories, publish):
    datasets, limits = repositories.datasets, ProjectLimits(storage_bytes=7_000_000_000)
    datasets.add(*dataset(1), limits)
    publish(limits, size=2_000_000_000)
    assert repositories.jobs.use("default") == ProjectUse(storage_bytes=5_000_000_000, versions=1)
    message = refused(datasets.add, *dataset(2, digest="b" * 64), limits)
    assert "5,000,000,000 of the 7,000,000,000 bytes" in message
    assert "3,000,000,000 more" in message
    refused(datasets.add_version, replace(VERSION, digest="b" * 64), limits)
    refused(publish, limits, 2_000_000_001)
    assert datasets.get("default", "ds-2") is None
    publish(limits, 2_000_000_000)
    assert repositories.jobs.use("other") == ProjectUse()
    datasets.add(*dataset(3, project_id="other", digest="b" * 64), limits)


def test_what_is_there_twice_is_there_once(repositories):
    datasets, limits = repositories.datasets, ProjectLimits(storage_bytes=VERSION.size)
    datasets.add(*dataset(1), limits)
    datasets.add_version(VERSION, limits)
    datasets.add(*dataset(2), limits)
    assert repositories.jobs.use("default").storage_bytes == VERSION.size
    datasets.delete("default", "ds-1")
    assert repositories.jobs.use("default").storage_bytes == VERSION.size
    datasets.delete("default", "ds-2")
    datasets.add(*dataset(3, digest="b" * 64), limits)


def test_a_project_without_room_for_a_version_takes_no_job(repositories, publish, make_job):
    limits = ProjectLimits(versions=1)
    add = partial(repositories.jobs.add, needs=ONE_VERSION)
    add([make_job(state=JobState.VALIDATING_FILES)], limits)
    publish(limits)
    message = refused(add, [make_job()], limits)
    assert "1 of the 1 published versions" in message
    repositories.jobs.set_limits("default", ProjectLimits(versions=2))
    add([make_job()], limits)
    repositories.jobs.set_limits("default", ProjectLimits(versions=2, storage_bytes=1))
    assert "bytes" in refused(add, [make_job()], limits)
    repositories.jobs.add([make_job()], limits)  # one that publishes nothing
    add([make_job(project_id="other")], limits)


def test_a_refused_publication_changes_nothing(repositories, make_job, make_version):
    job = make_job()
    repositories.jobs.add([job])
    fence = repositories.claim(job.id)
    refused(repositories.jobs.succeed, job.id, fence, Finished({}, [make_version(job)]), ProjectLimits(versions=0))
    assert repositories.jobs.get("default", job.id).state is JobState.RUNNING
    assert repositories.versions.models("default") == []


def test_of_many_at_once_as_many_as_find_room(repositories):
    limits = ProjectLimits(storage_bytes=3 * VERSION.size)

    def add(number):
        try:
            return repositories.datasets.add(*dataset(number, digest=str(number) * 64), limits)
        except Forbidden:
            return None

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(add, range(6))).count(None) == 3
    assert repositories.jobs.use("default").storage_bytes == limits.storage_bytes

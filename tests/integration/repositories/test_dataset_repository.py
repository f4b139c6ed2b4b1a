"""What every DatasetRepository does."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.core.entities.dataset_versions import Dataset, DatasetSummary, DatasetVersion
from app.core.errors import Conflict, Invalid, NotFound

NOW = datetime(2026, 3, 3, tzinfo=UTC)


@pytest.fixture
def add(repositories):
    """Datasets, each a second younger than the one before."""
    ticks = itertools.count()

    def add_one(name="support", project="default", **changes):
        tick = next(ticks)
        made = NOW + timedelta(seconds=tick)
        dataset = Dataset(f"ds-{tick:024x}", project, name, "user-1", made)
        version = DatasetVersion(
            dataset_id=dataset.id,
            project_id=project,
            number=0,
            digest="a" * 64,
            format="messages",
            rows=3,
            size=5_000_000_000,
            source="rows é.jsonl",
            parent=None,
            pipeline={},
            changes=[],
            created_by="user-1",
            created_at=made,
        )
        return dataset, repositories.datasets.add(dataset, replace(version, **changes))

    return add_one


def test_a_dataset_comes_back_as_it_went_in(repositories, add):
    dataset, first = add()
    assert first.number == 1
    assert repositories.datasets.get("default", dataset.id) == DatasetSummary(dataset, first)
    assert repositories.datasets.version("default", dataset.id) == first
    assert repositories.datasets.get("default", "ds-nowhere") is None
    assert repositories.datasets.version("default", "ds-nowhere") is None


def test_versions_are_numbered_and_found_by_number_tag_and_newest(repositories, add):
    dataset, first = add()
    child = replace(
        first, number=0, digest="b" * 64, parent=1, pipeline={"seed": 1}, changes=[{"step": "clean", "changed": 2}]
    )
    second = repositories.datasets.add_version(child)
    assert second == replace(child, number=2)
    assert repositories.datasets.versions("default", dataset.id) == [second, first]
    assert repositories.datasets.version("default", dataset.id) == second
    assert repositories.datasets.version("default", dataset.id, number=1) == first
    assert repositories.datasets.version("default", dataset.id, number=3) is None
    assert repositories.datasets.tag("default", dataset.id, "good", 1)
    assert repositories.datasets.version("default", dataset.id, tag="good") == first
    assert repositories.datasets.version("default", dataset.id, tag="bad") is None
    assert repositories.datasets.tag("default", dataset.id, "good", 2)  # it moves
    assert repositories.datasets.get("default", dataset.id) == DatasetSummary(dataset, second, {"good": 2})
    assert not repositories.datasets.tag("default", dataset.id, "good", 3)
    assert repositories.datasets.tag("default", dataset.id, "good", None)
    assert not repositories.datasets.tag("default", dataset.id, "good", None)
    assert repositories.datasets.version("default", dataset.id, tag="good") is None


def test_a_name_is_taken_once_in_a_project(repositories, add):
    dataset, _ = add()
    add(project="other")
    with pytest.raises(Conflict) as refused:
        add()
    assert refused.value.code == "dataset_name_taken"
    assert [summary.dataset for summary in repositories.datasets.list("default")] == [dataset]


def test_lists_newest_first_by_pages(repositories, add):
    ids = [add(name)[0].id for name in ("one", "two", "three")]
    add("foreign", project="other")
    page = repositories.datasets.list("default", limit=2)
    assert [summary.dataset.id for summary in page] == ids[:0:-1]
    rest = repositories.datasets.list("default", limit=2, after=page[-1].dataset.id)
    assert [summary.dataset.id for summary in rest] == ids[:1]
    oldest = repositories.datasets.list("default", limit=2, oldest_first=True)
    assert [summary.dataset.id for summary in oldest] == ids[:2]
    rest = repositories.datasets.list("default", after=ids[1], oldest_first=True)
    assert [summary.dataset.id for summary in rest] == ids[2:]
    with pytest.raises(Invalid):
        repositories.datasets.list("other", after=ids[0])


def test_deletes_what_no_job_refers_to(repositories, add, make_job):
    dataset, first = add()
    repositories.datasets.add_version(replace(first, digest="b" * 64))
    repositories.datasets.tag("default", dataset.id, "good", 1)
    used, _ = add("used")
    repositories.jobs.add([make_job(dataset_id=used.id, dataset_number=1)])

    with pytest.raises(Conflict) as refused:
        repositories.datasets.delete("default", used.id)
    assert refused.value.code == "dataset_in_use"
    assert sorted(repositories.datasets.delete("default", dataset.id)) == ["a" * 64, "b" * 64]
    assert repositories.datasets.delete("default", dataset.id) is None
    assert repositories.datasets.get("default", dataset.id) is None
    assert repositories.datasets.is_kept("a" * 64)  # the other dataset's
    assert not repositories.datasets.is_kept("b" * 64)
    with pytest.raises(NotFound):
        repositories.datasets.add_version(first)
    add()  # its name is free


def test_a_job_that_names_a_deleted_dataset_is_not_saved(repositories, add, make_job):
    dataset, _ = add()
    repositories.datasets.delete("default", dataset.id)
    job = make_job(dataset_id=dataset.id, dataset_number=1)
    with pytest.raises(NotFound) as refused:
        repositories.jobs.add([job])
    assert refused.value.code == "dataset_not_found"
    assert repositories.jobs.get("default", job.id) is None


def test_no_method_reaches_into_another_project(repositories, add, make_job):
    dataset, first = add()
    datasets = repositories.datasets
    assert datasets.get("other", dataset.id) is None
    assert datasets.list("other") == []
    assert datasets.versions("other", dataset.id) == []
    assert datasets.version("other", dataset.id) is None
    assert not datasets.tag("other", dataset.id, "mine", 1)
    assert datasets.delete("other", dataset.id) is None
    with pytest.raises(NotFound):
        datasets.add_version(replace(first, project_id="other"))
    with pytest.raises(NotFound):
        repositories.jobs.add([make_job(project_id="other", dataset_id=dataset.id)])
    assert datasets.get("default", dataset.id) == DatasetSummary(dataset, first)

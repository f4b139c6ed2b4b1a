"""Jobs that go on with what others make: submitted as one request, checked twice, all or none."""

import re
from contextlib import suppress
from datetime import UTC, datetime
from io import BytesIO

import pytest

from app.bootstrap import Overrides, build_services
from app.core.entities.identity import Principal, Role
from app.core.entities.jobs import JobState
from app.core.entities.limits import ProjectLimits, ProjectUse
from app.core.entities.models import ModelVersion
from app.core.errors import Conflict, Forbidden, Invalid, NotFound, TooMany
from app.core.interfaces.job_kinds import Draft, Finished, JobKind
from app.core.services.jobs.job_service import LONGEST_CHAIN, Step
from tests.running_service import BASE, make_base

CLIENT = Principal("user-1", "alice", "default", Role.OPERATOR)
STRANGER = Principal("user-2", "bob", "other", Role.OPERATOR)
ROWS = b"".join(
    b'{"messages": [{"role": "user", "content": "%d?"}, {"role": "assistant", "content": "yes"}]}\n' % number
    for number in range(9)
)


class Make(JobKind):
    """Publishes a version at once, without a child process."""

    name = "make"
    id_prefix = "make"
    runner = "none"
    needs = ProjectUse(versions=1)

    def check(self, principal, request):
        if unknown := sorted(request.keys() - {"name", "fails"}):
            raise Invalid(f"there is no {unknown[0]}", code="unknown_key")
        return Draft(name=request["name"], config=request, base_model=BASE)

    def begin(self, job, attempt, watch):
        if job.config.get("fails"):
            raise Invalid("told to fail", code="told_to")
        version = ModelVersion(
            id=f"version-of-{job.id}",
            project_id=job.project_id,
            name=job.name,
            number=0,
            base_model=BASE,
            template_hash="hash",
            artifacts="folder",
            job_id=job.id,
            dataset_digest="digest",
            config={},
            metrics={},
            created_by=job.created_by,
            created_at=datetime.now(UTC),
        )
        return Finished({"as": job.name}, [version])

    def taking_up(self, job, attempt, result, folder):
        raise NotImplementedError


class Use(Make):
    """Says which model it was given: a base model, or what ``make`` has made."""

    name = "use"
    id_prefix = "use"
    needs = ProjectUse()

    def __init__(self):
        self.checked = []

    def check(self, principal, request):
        self.checked.append(request["model"])
        if not re.fullmatch(f"{BASE}|good:[0-9]+", request["model"]):
            raise Invalid(f"{request['model']} is no model", code="model_not_found")
        return Draft(name=request["model"], config=request, base_model=BASE)

    def begin(self, job, attempt, watch):
        return Finished({"used": job.config["model"]})


@pytest.fixture
def use():
    return Use()


@pytest.fixture
def services(quiet_settings, database, twins, use):
    overrides = Overrides(queue=twins.queue, available_bytes=lambda device: 10**9, kinds=[Make(), use])
    return build_services(quiet_settings, database, overrides=overrides)


@pytest.fixture
def jobs(services):
    return services.jobs


@pytest.fixture
def work(services):
    """Carry what may be claimed, until nothing is left; the jobs by name as they are then."""

    def run(added):
        while services.execution.run_next("me"):
            pass
        return [services.job_records.get(CLIENT, job.id) for job in added]

    return run


@pytest.fixture
def dataset(services):
    return services.dataset_versions.upload(CLIENT, BytesIO(ROWS), "rows.jsonl", name="support").reference


def step(name, kind, after=(), /, **request):
    return Step(name, kind, request, after)


def faults_of(jobs, *steps, principal=CLIENT, **options):
    with pytest.raises(Invalid) as refused:
        jobs.submit_chain(principal, steps, **options)
    return {fault.where: fault.code for fault in refused.value.faults}


def test_a_later_job_gets_what_an_earlier_one_made(jobs, work, twins, use):
    steps = [step("first", "make", name="good"), step("then", "use", model="$first")]
    added = jobs.submit_chain(CLIENT, steps, priority=3)
    first, then = added
    assert twins.queue.rung == [first.id, then.id]
    assert (then.after, then.inputs, then.config["model"]) == ([first.id], {"model": first.id}, "$first")
    assert (first.priority, then.priority) == (3, 3)
    assert use.checked == [BASE]  # in the place of what is not there yet
    done = work(added)
    assert [(job.state, job.result) for job in done] == [
        (JobState.SUCCEEDED, {"as": "good"}),
        (JobState.SUCCEEDED, {"used": "good:1"}),
    ]
    assert (done[0].made, done[1].made) == (["good:1"], [])
    assert (done[1].name, done[1].config["model"], done[1].inputs) == ("good:1", "good:1", {})
    assert use.checked == [BASE, "good:1"]


def test_what_was_made_is_checked_before_it_is_used(jobs, work):
    added = jobs.submit_chain(CLIENT, [step("first", "make", name="bad"), step("then", "use", model="$first")])
    made, used = work(added)
    assert made.state is JobState.SUCCEEDED
    assert (used.state, used.error.code) == (JobState.FAILED, "model_not_found")


def test_a_job_that_fails_takes_all_that_wait_for_it_with_it(jobs, work):
    steps = [
        step("first", "make", name="good", fails=True),
        step("then", "use", model="$first"),
        step("last", "make", ["then"], name="other"),
        step("alone", "make", name="alone"),
    ]
    first, then, last, alone = work(jobs.submit_chain(CLIENT, steps))
    assert [job.state for job in (first, alone)] == [JobState.FAILED, JobState.SUCCEEDED]
    for job in (then, last):
        assert (job.state, job.error.code) == (JobState.CANCELLED, "dependency_failed")
    assert first.id in then.error.message
    with pytest.raises(Conflict) as refused:
        jobs.retry(CLIENT, then.id)
    assert refused.value.code == "nothing_to_retry"
    assert jobs.retry(CLIENT, last.id).retry_of == last.id  # it takes nothing of theirs


def test_a_job_that_is_cancelled_takes_those_that_wait_with_it(jobs, services):
    first, then = jobs.submit_chain(
        CLIENT, [step("first", "make", name="good"), step("then", "use", model="$first")]
    )
    jobs.cancel(CLIENT, first.id)
    assert services.job_records.get(CLIENT, then.id).error.code == "dependency_failed"


def test_every_fault_of_every_step_is_told_and_nothing_is_saved(jobs, twins):
    faults = faults_of(
        jobs,
        step("first", "make", name="good", colour="red"),
        step("first", "use", model="nothing"),
        step("second", "use", model="$later"),
        step("third", "dance"),
        step("later", "make", name="x"),
        step("later", "make", ["first"], name="y"),
        step("evaluation", "evaluate", model="nobody", dataset_id="ds-x", split="none"),
    )
    assert faults == {
        "jobs.0": "unknown_key",
        "jobs.1": "model_not_found",
        "jobs.2": "unknown_step",
        "jobs.3.kind": "unknown_kind",
        "jobs.5": "name_taken",
        "jobs.6.split": "unknown_split",
        "jobs.6.model": "model_not_found",
        "jobs.6.dataset_id": "bad_reference",
    }
    assert twins.job_count() == 0
    assert twins.queue.rung == []


def test_how_long_a_chain_may_be_and_where_it_may_wait(jobs):
    assert faults_of(jobs) == {"jobs": "bad_length"}
    steps = [step(str(number), "make", name="x") for number in range(LONGEST_CHAIN + 1)]
    assert faults_of(jobs, *steps) == {"jobs": "bad_length"}
    assert faults_of(jobs, steps[0], queue="nowhere") == {"queue": "unknown_queue"}
    assert len(jobs.submit_chain(CLIENT, steps[:-1])) == LONGEST_CHAIN


def test_a_config_that_is_none_is_a_fault(jobs, dataset):
    for config in ("clean", ["clean"], 3, {"steps": "clean"}, {"cleaning": 5}, {"rows": 5}):
        faults = faults_of(jobs, step("clean", "process", dataset_id=dataset, config=config))
        assert all(where.startswith("jobs.0.config") for where in faults)


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("process", "dataset_id"),
        ("inspect", "dataset_id"),
        ("inspect", "base_model"),
        ("inspect", "max_length"),
        ("evaluate", "model"),
        ("evaluate", "dataset_id"),
        ("evaluate", "split"),
        ("train", "dataset_id"),
        ("train", "from_version"),
        ("train", "pipeline"),
        ("train", "model"),
        ("estimate", "lora"),
    ],
)
def test_whatever_a_request_holds_is_taken_or_a_fault(jobs, dataset, kind, key):
    sound = {
        "process": {"dataset_id": dataset},
        "inspect": {"dataset_id": dataset},
        "evaluate": {"dataset_id": dataset, "model": "tiny-random"},
        "train": {"dataset_id": dataset},
        "estimate": {"dataset_id": dataset},
    }
    for value in (None, 5, [], {}, "", "ds-0", "x" * 10_000):
        with suppress(Invalid):
            jobs.submit_chain(CLIENT, [step("one", kind, **{**sound[kind], key: value})])


def test_the_chain_of_the_documents(jobs, dataset, services, settings):
    """Cleaned twice, trained on, trained further, and scored: what is not there yet stands for what it is like."""
    make_base(settings.models_dir / "base" / BASE)
    steps = [
        step("clean", "process", dataset_id=dataset),
        step("more", "process", dataset_id="$clean", config={"steps": ["clean", "split", "augment"]}),
        step("tune", "train", dataset_id="$more", model_name="support", base_model=BASE),
        step("further", "train", dataset_id="$clean", from_version="$tune"),
        step("score", "evaluate", model="$further", dataset_id="$more", split="test"),
    ]
    clean, more, tune, further, score = jobs.submit_chain(CLIENT, steps)
    assert [job.kind for job in (clean, more, tune, further, score)] == [one.kind for one in steps]
    assert more.inputs == {"dataset_id": clean.id}
    assert (tune.after, tune.config["dataset_id"]) == ([more.id], "$more")
    assert further.inputs == {"dataset_id": clean.id, "from_version": tune.id}
    assert sorted(score.after) == sorted([further.id, more.id])
    assert (clean.dataset_number, more.dataset_number, tune.dataset_id, score.dataset_id) == (1, None, None, None)
    assert len(services.job_records.list(CLIENT).jobs) == 5


def test_a_train_job_that_goes_on_with_a_chains_model_is_bound_to_it(jobs, services, work, settings):
    make_base(settings.models_dir / "base" / BASE)
    steps = [
        step("first", "make", name="good"),
        step("then", "train", dataset_path="data/raw/sound.json", from_version="$first", base_model=BASE),
    ]
    made, then = jobs.submit_chain(CLIENT, steps)
    assert services.execution.run_next("me", then.id) is False  # it waits
    assert services.execution.run_next("me", made.id)
    assert services.execution.run_next("me", then.id)
    bound = services.job_records.get(CLIENT, then.id)
    assert bound.config["from_version"] == "good:1"
    assert (bound.inputs, bound.after) == ({}, [made.id])


def test_a_chain_counts_as_all_its_jobs(jobs, services, twins):
    two = [step("first", "make", name="a"), step("then", "make", ["first"], name="b")]
    twins.jobs.set_limits("default", ProjectLimits(queued=1))
    with pytest.raises(TooMany):
        jobs.submit_chain(CLIENT, two)
    assert twins.job_count() == 0
    twins.jobs.set_limits("default", ProjectLimits(versions=1))
    with pytest.raises(Forbidden) as refused:
        jobs.submit_chain(CLIENT, two)
    assert refused.value.code == "quota_exceeded"
    assert twins.job_count() == 0
    assert len(jobs.submit_chain(CLIENT, two[:1])) == 1


def test_a_job_waits_for_others_of_its_project_alone(jobs, work, twins):
    first = jobs.submit(CLIENT, "make", {"name": "a"})
    waits = jobs.submit(CLIENT, "make", {"name": "b"}, after=[first.id])
    for principal, others in ((STRANGER, [first.id]), (CLIENT, ["make-" + "0" * 24]), (CLIENT, ["../x"])):
        with pytest.raises(NotFound) as refused:
            jobs.submit(principal, "make", {"name": "c"}, after=others)
        assert refused.value.code == "job_not_found"
    assert [job.state for job in work([first, waits])] == [JobState.SUCCEEDED] * 2
    assert work([jobs.submit(CLIENT, "make", {"name": "d"}, after=[first.id])])[0].state is JobState.SUCCEEDED
    ended = jobs.submit(CLIENT, "make", {"name": "e"})
    jobs.cancel(CLIENT, ended.id)
    with pytest.raises(Conflict) as failed:
        jobs.submit(CLIENT, "make", {"name": "f"}, after=[ended.id])
    assert failed.value.code == "dependency_failed"
    assert twins.job_count() == 4

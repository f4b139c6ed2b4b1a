"""/v1/fine_tuning/jobs with the official client."""

import json
import threading
from datetime import UTC, datetime, timedelta

import openai as wire
import pytest

from app.core.entities.identity import Role
from app.core.entities.jobs import JobError, JobEvent, JobState
from app.core.entities.models import ModelVersion
from app.core.errors import Fault
from app.core.interfaces.job_kinds import Finished
from app.repositories.tables import JobRow

BASE = "tiny-random"
NOW = datetime(2026, 11, 27, tzinfo=UTC)


def row(question):
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": "!"}]}


@pytest.fixture
def send(openai):
    def send(client=openai, questions="abcde", name="train.jsonl"):
        rows = "".join(json.dumps(row(one)) + "\n" for one in questions).encode()
        return client.files.create(file=(name, rows), purpose="fine-tune").id

    return send


@pytest.fixture
def start(openai, send):
    def start(client=openai, **options):
        options = {"model": BASE, "training_file": options.pop("file", None) or send(client), **options}
        return client.fine_tuning.jobs.create(**options)

    return start


def finish(twins, job_id, published=True):
    """A worker's part of it."""
    twins.jobs.move(job_id, twins.jobs.claim("w", 5, job_id).fence, JobState.QUEUED)
    claim = twins.jobs.claim("w", 5, job_id)
    twins.jobs.ingest(
        job_id,
        claim.fence,
        [
            JobEvent(1, "message", "info", "begins", NOW),
            *(
                JobEvent(n + 1, "metrics", "info", f"step {n} of 3", NOW, {"step": n, "loss": 3.0 / n})
                for n in (1, 2, 3)
            ),
            JobEvent(5, "metrics", "info", "step 3 of 3", NOW, {"step": 3, "total_steps": 3, "eval_loss": 0.5}),
        ],
        None,
    )
    job = claim.job
    version = ModelVersion(
        *("version-1", job.project_id, job.config["model_name"], 0, job.base_model, "t" * 64, "version-1", job.id),
        *(job.dataset_digest, job.config, {}, None, NOW),
    )
    if published:
        twins.jobs.succeed(job_id, claim.fence, Finished({"trained_tokens": 77}, [version]))
    return claim


def test_a_job_is_made_of_what_is_asked(openai, start, send, caller):
    file = send()
    given = {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 0.5}
    job = start(
        file=file,
        suffix="support",
        seed=7,
        metadata={"team": "a"},
        method={"type": "supervised", "supervised": {"hyperparameters": given}},
        extra_body={"adaptation": "lora", "lora": {"r": 4}, "priority": 3, "max_length": 64},
    )
    shown = caller("GET", f"/api/v1/train/status/{job.id}").json
    config = shown["config"]
    assert (config["num_epochs"], config["batch_size"], config["gradient_accumulation_steps"]) == (2, 4, 1)
    assert (config["lora"]["r"], config["max_length"], config["seed"], shown["priority"]) == (4, 64, 7, 3)
    assert (config["model_name"], config["objective"], config["base_model"]) == ("support", "sft", BASE)
    assert job.hyperparameters.to_dict() == given
    assert job.method.supervised.hyperparameters.to_dict() == given
    assert (job.object, job.status, job.model, job.training_file) == (
        "fine_tuning.job",
        "validating_files",
        BASE,
        file,
    )
    assert (job.organization_id, job.seed, job.metadata, job.error, job.fine_tuned_model) == (
        "default",
        7,
        {"team": "a"},
        None,
        None,
    )
    assert openai.fine_tuning.jobs.retrieve(job.id) == job


def test_dpo_the_older_place_and_auto(start, caller):
    dpo = start(method={"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2, "n_epochs": "auto"}}})
    assert dpo.method.dpo.hyperparameters.beta == 0.2
    older = start(hyperparameters={"n_epochs": 5, "learning_rate_multiplier": "auto"})
    assert (older.hyperparameters.n_epochs, older.hyperparameters.learning_rate_multiplier) == (5, 1.0)
    assert caller("GET", f"/api/v1/train/status/{dpo.id}").json["config"]["objective"] == "dpo"


def test_a_validation_file_is_what_validates(openai, start, send, services, twins):
    job = start(file=send(questions="abc"), validation_file=send(questions="de"))
    kept = twins.jobs.get("default", job.id)
    rows = services.dataset_versions._library.rows(kept.dataset_digest)
    assert [(one.messages[0]["content"], one.split) for one in rows] == [
        *((letter, "train") for letter in "abc"),
        *((letter, "validation") for letter in "de"),
    ]
    assert openai.fine_tuning.jobs.retrieve(job.id).validation_file == job.validation_file is not None


def test_it_trains_on_from_a_version_by_each_of_its_names(start, twins):
    for name in ("support", "theirs"):
        twins.versions.publish(
            ModelVersion(
                *(name, "default" if name == "support" else "other", name, 0, BASE, "0" * 64, "v", None, "0" * 64),
                *({}, {}, None, NOW),
            )
        )
    for name in ("support", "support:1", f"ft:{BASE}:default:support:1", "gpt-4o-mini"):
        assert twins.jobs.get("default", start(model=name).id).config["from_version"] == "support:1"
    for name in ("theirs", f"ft:{BASE}:other:theirs:1", "nobody"):
        with pytest.raises(wire.BadRequestError) as caught:
            start(model=name)
        assert caught.value.param == "model"


@pytest.mark.parametrize(
    ("options", "params"),
    [
        ({"model": "nobody", "validation_file": "ds-" + "0" * 24}, ["model", "validation_file"]),
        ({"file": "ds-" + "0" * 24}, ["training_file"]),
        ({"suffix": "two words"}, ["suffix"]),
        ({"method": {"type": "reinforcement", "reinforcement": {"grader": {}}}}, ["method.type"]),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}, ["integrations"]),
        ({"hyperparameters": {"n_epochs": 0, "batch_size": "many"}}, ["hyperparameters.n_epochs"]),
        ({"extra_body": {"colour": "red", "lora": {"r": 0}}}, ["colour", "lora.r"]),
        ({"extra_body": {"num_epochs": 3, "output_dir": "/tmp"}}, ["num_epochs"]),
        ({"metadata": {str(n): "x" for n in range(17)}}, ["metadata"]),
        ({"extra_body": {"queue": "nobodys"}}, ["queue"]),
        ({"hyperparameters": {"learning_rate_multiplier": 9999}}, ["learning_rate_multiplier"]),
    ],
)
def test_faults_are_named_and_nothing_is_started(openai, start, send, twins, options, params):
    sent = send()
    file, files = options.get("file") or sent, list(openai.files.list())
    with pytest.raises(wire.BadRequestError) as caught:
        start(**{**options, "file": file})
    for param in params:
        assert f"\n{param}" in caught.value.body["message"]
    assert twins.job_count() == 0
    assert list(openai.files.list()) == files


def test_bad_config_beside_a_validation_file_leaves_no_dataset(openai, start, send):
    train, validate = send(), send()
    with pytest.raises(wire.BadRequestError):
        start(file=train, validation_file=validate, extra_body={"queue": "nobodys"})
    assert len(list(openai.files.list())) == 2


def test_lists_by_pages_and_metadata(openai, start, send):
    file = send()
    made = [start(file=file, metadata={"team": team}).id for team in "abaab"]
    assert [job.id for job in openai.fine_tuning.jobs.list(limit=2)] == made[::-1]
    chosen = openai.fine_tuning.jobs.list(limit=2, metadata={"team": "a"})
    assert [job.id for job in chosen] == [made[3], made[2], made[0]]
    last = openai.fine_tuning.jobs.list(limit=1, after=made[2], metadata={"team": "a"})
    assert ([job.id for job in last.data], last.has_more) == ([made[0]], False)
    with pytest.raises(wire.BadRequestError):
        openai.fine_tuning.jobs.list(after="ftjob-" + "0" * 24)
    with pytest.raises(wire.BadRequestError) as caught:
        openai.fine_tuning.jobs.list(metadata={str(n): "x" for n in range(17)})
    assert caught.value.param == "metadata"
    with pytest.raises(wire.BadRequestError) as caught:
        openai.fine_tuning.jobs.list(extra_query={"colour": "red"})
    assert caught.value.param == "colour"


def test_a_finished_job_its_events_and_its_results(openai, start, twins):
    job = start(suffix="support")
    finish(twins, job.id)
    done = openai.fine_tuning.jobs.retrieve(job.id)
    assert (done.status, done.trained_tokens) == ("succeeded", 77)
    assert done.fine_tuned_model == f"ft:{BASE}:default:support:1"
    assert openai.models.retrieve(done.fine_tuned_model).id == done.fine_tuned_model
    events = list(openai.fine_tuning.jobs.list_events(job.id, limit=2))
    assert [event.message for event in events] == [
        "step 3 of 3",
        "step 3 of 3",
        "step 2 of 3",
        "step 1 of 3",
        "begins",
    ]
    assert events[0].data == {"step": 3, "total_steps": 3, "valid_loss": 0.5, "full_valid_loss": 0.5}
    assert (events[1].data, events[1].type) == ({"step": 3, "train_loss": 1.0}, "metrics")
    (result,) = done.result_files
    assert openai.files.retrieve(result).purpose == "fine-tune-results"
    assert openai.files.content(result).text.splitlines() == [
        "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy",
        "1,3.0,,,",
        "2,1.5,,,",
        "3,1.0,,0.5,",
    ]
    assert [file.id for file in openai.files.list(purpose="fine-tune-results")] == [result]
    with pytest.raises(wire.ConflictError):
        openai.files.delete(result)
    with pytest.raises(wire.ConflictError):
        openai.files.delete(job.training_file)


def test_checkpoints_are_those_on_the_disk(openai, start, twins, settings):
    job = start(suffix="support")
    assert list(openai.fine_tuning.jobs.checkpoints.list(job.id)) == []
    claim = finish(twins, job.id, published=False)
    twins.jobs.set_run_folder(job.id, claim.fence, "run")
    for step in (1, 2, 3):
        (settings.results_dir / "run" / "checkpoints" / job.id / f"step-{step:08}").mkdir(parents=True)
    found = list(openai.fine_tuning.jobs.checkpoints.list(job.id, limit=2))
    assert [one.step_number for one in found] == [3, 2, 1]
    assert found[0].metrics.to_dict() == {"step": 3, "train_loss": 1.0, "valid_loss": 0.5, "full_valid_loss": 0.5}
    name = f"ft:{BASE}:default:support:{job.id.removeprefix('ftjob-')}:ckpt-step-3"
    assert found[0].fine_tuned_model_checkpoint == name
    with pytest.raises(wire.NotFoundError):
        openai.chat.completions.create(model=name, messages=[{"role": "user", "content": "hi"}])


def test_moves(openai, start, twins):
    jobs, job = openai.fine_tuning.jobs, start()
    with pytest.raises(wire.ConflictError):
        jobs.pause(job.id)
    twins.jobs.move(job.id, twins.jobs.claim("w", 5, job.id).fence, JobState.QUEUED)
    assert jobs.pause(job.id).status == "paused"
    assert jobs.resume(job.id).status == "queued"
    assert jobs.cancel(job.id).status == "cancelled"
    with pytest.raises(wire.ConflictError):
        jobs.resume(job.id)


def test_why_a_job_failed(openai, start, twins):
    job = start()
    error = JobError("invalid_data", "the data has faults", (Fault("row 2", "too_long", "is too long"),))
    twins.jobs.move(job.id, twins.jobs.claim("w", 5, job.id).fence, JobState.FAILED, error)
    said = openai.fine_tuning.jobs.retrieve(job.id).error
    assert (said.code, said.message, said.param) == (
        "invalid_data",
        "the data has faults\nrow 2: is too long",
        "training_file",
    )


def test_what_is_tried_again_shows_the_same_request(openai, start, caller):
    job = start(metadata={"team": "a"})
    openai.fine_tuning.jobs.cancel(job.id)
    again = openai.fine_tuning.jobs.retrieve(caller("POST", f"/api/v1/train/{job.id}/retry").json["task_id"])
    assert (again.metadata, again.training_file) == (job.metadata, job.training_file)


AGAIN = {"extra_headers": {"x-stainless-retry-count": "1"}}


def test_a_retried_create_makes_one_job(openai, start, send, twins):
    file = send()
    first = start(file=file, metadata={"a": "b"})
    assert start(file=file, metadata={"a": "b"}, **AGAIN).id == first.id
    assert start(file=file, metadata={"a": "b"}).id != first.id  # meant: nothing says that it is asked again
    assert start(file=file, metadata={"a": "c"}, **AGAIN).id not in (first.id,)
    assert twins.job_count() == 3


def test_a_retry_that_overtakes_its_first_makes_one_job(openai, start, send, services, twins, monkeypatch):
    file, began, go_on = send(), threading.Event(), threading.Event()
    check = services.training.check

    def slow_once(*arguments):
        monkeypatch.setattr(type(services.training), "check", lambda _self, *arguments: check(*arguments))
        began.set()
        assert go_on.wait(30)
        check(*arguments)

    monkeypatch.setattr(type(services.training), "check", lambda _self, *arguments: slow_once(*arguments))
    made = []
    first = threading.Thread(target=lambda: made.append(start(file=file).id))
    first.start()
    assert began.wait(30)
    made.append(start(file=file, **AGAIN).id)
    go_on.set()
    first.join(30)
    assert len(made) == 2
    assert len(set(made)) == twins.job_count() == 1


def test_another_callers_retry_and_an_old_one_are_jobs_of_their_own(connect, start, send, twins):
    file = send()
    first = start(file=file)
    made_at = twins.jobs.get("default", first.id).created_at
    twins.change(JobRow, first.id, created_at=made_at - timedelta(minutes=11))
    second = start(file=file, **AGAIN)
    third = start(connect(Role.DEVELOPER), file=file, **AGAIN)
    assert len({first.id, second.id, third.id}) == 3


def test_a_viewer_starts_nothing(connect, start, send):
    file = send()
    with pytest.raises(wire.PermissionDeniedError):
        start(connect(Role.VIEWER), file=file)

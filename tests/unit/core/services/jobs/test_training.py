"""Submitting a job: what is merged, what is refused, what the foreground may. (HTTP: tests/unit/api.)"""

import re

import pytest

from app.core.entities.identity import Principal, Role
from app.core.entities.jobs import JobState
from app.core.errors import Invalid, NotFound

CLIENT = Principal("user-1", "alice", "other", Role.OPERATOR)
SOUND = {"dataset_path": "data/raw/sound.json"}


@pytest.fixture
def training(services):
    return services.training


def test_a_clients_job(training, twins):
    job = training.submit(CLIENT, {**SOUND, "experiment_name": "trial"})
    assert re.fullmatch("ftjob-[0-9a-f]{24}", job.id)
    assert (job.project_id, job.created_by, job.name) == ("other", "user-1", "trial")
    assert job.state is JobState.VALIDATING_FILES
    assert twins.jobs.get("other", job.id) == job
    assert len(job.dataset_digest) == 64
    assert twins.queue.rung == [job.id]


@pytest.mark.parametrize(
    "overrides",
    [
        {"lora": {"r": 4}, "num_epochs": 2},
        {"r": 4, "num_epochs": 2},
        {"model": {"r": 4, "num_epochs": 2}},
        {"model": {"lora": {"r": 4}}, "num_epochs": 2},
    ],
)
def test_overrides_lie_over_the_defaults_wherever_they_stand(training, overrides):
    config = training.submit(CLIENT, SOUND | overrides).config
    assert (config["lora"]["r"], config["num_epochs"]) == (4, 2)
    defaults = training.defaults.model_dump(mode="json")
    left_out = ("batch_size", "learning_rate", "warmup_steps")
    assert [config[key] for key in left_out] == [defaults[key] for key in left_out]
    assert config["lora"]["lora_alpha"] == defaults["lora"]["lora_alpha"]


def test_lists_are_lists_again_after_the_row(training):
    config = training.submit(CLIENT, {**SOUND, "target_modules": ["q_proj", "v_proj"]}).config
    assert config["lora"]["target_modules"] == ["q_proj", "v_proj"]
    again = training.submit(CLIENT, config)
    assert again.config == config


def test_only_the_foreground_says_where_files_go(training, tmp_path, twins):
    with pytest.raises(Invalid) as refused:
        training.submit(CLIENT, {**SOUND, "output_dir": str(tmp_path)})
    assert [fault.where for fault in refused.value.faults] == ["config.output_dir"]
    assert twins.job_count() == 0
    job = training.submit(Principal.host(), {**SOUND, "output_dir": str(tmp_path)}, foreground=True)
    assert job.config["output_dir"] == str(tmp_path)


def test_the_defaults_output_dir_is_the_foregrounds_too(training):
    training._requests.defaults = training.defaults.with_changes(output_dir="results/mine")
    assert training.submit(CLIENT, SOUND).config["output_dir"] is None
    assert training.submit(Principal.host(), SOUND, foreground=True).config["output_dir"] == "results/mine"


def test_the_foreground_may_train_on_any_file(training, tmp_path, settings):
    elsewhere = tmp_path / "mine.json"
    elsewhere.write_bytes((settings.data_dir / "raw" / "sound.json").read_bytes())
    with pytest.raises(Invalid):
        training.submit(CLIENT, {"dataset_path": str(elsewhere)})
    job = training.submit(Principal.host(), {"dataset_path": str(elsewhere)}, foreground=True)
    assert (job.project_id, job.created_by) == ("default", None)


def test_nothing_is_checked_that_has_no_sound_value(training):
    with pytest.raises(Invalid) as refused:
        training.submit(CLIENT, {"dataset_path": 5, "base_model": ["x"]})
    assert {fault.where for fault in refused.value.faults} == {"config.dataset_path", "config.base_model"}


def test_a_job_belongs_to_its_project(training, services):
    job = training.submit(CLIENT, SOUND)
    stranger = Principal("user-2", "bob", "default", Role.ADMIN)
    records, jobs = services.job_records, services.jobs
    calls = (records.get, records.events, records.metrics, jobs.cancel, jobs.pause, jobs.resume, jobs.retry)
    for call in calls:
        with pytest.raises(NotFound):
            call(stranger, job.id)
    assert records.list(stranger).jobs == []
    assert records.get(CLIENT, job.id) == job

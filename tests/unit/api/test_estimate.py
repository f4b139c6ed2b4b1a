"""What a job would take, asked over HTTP and on the command line; the double rehearses, in a real process."""

import pytest

from app.api.jobs.schemas import PreferSchema
from app.core.entities.identity import Principal, Role
from app.core.entities.jobs import JobState
from app.core.errors import Conflict
from tests.running_service import BASE, make_base

BODY = {"dataset_path": "data/raw/sound.json", "config": {"num_epochs": 3}}
PATH = "/api/v1/train/estimate"
PATIENT = {"Prefer": "wait=30"}  # of a test: a process starts slowly where others run


@pytest.fixture(autouse=True)
def base(settings):
    make_base(settings.models_dir / "base" / BASE)


@pytest.fixture
def quiet_settings(quiet_settings):
    """What crashes is not tried again: that takes its time."""
    return quiet_settings.model_copy(update={"max_attempts": 1})


@pytest.fixture
def jobs(services):
    """Every job that there is."""
    return lambda: services.job_records.list(Principal.host()).jobs


@pytest.mark.usefixtures("light_worker")
def test_the_figures(caller, jobs, settings):
    answer = caller("POST", PATH, json=BODY, headers=PATIENT)
    assert (answer.status_code, answer.json) == (
        200,
        {
            "steps": 3,
            "input_tokens": 30,
            "trained_tokens": 15,
            "seconds": pytest.approx(0.3),
            "peak_memory_bytes": 10**6,
            "disk_bytes": 10**6,
            "device": "cpu",
            "available_bytes": 10**9,
            "fits": True,
            "suggestion": None,
        },
    )
    (job,) = jobs()
    assert (job.kind, job.state, job.is_light) == ("estimate", JobState.SUCCEEDED, True)
    assert caller("GET", "/api/v1/train").json["data"] == []
    assert list(settings.results_dir.iterdir()) == []
    assert list((settings.instance_dir / "jobs").iterdir()) == []  # of what it worked with nothing is left


@pytest.mark.usefixtures("light_worker")
def test_the_same_question_starts_no_second_rehearsal(caller, jobs):
    """It is answered as fast as it was before there were jobs: no child process, and no attempt's folder."""
    first, second = (caller("POST", PATH, json=BODY, headers=PATIENT) for _ in range(2))
    assert first.json == second.json
    assert [job.run_folder is None for job in jobs()] == [True, False]  # the newest first


@pytest.mark.parametrize("prefer", [{"Prefer": "wait=0"}, {"Prefer": 'respond-async, Wait = "0"'}])
def test_who_does_not_wait_is_told_where_the_answer_will_be(caller, services, prefer):
    answer = caller("POST", PATH, json=BODY, headers=prefer)
    assert answer.status_code == 202
    place = answer.headers["Location"]
    assert place == f"/api/v1/jobs/{answer.json['id']}"
    assert (answer.json["kind"], answer.json["status"], answer.json["result"]) == (
        "estimate",
        "validating_files",
        {},
    )
    while services.execution.run_next("me", is_light=True):
        pass
    shown = caller("GET", place).json
    assert (shown["status"], shown["error"], shown["result"]["fits"]) == ("succeeded", None, True)
    assert shown["result"]["forecast"]["steps"] == 3


def test_an_estimate_that_is_cancelled_is_told(caller, services):
    place = caller("POST", PATH, json=BODY, headers={"Prefer": "wait=0"}).headers["Location"]
    assert caller("POST", f"{place}/pause").json["code"] == "cannot_pause"
    assert caller("POST", f"{place}/cancel").json["status"] == "cancelled"
    job = services.job_records.list(Principal.host()).jobs[0]
    with pytest.raises(Conflict) as told:
        services.training.estimate_of(job)
    assert told.value.code == "cancelled"


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (None, 10),
        ("wait=20", 20),
        ("wait=0", 0),
        ("wait=31", 30),
        ("wait=999999999", 30),
        ("wait=" + "9" * 6000, 10),  # no number of seconds
        ('return=minimal, WAIT="7"', 7),
        ("wait=-1", 10),
        ("wait=soon", 10),
        ("", 10),
    ],
)
def test_what_a_client_prefers(given, seconds):
    headers = {} if given is None else {"Prefer": given}
    assert PreferSchema().load(headers) == {"wait": seconds}


@pytest.mark.usefixtures("light_worker")
def test_one_that_does_not_fit_is_told_what_is_nearest(caller):
    huge = {**BODY, "config": {"experiment_name": "double-huge", "batch_size": 2}}
    answer = caller("POST", PATH, json=huge, headers=PATIENT)
    assert answer.status_code == 200
    assert (answer.json["fits"], answer.json["suggestion"]) == (False, None)


@pytest.mark.usefixtures("light_worker")
def test_what_ends_a_run_ends_an_estimate(caller):
    invalid = {**BODY, "config": {"experiment_name": "double-invalid"}}
    answer = caller("POST", PATH, json=invalid, headers=PATIENT)
    assert (answer.status_code, answer.json["code"]) == (422, "invalid_data")
    assert [fault["where"] for fault in answer.json["errors"]] == ["row 1", "row 2"]


@pytest.mark.usefixtures("light_worker")
@pytest.mark.parametrize("name", ["double-crashes", "double-raises"])
def test_what_nobody_foresaw_is_no_fault_of_the_request(caller, jobs, settings, name):
    answer = caller("POST", PATH, json={**BODY, "config": {"experiment_name": name}}, headers=PATIENT)
    assert (answer.status_code, answer.json["code"]) == (503, "estimate_failed")
    assert "secret" not in answer.get_data(as_text=True)
    (job,) = jobs()
    (log, *_) = (settings.instance_dir / "jobs" / job.id).rglob("logs.txt")
    assert ("a secret of the host" in log.read_text()) == (name == "double-raises")


def test_every_fault_of_a_request_is_told_as_by_train(caller):
    body = {"dataset_path": "data/raw/nowhere.json", "base_model": "unknown", "config": {"num_epochs": 0}}
    answers = [caller("POST", path, json=body) for path in (PATH, "/api/v1/train")]
    assert [answer.status_code for answer in answers] == [422, 422]
    assert answers[0].json["errors"] == answers[1].json["errors"]
    assert len(answers[0].json["errors"]) == 3


@pytest.mark.usefixtures("light_worker")
def test_a_row_without_a_trained_token_is_told(caller):
    answer = caller("POST", PATH, json={**BODY, "config": {"max_length": 16}}, headers=PATIENT)
    assert (answer.status_code, answer.json["code"]) == (422, "invalid_data")
    assert {fault["code"] for fault in answer.json["errors"]} == {"no_trained_token"}


def test_a_viewer_may_not(client, bearer):
    assert client.post(PATH, json=BODY, headers=bearer(Role.VIEWER)).status_code == 403


def test_the_command(app):
    words = ["train", "estimate", "--dataset-path", "data/raw/sound.json", "--set", "num_epochs=3"]
    done = app.test_cli_runner().invoke(args=words)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        "steps        3",
        "tokens       30 read, 15 trained",
        "time         0.3 s, once the model is loaded",
        "peak memory  0.00 GB of 1.00 GB free",
        "disk         1 MB at most",
        "fits         yes",
    ]

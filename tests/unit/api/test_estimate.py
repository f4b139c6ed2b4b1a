"""What a job would take, asked over HTTP and on the command line; the double rehearses, in a real process."""

import pytest

from app.core.entities.identity import Role
from tests.running_service import BASE, make_base

BODY = {"dataset_path": "data/raw/sound.json", "config": {"num_epochs": 3}}
PATH = "/api/v1/train/estimate"


@pytest.fixture(autouse=True)
def base(settings):
    make_base(settings.models_dir / "base" / BASE)


def test_the_figures(caller, twins, settings):
    answer = caller("POST", PATH, json=BODY)
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
    assert twins.job_count() == 0
    assert twins.queue.rung == []
    assert list(settings.results_dir.iterdir()) == []


def test_one_that_does_not_fit_is_told_what_is_nearest(caller):
    huge = {**BODY, "config": {"experiment_name": "double-huge", "batch_size": 2}}
    answer = caller("POST", PATH, json=huge)
    assert answer.status_code == 200
    assert (answer.json["fits"], answer.json["suggestion"]) == (False, None)


def test_what_ends_a_run_ends_an_estimate(caller):
    invalid = {**BODY, "config": {"experiment_name": "double-invalid"}}
    answer = caller("POST", PATH, json=invalid)
    assert (answer.status_code, answer.json["code"]) == (422, "invalid_data")
    assert [fault["where"] for fault in answer.json["errors"]] == ["row 1", "row 2"]


@pytest.mark.parametrize("name", ["double-crashes", "double-raises"])
def test_what_nobody_foresaw_is_no_fault_of_the_request(caller, caplog, name):
    answer = caller("POST", PATH, json={**BODY, "config": {"experiment_name": name}})
    assert (answer.status_code, answer.json["code"]) == (503, "estimate_failed")
    assert "secret" not in answer.get_data(as_text=True)
    assert ("a secret of the host" in caplog.text) == (name == "double-raises")


def test_every_fault_of_a_request_is_told_as_by_train(caller):
    body = {"dataset_path": "data/raw/nowhere.json", "base_model": "unknown", "config": {"num_epochs": 0}}
    answers = [caller("POST", path, json=body) for path in (PATH, "/api/v1/train")]
    assert [answer.status_code for answer in answers] == [422, 422]
    assert answers[0].json["errors"] == answers[1].json["errors"]
    assert len(answers[0].json["errors"]) == 3


def test_a_row_without_a_trained_token_is_told(caller):
    answer = caller("POST", PATH, json={**BODY, "config": {"max_length": 16}})
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

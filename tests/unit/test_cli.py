"""The ``flask`` commands: what they do, and how they end."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from dotenv import dotenv_values

from app.core.entities.identity import DEFAULT_PROJECT_ID, Role
from app.core.entities.inference import AnswerOptions
from app.core.entities.jobs import JobError, JobEvent, JobState, Progress
from app.core.entities.limits import ProjectLimits
from app.core.entities.models import ModelVersion
from app.core.errors import Fault, Unavailable

ROOT = Path(__file__).parents[2]
PASSWORD = "correct horse battery"


@pytest.fixture
def flask(app):
    """``flask(…)`` → (exit status, standard output, standard error)."""
    runner = app.test_cli_runner()

    def run(*words, stdin=None):
        done = runner.invoke(args=list(words), input=stdin)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.stdout, done.stderr

    return run


def one_line(stderr):
    return stderr.startswith("Error: ") and stderr.count("\n") == 1


def test_a_user_is_made_who_can_log_in(flask, client, twins):
    code, out, _ = flask(
        "users", "create", "alice", "--role", "developer", "--password-stdin", stdin=PASSWORD + "\n"
    )
    assert (code, out) == (0, "created alice (developer)\n")
    body = {"username": "alice", "password": PASSWORD}
    assert client.post("/api/v1/auth/token", json=body).status_code == 200
    code, out, _ = flask("users", "list")
    assert code == 0
    assert re.match(r"alice +developer of default ", out)


def test_without_password_stdin_it_asks_twice(flask, twins):
    code, _, _ = flask("users", "create", "alice", "--role", "viewer", stdin=f"{PASSWORD}\n{PASSWORD}\n")
    assert code == 0
    (membership,) = twins.users.memberships(twins.users.by_username("alice").id)
    assert membership.role is Role.VIEWER


@pytest.mark.parametrize(("name", "password"), [("alice", "short"), ("no name", PASSWORD), ("alice", "")])
def test_a_user_with_faults_is_a_failure(flask, twins, name, password):
    code, out, err = flask("users", "create", name, "--role", "viewer", "--password-stdin", stdin=password)
    assert (code, out) == (1, "")
    assert one_line(err)
    assert not twins.users.any()


def test_a_username_that_is_taken(flask):
    words = ("users", "create", "alice", "--role", "viewer", "--password-stdin")
    flask(*words, stdin=PASSWORD)
    code, _, err = flask(*words, stdin=PASSWORD)
    assert code == 1
    assert one_line(err)


@pytest.mark.parametrize(
    "words",
    [
        ("users", "create"),
        ("users", "create", "alice", "--role", "king"),
        ("users", "create", "alice"),
        ("users", "nonsense"),
        ("train", "submit", "--set", "seed"),
        ("jobs", "list", "--state", "asleep"),
        ("jobs", "list", "--limit", "0"),
        ("jobs", "show"),
        ("jobs", "metrics", "ftjob-x", "--points", "0"),
        ("models", "show"),
        ("models", "alias", "support", "champion"),
        ("models", "alias", "support", "champion", "two"),
        ("models", "alias", "support", "champion", "0"),
        ("models", "alias", "support", "champion", "1=0"),
        ("models", "alias", "support", "champion", "1=2", "1=3"),
        ("predict",),
        ("predict", "  "),
        ("predict", "hello", "--max-length", "0"),
        ("predict", "hello", "--temperature", "3"),
        ("lab", "chat", "--top-p", "0"),
        ("lab", "chat", "--top-k", "-1"),
        ("lab", "chat", "--seed", "-1"),
        ("lab", "eval", "--answers", "-1"),
    ],
)
def test_usage_errors(flask, words):
    code, _, err = flask(*words)
    assert code == 2
    assert err.startswith("Usage: ")


@pytest.mark.parametrize(
    "words",
    [
        *[("users",), ("users", "create"), ("users", "list")],
        *[("train",), ("train", "submit"), ("train", "estimate"), ("jobs",)],
        *[("jobs", verb) for verb in ("list", "show", "events", "logs", "cancel", "pause", "resume", "retry")],
        *[("jobs", "metrics"), ("projects", "limits")],
        *[("models",), ("models", "list"), ("models", "show"), ("models", "pull"), ("predict",), ("chat",)],
        *[("models", "alias"), ("models", "unalias")],
        *[("lab",), ("lab", "train"), ("lab", "eval"), ("lab", "chat"), ("lab", "demo")],
    ],
)
def test_help_everywhere(flask, words):
    code, out, _ = flask(*words, "--help")
    assert code == 0
    assert "Usage: " in out


def test_submit_queues_a_job_and_prints_its_id(flask, twins):
    code, out, _ = flask(
        *["train", "submit", "--dataset-path", "data/raw/sound.json", "--base-model", "tiny-random"],
        *["--set", "learning_rate=1e-4", "--set", "experiment_name=trial", "--set", 'lora={"r": 4}'],
    )
    assert code == 0
    job = twins.jobs.get(DEFAULT_PROJECT_ID, out.strip())
    assert (job.config["learning_rate"], job.name, job.config["lora"]["r"]) == (1e-4, "trial", 4)
    assert job.created_by == "operator"
    assert twins.queue.rung == [job.id]


def test_submit_is_bound_to_data_raw(flask, tmp_path, twins):
    elsewhere = tmp_path / "mine.json"
    elsewhere.write_text("[]")
    code, _, err = flask("train", "submit", "--dataset-path", str(elsewhere), "--set", "learning_rate=-1")
    assert code == 1
    assert one_line(err)
    assert "dataset_path" in err
    assert "config.learning_rate" in err
    assert twins.job_count() == 0


def test_a_jobs_life_as_the_operator_sees_it(flask, twins):
    job_id = flask("train", "submit", "--dataset-path", "data/raw/sound.json")[1].strip()
    code, out, _ = flask("jobs", "show", job_id)
    assert code == 0
    assert out.split()[:3] == [job_id, "train", "validating_files"]
    claim = twins.jobs.claim("w", 30)
    twins.jobs.ingest(job_id, claim.fence, [], Progress(3, 10, loss=1.25))
    error = JobError("invalid_data", "the data has faults", (Fault("row 2", "no_answer", "no answer"),))
    twins.jobs.move(job_id, claim.fence, JobState.FAILED, error)
    _, out, _ = flask("jobs", "show", job_id)
    assert "3/10" in out
    assert "  loss: 1.25\n" in out
    assert "  error: invalid_data: the data has faults\n    row 2: no answer\n" in out
    assert job_id in flask("jobs", "list", "--state", "failed")[1]
    assert flask("jobs", "list", "--state", "queued")[1] == ""
    code, _, err = flask("jobs", "cancel", job_id)
    assert code == 1
    assert one_line(err)


def test_cancel(flask, twins):
    job_id = flask("train", "submit", "--dataset-path", "data/raw/sound.json")[1].strip()
    code, out, _ = flask("jobs", "cancel", job_id)
    assert code == 0
    assert "cancelled" in out


def test_pause_resume_and_retry(flask, twins):
    words = ("train", "submit", "--dataset-path", "data/raw/sound.json", "--priority", "4")
    job_id = flask(*words)[1].strip()
    twins.jobs.move(job_id, twins.jobs.claim("w", 30).fence, JobState.QUEUED)
    for verb, state in (("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled")):
        code, out, _ = flask("jobs", verb, job_id)
        assert (code, state in out) == (0, True)
    code, out, _ = flask("jobs", "retry", job_id)
    again = twins.jobs.get(DEFAULT_PROJECT_ID, out.strip())
    assert (code, again.retry_of, again.priority) == (0, job_id, 4)
    assert f"retry_of: {job_id}" in flask("jobs", "show", again.id)[1]
    code, _, err = flask("jobs", "resume", again.id)
    assert code == 1
    assert one_line(err)


def test_events_and_logs(flask, twins, settings):
    job_id = flask("train", "submit", "--dataset-path", "data/raw/sound.json")[1].strip()
    assert "no trainer has been started" in flask("jobs", "logs", job_id)[2]
    twins.jobs.move(job_id, twins.jobs.claim("w", 30).fence, JobState.QUEUED)
    fence = twins.jobs.claim("w", 30).fence
    twins.jobs.set_run_folder(job_id, fence, "run_1")
    assert "no logs.txt" in flask("jobs", "logs", job_id)[2]
    folder = settings.results_dir / "run_1"
    folder.mkdir(parents=True)
    (folder / "logs.txt").write_text("one\ntwo\nthree\n")
    assert flask("jobs", "logs", job_id, "--lines", "2")[1] == "two\nthree\n"
    at = datetime(2026, 1, 1, 12, 0, 1, tzinfo=UTC)
    said = [
        JobEvent(1, "message", "info", "loading", at),
        JobEvent(2, "metrics", "info", "step 1 of 2", at, {"loss": 1.25}),
    ]
    twins.jobs.ingest(job_id, fence, said, None)
    code, out, _ = flask("jobs", "events", job_id, "--after", "1")
    assert (code, out) == (0, "     2  12:00:01  info   step 1 of 2  loss 1.25\n")


def test_metrics(flask, twins):
    job_id = flask("train", "submit", "--dataset-path", "data/raw/sound.json")[1].strip()
    assert flask("jobs", "metrics", job_id)[:2] == (0, "     step\n")
    at = datetime(2026, 1, 1, 12, 0, 1, tzinfo=UTC)
    figures = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.25}, {"step": 2, "eval_loss": 1.5, "margin": None}]
    said = [JobEvent(seq, "metrics", "info", "", at, data) for seq, data in enumerate(figures, 1)]
    twins.jobs.ingest(job_id, twins.jobs.claim("w", 30).fence, said, None)
    assert flask("jobs", "metrics", job_id)[1] == (
        "     step   eval_loss        loss\n        1                       2\n        2         1.5        1.25\n"
    )
    _, out, _ = flask("jobs", "metrics", job_id, "--names", "loss, eval_loss", "--csv")
    assert out == (
        "first_step,step,loss,loss_min,loss_max,eval_loss,eval_loss_min,eval_loss_max\n"
        "1,1,2.0,2.0,2.0,,,\n2,2,1.25,1.25,1.25,1.5,1.5,1.5\n"
    )
    _, out, _ = flask("jobs", "metrics", job_id, "--names", "loss", "--points", "1", "--csv")
    assert out.splitlines()[1:] == ["1,2,1.625,1.25,2.0"]
    code, _, err = flask("jobs", "metrics", job_id, "--names", "lose")
    assert (code, err) == (1, "Error: not measured: lose; there is eval_loss, loss\n")


def test_limits(flask, twins):
    begin = "running        0 of any number\nqueued         0 of 1,000\n"
    assert flask("projects", "limits", "default")[1].startswith(begin)
    _, out, _ = flask(
        "projects", "limits", "default", "--running", "2", "--tokens", "5000", "--storage-bytes", "9"
    )
    assert out == (
        "running        0 of 2\nqueued         0 of 1,000\nrequests       any number\ntokens         5,000\n"
        "storage_bytes  0 of 9\nversions       0 of any number\n"
    )
    assert twins.jobs.limits(DEFAULT_PROJECT_ID) == ProjectLimits(2, tokens=5000, storage_bytes=9)
    assert flask("projects", "limits", "default", "--running", "0")[1].startswith(begin)
    flask("projects", "limits", "other", "--running", "3")
    assert (twins.jobs.limits("other").running, twins.jobs.limits(DEFAULT_PROJECT_ID).running) == (3, None)
    assert flask("projects", "limits", "nowhere", "--running", "3")[0] == 1


@pytest.mark.parametrize(
    "words",
    [
        ("jobs", "show", "ftjob-x"),
        ("jobs", "cancel", "x"),
        ("models", "show", "x"),
        ("models", "unalias", "x", "y"),
        ("models", "alias", "x", "y", "1"),
    ],
)
def test_what_is_not_there(flask, words):
    code, _, err = flask(*words)
    assert code == 1
    assert one_line(err)


def test_models(flask, twins):
    version = ModelVersion(
        id="v1",
        project_id=DEFAULT_PROJECT_ID,
        name="support",
        number=1,
        base_model="tiny-random",
        template_hash="0" * 64,
        artifacts="v1",
        job_id=None,
        dataset_digest="0" * 64,
        config={},
        metrics={"eval_loss": 0.5},
        created_by=None,
        created_at=datetime.now(UTC),
    )
    twins.versions.publish(version)
    _, out, _ = flask("models", "list")
    assert "  support:1  1 version, on tiny-random\n" in out
    assert "not here: flask models pull tiny-random" in out
    code, out, _ = flask("models", "show", "support")
    assert code == 0
    assert out.startswith("support:1  on tiny-random")
    assert "  eval_loss: 0.5\n" in out
    twins.versions.publish(replace(version, id="v2", number=2))
    assert flask("models", "alias", "support", "champion", "1")[0] == 0
    assert flask("models", "alias", "support", "canary", "1=90", "2=10")[0] == 0
    out = flask("models", "show", "support")[1]
    assert out.endswith("support@canary  1=90 2=10\nsupport@champion  1\n")
    assert flask("models", "unalias", "support", "canary")[0] == 0
    assert "canary" not in flask("models", "show", "support")[1]


def test_pull_an_unknown_base(flask):
    code, _, err = flask("models", "pull", "gpt-9")
    assert code == 1
    assert one_line(err)
    assert "tiny-random" in err


def test_predict(flask, twins):
    assert flask("predict", "abc", "--model", "m:1")[:2] == (0, "cba\n")
    assert twins.inference.asked == [("default", ["abc"], AnswerOptions(max_tokens=128), "m:1")]
    twins.inference.error = Unavailable("no engine\nanswers")
    code, _, err = flask("predict", "abc")
    assert (code, err) == (1, "Error: no engine answers\n")


def test_without_a_database_one_line_says_what_to_do(flask, twins):
    twins.database.problem = "the database has no schema: run it"
    for words in (("users", "list"), ("jobs", "list"), ("models", "list"), ("predict", "x")):
        assert flask(*words) == (1, "", "Error: the database has no schema: run it\n")


def test_plain_flask_finds_the_application(tmp_path):
    """From the repository's folder, with nothing set: .flaskenv names it."""
    named = dotenv_values(ROOT / ".flaskenv")  # which flask itself reads, together with a developer's .env
    environment = {**os.environ, **named, "INSTANCE_DIR": str(tmp_path), "LOG_LEVEL": "ERROR"}

    def run(*words, **variables):
        return subprocess.run(
            [Path(sys.executable).with_name("flask"), *words],
            cwd=ROOT,
            env=environment | variables,
            capture_output=True,
            text=True,
            input=PASSWORD,
        )

    early = run("users", "list")
    assert (early.returncode, early.stdout) == (1, "")
    assert re.search("^Error: .*flask --app run db upgrade", early.stderr)
    assert run("db", "upgrade").returncode == 0
    made = run("users", "create", "alice", "--role", "admin", "--password-stdin")
    assert (made.returncode, made.stdout) == (0, "created alice (admin)\n"), made.stderr
    assert "alice" in run("users", "list").stdout
    faulty = run("users", "list", PORT="many")
    assert faulty.returncode == 1
    assert faulty.stderr.startswith("Error: configuration: port")
    assert faulty.stderr.count("\n") == 1

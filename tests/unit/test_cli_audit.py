"""What commands leave in the audit log."""

import pytest

from app.cli.base import CHANGES, Commands

PASSWORD = "correct horse battery"
# These change nothing in the database, or work on files of the host alone.
READING = {
    *("data analyze", "data diff", "data list", "data preview", "data validate", "data versions"),
    *("jobs events", "jobs list", "jobs logs", "jobs metrics", "jobs show"),
    *("keys list", "models list", "models pull", "models show", "projects list", "train estimate", "users list"),
    *("webhooks deliveries", "webhooks list"),
    *("lab chat", "lab demo", "lab eval", "lab quantization", "lab train"),
}


@pytest.fixture
def flask(app):
    runner = app.test_cli_runner()
    return lambda *words, stdin=None: runner.invoke(args=list(words), input=stdin)


def seen(twins):
    return [(e.actor, e.project_id, e.action, e.kind, e.object_id, e.status) for e in twins.audit.kept]


def test_every_command_is_known_to_change_something_or_not(app):
    groups = {name: group for name, group in app.cli.commands.items() if isinstance(group, Commands)}
    found = {f"{name} {command}" for name, group in groups.items() for command in group.commands}
    assert found == CHANGES.keys() | READING
    assert not CHANGES.keys() & READING


def test_changes(flask, twins):
    flask("users", "create", "alice", "--role", "operator", "--password-stdin", stdin=PASSWORD)
    flask("projects", "create", "support", "--admin", "alice")
    flask("projects", "set-role", "support", "alice", "developer")
    key = flask("keys", "create", "--project", "support", "--name", "ci")
    flask("keys", "list")
    kept = twins.keys.list("support")[0]
    assert seen(twins) == [
        ("cli", "default", "users.create_user", "user", "alice", 200),
        ("cli", "support", "projects.create_project", "project", "support", 200),
        ("cli", "support", "members.set_role", "project", "support/alice/developer", 409),
        ("cli", "support", "keys.create_key", "key", kept.id, 200),
    ]
    assert key.stdout.strip() not in repr(twins.audit.kept)
    assert PASSWORD not in repr(twins.audit.kept)


def test_a_job(flask, twins):
    job = flask("train", "submit", "--dataset-path", "sound.json").stdout.strip()
    flask("jobs", "cancel", job)
    flask("jobs", "cancel", "ftjob-none")
    assert seen(twins) == [
        ("cli", "default", "train.submit", "train", job, 200),
        ("cli", "default", "train.cancel", "job", job, 200),
        ("cli", "default", "train.cancel", "job", "ftjob-none", 404),
    ]


def test_without_a_database_there_is_nothing_to_keep(flask, twins):
    twins.database.problem = "away"
    assert flask("keys", "revoke", "key-1").exit_code == 1
    assert seen(twins) == []

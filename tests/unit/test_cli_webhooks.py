"""``flask webhooks``."""

import re

import pytest

URL = "https://hooks.example.com/"


@pytest.fixture
def flask(app):
    """``flask(…)`` → standard output; the exit status must be ``code``."""
    runner = app.test_cli_runner()

    def run(*words, code=0):
        done = runner.invoke(args=list(words))
        assert done.exit_code == code, done.output
        return done.stdout

    return run


@pytest.fixture
def hook(flask):
    made = flask("webhooks", "create", "--url", URL, "--event", "fine_tuning.job.failed")
    assert re.fullmatch(r"wh-[0-9a-f]{24} whsec_[0-9A-Za-z+/]{43}=\n", made)
    return made.split()


def test_a_webhook_from_its_beginning_to_its_end(flask, hook):
    hook_id, secret = hook
    assert flask("webhooks", "list") == f"{hook_id}  on   {URL}  fine_tuning.job.failed\n"
    assert flask("webhooks", "list", "--project", "other") == ""
    flask("webhooks", "disable", hook_id)
    assert "  off  " in flask("webhooks", "list")
    flask("webhooks", "enable", hook_id)
    rotated = flask("webhooks", "rotate-secret", hook_id).strip()
    assert rotated.startswith("whsec_")
    assert rotated != secret
    event_id = flask("webhooks", "ping", hook_id).strip()
    said = flask("webhooks", "deliveries", hook_id)
    assert re.fullmatch(rf"{event_id}  webhook.ping +pending +0 attempt\(s\)  -  again at .*\n", said)
    flask("webhooks", "delete", "--project", "other", hook_id, code=1)
    flask("webhooks", "delete", hook_id)
    flask("webhooks", "ping", hook_id, code=1)


def test_where_it_may_not_go(flask):
    flask("webhooks", "create", "--url", "https://127.0.0.1/", code=1)
    flask("webhooks", "create", "--url", "http://hooks.example.com/", code=1)

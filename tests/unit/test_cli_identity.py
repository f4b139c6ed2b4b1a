"""``flask users``, ``flask projects`` and ``flask keys``."""

import re

import pytest

from app.core.entities.identity import Role, Scope

PASSWORD = "correct horse battery"


@pytest.fixture
def flask(app):
    """``flask(…)`` → standard output; the exit status must be 0."""
    runner = app.test_cli_runner()

    def run(*words, stdin=None, code=0):
        done = runner.invoke(args=list(words), input=stdin)
        assert done.exit_code == code, done.output
        if code == 1:
            assert done.stderr.startswith("Error: ")
            assert done.stderr.count("\n") == 1
        return done.stdout

    return run


@pytest.fixture
def alice(flask):
    flask("users", "create", "alice", "--role", "operator", "--password-stdin", stdin=PASSWORD)


def test_projects_and_who_works_in_them(flask, alice, services):
    assert flask("projects", "create", "support", "--admin", "alice") == "created support\n"
    flask("users", "create", "bob", "--role", "viewer", "--project", "support", "--password-stdin", stdin=PASSWORD)
    flask("projects", "set-role", "support", "bob", "developer")
    assert re.search(r"^support +alice \(admin\), bob \(developer\)$", flask("projects", "list"), re.MULTILINE)
    assert re.search(
        r"^alice +admin of default, admin of support, operator ", flask("users", "list"), re.MULTILINE
    )
    flask("projects", "remove-member", "support", "bob")
    flask("projects", "remove-member", "support", "alice", code=1)
    flask("projects", "create", "support", "--admin", "alice", code=1)
    flask("projects", "create", "sales", "--admin", "nobody", code=1)
    flask("projects", "set-role", "nowhere", "bob", "viewer", code=1)


def test_a_key_is_all_that_is_printed_and_it_opens(flask, alice, services, client):
    flask("projects", "create", "support", "--admin", "alice")
    text = flask("keys", "create", "--project", "support", "--name", "ci")
    assert re.fullmatch(r"llmft_[0-9A-Za-z]{46}\n", text)
    headers = {"Authorization": f"Bearer {text.strip()}"}
    shown = client.get("/api/v1/auth/whoami", headers=headers).json
    assert (shown["username"], shown["project_id"], shown["role"]) == ("ci@support", "support", "developer")
    assert shown["scopes"] is None
    listed = flask("keys", "list", "--project", "support")
    assert text.strip() not in listed
    key_id = listed.split()[0]
    assert re.search(r"ci +ci@support +all +good +used ", listed)
    flask("keys", "revoke", "--project", "default", key_id, code=1)
    flask("keys", "revoke", "--project", "support", key_id)
    assert client.get("/api/v1/auth/whoami", headers=headers).status_code == 401
    assert " revoked " in flask("keys", "list", "--project", "support")


def test_a_key_for_less_and_not_for_ever(flask, services):
    words = ("keys", "create", "--name", "grafana", "--role", "viewer", "--scope", "usage", "--scope", "models")
    principal = services.identity.authenticate(flask(*words, "--days", "30").strip())
    assert (principal.role, principal.scopes) == (Role.VIEWER, {Scope.USAGE, Scope.MODELS})
    again = services.identity.authenticate(flask("keys", "create", "--name", "x", "--account", "grafana").strip())
    assert (again.user_id, again.role) == (principal.user_id, Role.VIEWER)
    assert "models,usage" in flask("keys", "list")
    flask("keys", "create", "--name", "x", "--project", "nowhere", code=1)
    flask("keys", "create", "--name", "No account", code=1)
    flask("keys", "create", "--name", "x", "--scope", "all", code=2)
    flask("keys", "revoke", "key-9", code=1)


def test_a_user_is_signed_out(flask, alice, services):
    token = services.identity.login("alice", PASSWORD)
    assert flask("users", "sign-out", "alice") == "ended 1 session(s) of alice\n"
    flask("users", "sign-out", "nobody", code=1)
    with pytest.raises(Exception, match="log in again"):
        services.identity.authenticate(token.token)


def test_the_signing_key_is_rotated(flask, alice, services):
    before = services.identity.login("alice", PASSWORD).token
    assert re.fullmatch(r"[0-9a-f]{16}\n", flask("keys", "rotate-signing"))
    assert services.identity.authenticate(before).username == "alice"


def test_what_becomes_of_a_user(flask, alice, services, client):
    flask("users", "create", "bob", "--role", "viewer", "--subject", "00u1")
    assert flask("users", "link", "bob", "00u2") == "bob is https://login.example.com#00u2\n"
    flask("users", "unlink", "bob")
    flask("users", "set-password", "bob", "--password-stdin", stdin="staple correct horse\n")
    flask("users", "set-password", "bob", "--password-stdin", stdin="short\n", code=1)
    credentials = {"username": "bob", "password": "staple correct horse"}
    assert client.post("/api/v1/auth/token", json=credentials).status_code == 200
    flask("users", "disable", "bob")
    assert client.post("/api/v1/auth/token", json=credentials).status_code == 401
    assert re.search(r"^bob +viewer of default, disabled ", flask("users", "list"), re.MULTILINE)
    flask("users", "enable", "bob")
    assert client.post("/api/v1/auth/token", json=credentials).status_code == 200
    flask("users", "disable", "alice", code=1)
    flask("users", "disable", "nobody", code=1)

"""Projects, members, service accounts, users and keys, over HTTP."""

import pytest

from app.core.entities.identity import Role

PASSWORD = "correct horse battery"
ALICE = {"username": "alice", "password": PASSWORD, "role": "admin"}


@pytest.fixture
def log_in(client):
    def log_in(username, project=None):
        body = {"username": username, "password": PASSWORD, **({"project": project} if project else {})}
        answer = client.post("/api/v1/auth/token", json=body)
        assert answer.status_code == 200, answer.json
        return {"Authorization": f"Bearer {answer.json['access_token']}"}

    return log_in


def test_an_operator_makes_users_and_projects_and_an_admin_does_the_rest(caller, client, log_in):
    made = caller("POST", "/api/v1/users", json=ALICE)
    assert (made.status_code, made.json["username"], made.json["is_operator"]) == (201, "alice", False)
    assert "password_hash" not in made.json
    assert caller("POST", "/api/v1/users", json=ALICE).json["code"] == "username_taken"
    assert caller("POST", "/api/v1/projects", json={"id": "support", "admin": "alice"}).status_code == 201
    assert caller("POST", "/api/v1/projects", json={"id": "support", "admin": "alice"}).status_code == 409
    listed = caller("GET", "/api/v1/users").json["data"]
    (alice,) = [user for user in listed if user["username"] == "alice"]
    assert alice["memberships"] == [
        {"project_id": "default", "role": "admin"},
        {"project_id": "support", "role": "admin"},
    ]
    headers = log_in("alice", "support")
    assert [one["id"] for one in client.get("/api/v1/projects", headers=headers).json["data"]] == [
        *("default", "support")
    ]
    caller("POST", "/api/v1/users", json={**ALICE, "username": "bob", "role": "viewer"})
    assert (
        client.put("/api/v1/members/bob", json={"role": "developer"}, headers=headers).json["role"] == "developer"
    )
    service = client.post("/api/v1/service-accounts", json={"name": "ci", "role": "viewer"}, headers=headers)
    assert (service.status_code, service.json["username"]) == (201, "ci@support")
    members = client.get("/api/v1/members", headers=headers).json["data"]
    assert [(one["username"], one["role"], one["is_service"]) for one in members] == [
        ("alice", "admin", False),
        ("bob", "developer", False),
        ("ci@support", "viewer", True),
    ]
    theirs = log_in("bob", "support")
    assert client.get("/api/v1/models", headers=theirs).status_code == 200
    assert client.delete("/api/v1/members/bob", headers=headers).status_code == 204
    assert client.get("/api/v1/models", headers=theirs).status_code == 401
    assert client.delete("/api/v1/members/bob", headers=headers).json["code"] == "member_not_found"
    assert client.delete("/api/v1/members/alice", headers=headers).json["code"] == "last_admin"


def test_a_key_is_shown_once(client, bearer):
    headers = bearer(Role.VIEWER)
    made = client.post("/api/v1/keys", json={"name": "laptop", "expires_in_days": 1}, headers=headers)
    assert made.status_code == 201
    assert made.headers["Cache-Control"] == "no-store"
    mine = {"Authorization": f"Bearer {made.json['key']}"}
    assert client.get("/api/v1/models", headers=mine).status_code == 200
    assert client.get("/api/v1/auth/whoami", headers=mine).json["key_id"] == made.json["id"]
    listed = client.get("/api/v1/keys", headers=headers)
    assert made.json["key"] not in listed.get_data(as_text=True)
    (one,) = listed.json["data"]
    assert {"key", "hash"}.isdisjoint(one)
    assert one["hint"] == made.json["key"][:10] + "…"
    assert client.post("/api/v1/keys", json={"name": "more"}, headers=mine).json["code"] == "needs_log_in"
    assert client.delete(f"/api/v1/keys/{one['id']}", headers=mine).status_code == 204
    assert client.get("/api/v1/models", headers=mine).json["code"] == "key_invalid"


def test_scopes_are_held_to(client, bearer):
    headers = bearer(Role.DEVELOPER)
    text = client.post("/api/v1/keys", json={"name": "chat", "scopes": ["infer"]}, headers=headers).json["key"]
    mine = {"Authorization": f"Bearer {text}"}
    assert client.post("/api/v1/predict", json={"text": "hello"}, headers=mine).status_code == 200
    refused = client.get("/api/v1/models", headers=mine)
    assert (refused.status_code, refused.json["code"]) == (403, "scope_missing")
    assert "models" in refused.json["detail"]


@pytest.mark.parametrize(
    ("path", "body", "where"),
    [
        ("keys", {"name": ""}, "name"),
        ("keys", {"name": "x", "scopes": ["all"]}, "scopes.0"),
        ("keys", {"name": "x", "expires_in_days": 0}, "expires_in_days"),
        ("keys", {"name": "x", "role": "admin"}, "role"),
        ("users", {**ALICE, "role": "king"}, "role"),
        ("users", {**ALICE, "password": "short"}, "password"),
        ("projects", {"id": "No", "admin": "alice"}, "id"),
        ("service-accounts", {"name": "ci", "role": "operator"}, "role"),
        ("service-accounts", {"name": "c i", "role": "viewer"}, "name"),
        ("auth/refresh", {}, "refresh_token"),
    ],
)
def test_faults_are_named_and_nothing_is_made(caller, twins, path, body, where):
    before = len(twins.users.list()), len(twins.users.projects()), twins.keys.list("default")
    if path == "projects":
        caller("POST", "/api/v1/users", json=ALICE)
        before = len(twins.users.list()), *before[1:]
    answer = caller("POST", f"/api/v1/{path}", json=body)
    assert answer.status_code == 422, answer.json
    assert [fault["where"] for fault in answer.json["errors"]] == [where]
    assert (len(twins.users.list()), len(twins.users.projects()), twins.keys.list("default")) == before


def test_files_of_the_host_are_the_operators(client, bearer, twins):
    body = {"dataset_path": "data/raw/sound.json"}
    for role in (Role.DEVELOPER, Role.ADMIN):
        answer = client.post("/api/v1/train", json=body, headers=bearer(role))
        assert answer.status_code == 422
        assert [(fault["where"], fault["code"]) for fault in answer.json["errors"]] == [
            ("dataset_path", "not_allowed")
        ]
    assert twins.job_count() == 0
    assert client.post("/api/v1/train", json=body, headers=bearer(Role.OPERATOR)).status_code == 202


def test_a_password_is_changed_with_the_old_one_and_ends_every_session(caller, client, log_in):
    caller("POST", "/api/v1/users", json=ALICE)
    mine, other = log_in("alice"), log_in("alice")
    change = {"old_password": "not that one", "new_password": "staple correct horse"}
    refused = client.put("/api/v1/auth/password", json=change, headers=mine)
    assert (refused.status_code, refused.json["code"]) == (403, "wrong_password")
    short = client.put("/api/v1/auth/password", json={**change, "new_password": "short"}, headers=mine)
    assert (short.status_code, short.json["errors"][0]["where"]) == (422, "new_password")
    assert client.get("/api/v1/auth/whoami", headers=other).status_code == 200
    key = client.post("/api/v1/keys", json={"name": "k"}, headers=mine).json["key"]
    key_headers = {"Authorization": f"Bearer {key}"}
    change["old_password"] = PASSWORD
    by_key = client.put("/api/v1/auth/password", json=change, headers=key_headers)
    assert (by_key.status_code, by_key.json["code"]) == (403, "needs_log_in")
    assert client.put("/api/v1/auth/password", json=change, headers=mine).status_code == 204
    for headers in (mine, other):
        assert client.get("/api/v1/auth/whoami", headers=headers).status_code == 401
    assert client.get("/api/v1/auth/whoami", headers=key_headers).status_code == 200
    credentials = {"username": "alice", "password": PASSWORD}
    assert client.post("/api/v1/auth/token", json=credentials).status_code == 401
    credentials["password"] = change["new_password"]
    assert client.post("/api/v1/auth/token", json=credentials).status_code == 200


def test_an_operator_gives_another_password(caller, client, log_in):
    caller("POST", "/api/v1/users", json=ALICE)
    headers = log_in("alice")
    path = "/api/v1/users/alice/password"
    assert caller("PUT", path, json={"password": "short"}).status_code == 422
    assert client.get("/api/v1/auth/whoami", headers=headers).status_code == 200
    assert caller("PUT", path, json={"password": "staple correct horse"}).status_code == 204
    assert client.get("/api/v1/auth/whoami", headers=headers).status_code == 401
    assert caller("PUT", "/api/v1/users/nobody/password", json={"password": PASSWORD}).status_code == 404


def test_a_disabled_user_is_out_at_once_and_what_they_made_stays(caller, client, log_in, twins):
    caller("POST", "/api/v1/users", json={**ALICE, "role": "developer"})
    headers = log_in("alice")
    key = client.post("/api/v1/keys", json={"name": "k"}, headers=headers).json["key"]
    with_key = {"Authorization": f"Bearer {key}"}
    made = client.post("/api/v1/users/alice/disable", headers=headers)
    assert made.status_code == 403
    assert client.get("/api/v1/models", headers=with_key).status_code == 200
    assert caller("POST", "/api/v1/users/alice/disable").json["disabled_at"] is not None
    for one in (headers, with_key):
        assert client.get("/api/v1/models", headers=one).status_code == 401
    log_in_again = {"username": "alice", "password": PASSWORD}
    refused = client.post("/api/v1/auth/token", json=log_in_again)
    assert (refused.status_code, refused.json["code"]) == (401, "invalid_credentials")
    (listed,) = [one for one in caller("GET", "/api/v1/users").json["data"] if one["username"] == "alice"]
    assert listed["memberships"] == [{"project_id": "default", "role": "developer"}]
    assert caller("POST", "/api/v1/users", json=ALICE).json["code"] == "username_taken"
    assert caller("POST", "/api/v1/users/alice/enable").json["disabled_at"] is None
    assert client.post("/api/v1/auth/token", json=log_in_again).status_code == 200
    for one in (headers, with_key):
        assert client.get("/api/v1/models", headers=one).status_code == 401


def test_the_last_operator_stays(caller, twins):
    (me,) = [user.username for user in twins.users.list() if user.is_operator]
    refused = caller("POST", f"/api/v1/users/{me}/disable")
    assert (refused.status_code, refused.json["code"]) == (409, "last_operator")
    caller("POST", "/api/v1/users", json={**ALICE, "role": "operator"})
    assert caller("POST", f"/api/v1/users/{me}/disable").status_code == 200
    assert caller("GET", "/api/v1/users").status_code == 401

"""Tokens of an external issuer, over HTTP: the issuer says who it is, memberships say what they may do."""

import pytest

from app.core.entities.identity import Role
from app.core.errors import Unavailable
from app.core.interfaces.operations import ExternalIssuer
from tests.unit.conftest import OIDC_ISSUER


class TwinIssuer(ExternalIssuer):
    """Its tokens are ``ext <subject>`` or ``ext <subject> <project>``."""

    url = OIDC_ISSUER
    is_away = False

    def has_issued(self, token):
        return token.startswith("ext ")

    def verify(self, token):
        if self.is_away:
            raise Unavailable("away", code="issuer_unavailable", retry_after=60)
        _, subject, *project = token.split()
        return {"sub": subject, **({"project": project[0]} if project else {})}


@pytest.fixture
def external():
    return TwinIssuer()


@pytest.fixture
def alice(services):
    services.accounts.create_user("alice", None, Role.DEVELOPER, subject="00u1")


def whoami(client, token):
    return client.get("/api/v1/auth/whoami", headers={"Authorization": f"Bearer {token}"})


def test_who_is_linked_comes_in_with_the_role_of_their_membership(client, alice, services):
    shown = whoami(client, "ext 00u1").json
    assert (shown["username"], shown["project_id"], shown["role"]) == ("alice", "default", "developer")
    assert whoami(client, "ext 00u1 default").status_code == 200
    assert whoami(client, "ext 00u1 other").json["code"] == "not_a_member"
    assert whoami(client, "ext stranger").json["code"] == "user_not_linked"


def test_who_has_no_password_does_not_log_in_with_one(client, alice):
    answer = client.post("/api/v1/auth/token", json={"username": "alice", "password": "correct horse battery"})
    assert answer.json["code"] == "invalid_credentials"


def test_a_link_is_made_and_undone(caller, client, alice):
    caller(
        "POST", "/api/v1/users", json={"username": "bob", "password": "correct horse battery", "role": "viewer"}
    )
    path = "/api/v1/users/bob/subject"
    assert caller("PUT", path, json={"subject": "00u1"}).json["code"] == "subject_taken"
    linked = caller("PUT", path, json={"subject": "00u2"})
    assert linked.json["external_id"] == f"{OIDC_ISSUER}#00u2"
    assert whoami(client, "ext 00u2").json["username"] == "bob"
    assert caller("PUT", path, json={"subject": None}).json["external_id"] is None
    assert whoami(client, "ext 00u2").json["code"] == "user_not_linked"
    assert caller("PUT", "/api/v1/users/nobody/subject", json={"subject": "x"}).json["code"] == "user_not_found"
    neither = caller("POST", "/api/v1/users", json={"username": "zoe", "role": "viewer"})
    assert (neither.status_code, neither.json["errors"][0]["where"]) == (422, "password")


def test_a_disabled_user_is_refused_there_too(client, alice, services):
    assert whoami(client, "ext 00u1").status_code == 200
    services.accounts.disable("alice")
    assert whoami(client, "ext 00u1").status_code == 401


def test_without_its_issuer_others_log_in(client, alice, caller, external):
    external.is_away = True
    answer = whoami(client, "ext 00u1")
    assert (answer.status_code, answer.json["code"]) == (503, "issuer_unavailable")
    assert answer.headers["Retry-After"] == "60"
    assert caller("GET", "/api/v1/auth/whoami").status_code == 200

"""Projects and their members."""

import pytest

from app.core.entities.identity import Principal, Role
from app.core.errors import Conflict, Invalid, NotFound

PASSWORD = "correct horse battery"
ROOT = Principal("user-9", "root", "default", Role.OPERATOR)


@pytest.fixture
def projects(services):
    services.accounts.create_user("alice", PASSWORD, Role.ADMIN)
    services.accounts.create_user("bob", PASSWORD, Role.VIEWER)
    return services.projects


@pytest.fixture
def alice(services, projects):
    return services.identity.authenticate(services.identity.login("alice", PASSWORD).token)


def roles(projects, principal):
    return {member.user.username: member.role for member in projects.members(principal)}


def test_a_project_begins_with_an_admin(projects, alice):
    assert [project.id for project in projects.projects(alice)] == ["default"]
    assert projects.create("support", "alice").id == "support"
    assert [project.id for project in projects.projects(alice)] == ["default", "support"]
    assert [project.id for project in projects.projects(ROOT)] == ["default", "other", "support"]
    assert roles(projects, projects.acting_in("support")) == {"alice": Role.ADMIN}
    with pytest.raises(Conflict):
        projects.create("support", "bob")
    assert roles(projects, projects.acting_in("support")) == {"alice": Role.ADMIN}
    with pytest.raises(NotFound):
        projects.create("sales", "nobody")
    with pytest.raises(NotFound):
        projects.acting_in("sales")


@pytest.mark.parametrize("project_id", ["", "-a", "A", "a b", "a/b", "a" * 64, "ø", "a\n"])
def test_a_project_with_faults_is_not_made(projects, project_id):
    with pytest.raises(Invalid):
        projects.create(project_id, "alice")
    assert len(projects.projects(ROOT)) == 2


def test_a_project_keeps_an_admin(projects, alice):
    for change in (
        lambda: projects.set_role(alice, "alice", Role.VIEWER),
        lambda: projects.remove(alice, "alice"),
    ):
        with pytest.raises(Conflict) as refused:
            change()
        assert refused.value.code == "last_admin"
    projects.set_role(alice, "bob", Role.ADMIN)
    projects.remove(alice, "alice")
    assert roles(projects, alice) == {"bob": Role.ADMIN}


def test_no_membership_makes_an_operator(projects, alice):
    for change in (
        lambda: projects.set_role(alice, "bob", Role.OPERATOR),
        lambda: projects.create_service_account(alice, "ci", Role.OPERATOR),
    ):
        with pytest.raises(Conflict) as refused:
            change()
        assert refused.value.code == "not_a_role"
    assert roles(projects, alice) == {"alice": Role.ADMIN, "bob": Role.VIEWER}


def test_a_service_account_stays_in_its_project(services, projects, alice):
    assert projects.create_service_account(alice, "ci", Role.DEVELOPER).user.username == "ci@default"
    with pytest.raises(Conflict):
        projects.create_service_account(alice, "ci", Role.DEVELOPER)
    services.accounts.create_user("eve", PASSWORD, Role.ADMIN, "other")
    eve = services.identity.authenticate(services.identity.login("eve", PASSWORD).token)
    with pytest.raises(NotFound):
        projects.set_role(eve, "ci@default", Role.ADMIN)
    assert projects.create_service_account(eve, "ci", Role.VIEWER).user.username == "ci@other"
    projects.set_role(alice, "ci@default", Role.VIEWER)
    projects.remove(alice, "ci@default")
    for username in ("ci@default", "eve", "nobody"):
        with pytest.raises(NotFound):
            projects.remove(alice, username)


@pytest.mark.parametrize("name", ["", "CI", "a b", "-a", "a@b", "a" * 64])
def test_an_account_with_faults_is_not_made(projects, alice, name):
    with pytest.raises(Invalid):
        projects.create_service_account(alice, name, Role.VIEWER)
    assert len(projects.members(alice)) == 2

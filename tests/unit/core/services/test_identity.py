"""Log-ins, tokens, users."""

import pytest

from app.core.entities.identity import DEFAULT_PROJECT_ID, Role
from app.core.errors import Conflict, Invalid, Unauthorized
from app.core.interfaces.operations import PasswordHasher
from app.core.services.identity import IdentityService

PASSWORD = "correct horse battery"


class CountingHasher(PasswordHasher):
    """Hashes that can be read, and how much work was done."""

    def __init__(self):
        self.checked = []

    def hash(self, password):
        return f"hash of {password}"

    def matches(self, password, password_hash):
        self.checked.append(password_hash)
        return password_hash == f"hash of {password}"


@pytest.fixture
def hasher():
    return CountingHasher()


@pytest.fixture
def identity(twins, tokens, hasher):
    return IdentityService(twins.users, hasher, tokens, 600)


def test_a_log_in_makes_a_principal(identity):
    user = identity.create_user("alice", PASSWORD, Role.DEVELOPER)
    token = identity.login("alice", PASSWORD)
    assert token.expires_in == 600
    principal = identity.authenticate(token.token)
    assert (principal.user_id, principal.username) == (user.id, "alice")
    assert (principal.project_id, principal.role) == (DEFAULT_PROJECT_ID, Role.DEVELOPER)


@pytest.mark.parametrize("username", ["alice", "nobody", "no name at all", "\ud800"])
def test_every_refusal_costs_one_check_of_a_hash(identity, hasher, username):
    identity.create_user("alice", PASSWORD, Role.VIEWER)
    with pytest.raises(Unauthorized) as refused:
        identity.login(username, "wrong password")
    assert refused.value.code == "invalid_credentials"
    assert len(hasher.checked) == 1


def test_a_stranger_cannot_log_in_with_the_decoys_password(identity, hasher):
    with pytest.raises(Unauthorized):
        identity.login("nobody", "anything")
    with pytest.raises(Unauthorized):
        identity.login("nobody", hasher.checked[0].removeprefix("hash of "))


def test_a_changed_role_acts_at_once(identity, twins):
    user = identity.create_user("alice", PASSWORD, Role.VIEWER)
    token = identity.login("alice", PASSWORD).token
    (membership,) = twins.users.memberships(user.id)
    twins.users._memberships.remove(membership)
    with pytest.raises(Unauthorized) as refused:
        identity.authenticate(token)
    assert refused.value.code == "token_invalid"


@pytest.mark.parametrize("username", ["", "-a", "a b", "a" * 65, "a\n", "ø", "../a"])
def test_a_user_with_faults_is_not_made(identity, twins, username):
    with pytest.raises(Invalid) as refused:
        identity.create_user(username, "too short", Role.VIEWER)
    assert [fault.where for fault in refused.value.faults] == ["username", "password"]
    assert not twins.users.any()


@pytest.mark.parametrize(("length", "sound"), [(11, False), (12, True), (1024, True), (1025, False)])
def test_how_long_a_password_is(identity, twins, length, sound):
    if not sound:
        with pytest.raises(Invalid):
            identity.create_user("alice", "p" * length, Role.VIEWER)
    else:
        identity.create_user("alice", "p" * length, Role.VIEWER)
    assert twins.users.any() == sound


def test_a_username_is_taken_once(identity):
    identity.create_user("alice", PASSWORD, Role.VIEWER)
    with pytest.raises(Conflict):
        identity.create_user("alice", PASSWORD, Role.ADMIN)


def test_the_first_start_makes_an_admin_with_a_random_password(identity):
    password = identity.ensure_admin(None)
    assert identity.authenticate(identity.login("admin", password).token).role is Role.ADMIN
    assert identity.ensure_admin(None) is None
    assert identity.ensure_admin(PASSWORD) is None
    identity.login("admin", password)


def test_the_first_start_takes_the_password_it_is_given(identity):
    assert identity.ensure_admin(PASSWORD) is None
    identity.login("admin", PASSWORD)


def test_another_process_was_first(identity, twins, monkeypatch):
    identity.ensure_admin(PASSWORD)
    monkeypatch.setattr(twins.users, "any", lambda: False)
    assert identity.ensure_admin(None) is None


def test_users_and_what_they_are(identity):
    identity.create_user("bob", PASSWORD, Role.VIEWER)
    identity.create_user("alice", PASSWORD, Role.ADMIN)
    assert [(user.username, [m.role for m in members]) for user, members in identity.users()] == [
        ("alice", [Role.ADMIN]),
        ("bob", [Role.VIEWER]),
    ]

"""Log-ins, tokens, users."""

import time
from datetime import UTC, datetime

import pytest

from app.core.entities.identity import DEFAULT_PROJECT_ID, Role
from app.core.errors import Conflict, Forbidden, Invalid, NotFound, TooMany, Unauthorized
from app.core.interfaces.operations import PasswordHasher
from app.core.interfaces.stores import People
from app.core.services.people.accounts import AccountService
from app.core.services.people.callers import SECONDS, RecentCallers
from app.core.services.people.identity import IdentityService
from tests.rates import a_minute

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
def callers():
    return RecentCallers()


@pytest.fixture
def rates():
    return a_minute(attempts=5)


def people(twins):
    return People(twins.users, twins.keys, twins.sessions)


@pytest.fixture
def identity(twins, tokens, hasher, callers, rates):
    return IdentityService(people(twins), hasher, tokens, callers, rates, 600, 3600)


@pytest.fixture
def accounts(twins, hasher, callers, rates):
    return AccountService(people(twins), hasher, callers, rates)


def test_a_stolen_token_does_not_try_passwords_for_long(identity, accounts):
    accounts.create_user("alice", PASSWORD, Role.VIEWER)
    alice = identity.authenticate(identity.login("alice", PASSWORD).token)
    for number in range(5):
        with pytest.raises(Forbidden) as wrong:
            accounts.change_password(alice, f"a guess {number}", "another good password")
        assert wrong.value.code == "wrong_password"
    with pytest.raises(TooMany) as refused:
        accounts.change_password(alice, PASSWORD, "another good password")
    assert refused.value.code == "too_many_attempts"


def test_a_log_in_makes_a_principal(identity, accounts):
    user = accounts.create_user("alice", PASSWORD, Role.DEVELOPER)
    token = identity.login("alice", PASSWORD)
    assert token.expires_in == 600
    principal = identity.authenticate(token.token)
    assert (principal.user_id, principal.username) == (user.id, "alice")
    assert (principal.project_id, principal.role) == (DEFAULT_PROJECT_ID, Role.DEVELOPER)


@pytest.mark.parametrize("username", ["alice", "nobody", "no name at all", "\ud800"])
def test_every_refusal_costs_one_check_of_a_hash(identity, accounts, hasher, username):
    accounts.create_user("alice", PASSWORD, Role.VIEWER)
    with pytest.raises(Unauthorized) as refused:
        identity.login(username, "wrong password")
    assert refused.value.code == "invalid_credentials"
    assert len(hasher.checked) == 1


def test_a_stranger_cannot_log_in_with_the_decoys_password(identity, hasher):
    with pytest.raises(Unauthorized):
        identity.login("nobody", "anything")
    with pytest.raises(Unauthorized):
        identity.login("nobody", hasher.checked[0].removeprefix("hash of "))


def test_a_changed_role_acts_at_once(identity, accounts, twins):
    user = accounts.create_user("alice", PASSWORD, Role.VIEWER)
    token = identity.login("alice", PASSWORD).token
    accounts.create_user("bob", PASSWORD, Role.ADMIN)
    assert twins.users.remove_member(user.id, DEFAULT_PROJECT_ID)
    with pytest.raises(Unauthorized) as refused:
        identity.authenticate(token)
    assert refused.value.code == "token_invalid"


@pytest.mark.parametrize("username", ["", "-a", "a b", "a" * 65, "a\n", "ø", "../a"])
def test_a_user_with_faults_is_not_made(accounts, twins, username):
    with pytest.raises(Invalid) as refused:
        accounts.create_user(username, "too short", Role.VIEWER)
    assert [fault.where for fault in refused.value.faults] == ["username", "password"]
    assert not twins.users.any()


@pytest.mark.parametrize(("length", "sound"), [(11, False), (12, True), (1024, True), (1025, False)])
def test_how_long_a_password_is(accounts, twins, length, sound):
    if not sound:
        with pytest.raises(Invalid):
            accounts.create_user("alice", "p" * length, Role.VIEWER)
    else:
        accounts.create_user("alice", "p" * length, Role.VIEWER)
    assert twins.users.any() == sound


def test_a_username_is_taken_once(accounts):
    accounts.create_user("alice", PASSWORD, Role.VIEWER)
    with pytest.raises(Conflict):
        accounts.create_user("alice", PASSWORD, Role.ADMIN)


def test_the_first_start_makes_an_admin_with_a_random_password(identity, accounts):
    password = accounts.ensure_admin(None)
    assert identity.authenticate(identity.login("admin", password).token).role is Role.OPERATOR
    assert accounts.ensure_admin(None) is None
    assert accounts.ensure_admin(PASSWORD) is None
    identity.login("admin", password)


def test_the_first_start_takes_the_password_it_is_given(identity, accounts):
    assert accounts.ensure_admin(PASSWORD) is None
    identity.login("admin", PASSWORD)


def test_another_process_was_first(accounts, twins, monkeypatch):
    accounts.ensure_admin(PASSWORD)
    monkeypatch.setattr(twins.users, "any", lambda: False)
    assert accounts.ensure_admin(None) is None


def test_users_and_what_they_are(accounts):
    accounts.create_user("bob", PASSWORD, Role.VIEWER)
    accounts.create_user("alice", PASSWORD, Role.ADMIN)
    assert [(user.username, [m.role for m in members]) for user, members in accounts.users()] == [
        ("alice", [Role.ADMIN]),
        ("bob", [Role.VIEWER]),
    ]


def test_a_token_is_for_the_project_that_the_log_in_names(identity, accounts, twins):
    user = accounts.create_user("alice", PASSWORD, Role.VIEWER)
    twins.users.set_role(user.id, "other", Role.ADMIN)
    principal = identity.authenticate(identity.login("alice", PASSWORD, "other").token)
    assert (principal.project_id, principal.role) == ("other", Role.ADMIN)
    with pytest.raises(Unauthorized) as refused:
        identity.login("alice", PASSWORD, "nowhere")
    assert refused.value.code == "not_a_member"
    with pytest.raises(Unauthorized) as refused:
        identity.login("alice", "wrong password", "nowhere")
    assert refused.value.code == "invalid_credentials"


def test_an_operator_is_one_in_every_project_of_theirs(identity, accounts, twins):
    user = accounts.create_user("root", PASSWORD, Role.OPERATOR)
    twins.users.set_role(user.id, "other", Role.VIEWER)
    assert identity.authenticate(identity.login("root", PASSWORD, "other").token).role is Role.OPERATOR


def test_a_busy_caller_is_looked_up_once_until_something_changes(identity, accounts, twins, monkeypatch):
    accounts.create_user("alice", PASSWORD, Role.VIEWER)
    token = identity.login("alice", PASSWORD).token
    looks = []
    look = twins.sessions.get
    monkeypatch.setattr(twins.sessions, "get", lambda session_id: looks.append(1) or look(session_id))
    for _ in range(5):
        identity.authenticate(token)
    assert len(looks) == 1
    assert accounts.sign_out("alice") == 1
    with pytest.raises(Unauthorized):
        identity.authenticate(token)
    assert len(looks) == 2


def test_what_another_process_revokes_is_seen_within_a_second(identity, accounts, twins, monkeypatch):
    alice = accounts.create_user("alice", PASSWORD, Role.VIEWER)
    token = identity.login("alice", PASSWORD).token
    assert SECONDS < 1
    monkeypatch.setattr(
        "app.core.services.people.callers.SECONDS", 60
    )  # a slow machine may take a second between two lines
    identity.authenticate(token)
    assert twins.sessions.revoke_all(alice.id, datetime.now(UTC)) == 1
    identity.authenticate(token)
    identity._callers._known.expire(time.monotonic() + 60)
    with pytest.raises(Unauthorized):
        identity.authenticate(token)


def test_a_session_ends_however_often_it_is_refreshed(twins, tokens, hasher, accounts):
    short = IdentityService(people(twins), hasher, tokens, RecentCallers(), a_minute(), 600, 0)
    accounts.create_user("alice", PASSWORD, Role.VIEWER)
    first = short.login("alice", PASSWORD)
    with pytest.raises(Unauthorized) as refused:
        short.refresh(first.refresh_token)
    assert refused.value.code == "refresh_token_invalid"
    with pytest.raises(Unauthorized):
        short.authenticate(first.token)


def test_nobody_unknown_is_signed_out(accounts):
    with pytest.raises(NotFound):
        accounts.sign_out("nobody")


def test_a_password_that_changes_during_a_log_in_leaves_no_session(identity, accounts, twins, hasher, monkeypatch):
    user = accounts.create_user("alice", PASSWORD, Role.VIEWER)
    matches = hasher.matches

    def slow(password, password_hash):
        found = matches(password, password_hash)
        accounts.set_password("alice", "staple correct horse")
        return found

    monkeypatch.setattr(hasher, "matches", slow)
    with pytest.raises(Unauthorized):
        identity.login("alice", PASSWORD)
    assert twins.sessions.revoke_all(user.id, datetime.now(UTC)) == 0

"""The key: made once, whole, private. (What it signs and refuses: tests/unit/api/test_authentication.py.)"""

import os
import stat
import subprocess
import sys
import time

import jwt
import pytest

from app.core.errors import Conflict, Unauthorized, Unavailable
from app.implementations.identity.secret_keys import SecretKeys
from app.implementations.identity.tokens import JwtIssuer

START = """
import sys
from pathlib import Path
from app.implementations.identity.secret_keys import SecretKeys
from app.implementations.identity.tokens import JwtIssuer
print("ready", flush=True)
sys.stdin.readline()
print(JwtIssuer(SecretKeys(None, Path(sys.argv[1]))).issue({"sub": "someone"}, 60))
"""


@pytest.fixture
def key_file(tmp_path):
    return tmp_path / "instance" / "secret_key"


def test_what_it_issues_it_verifies(key_file):
    claims = JwtIssuer(SecretKeys(None, key_file)).verify(
        JwtIssuer(SecretKeys(None, key_file)).issue({"sub": "someone", "project": "p"}, 60)
    )
    assert (claims["sub"], claims["project"], claims["exp"] - claims["iat"]) == ("someone", "p", 60)


def test_registered_claims_are_not_the_callers_to_set(key_file):
    issuer = JwtIssuer(SecretKeys(None, key_file))
    assert issuer.verify(issuer.issue({"sub": "someone", "aud": "x", "iss": "x", "exp": 9**12}, 60))


def test_each_token_has_an_id_of_its_own(key_file):
    issuer = JwtIssuer(SecretKeys(None, key_file))
    ids = {issuer.verify(issuer.issue({"sub": "someone"}, 60))["jti"] for _ in range(3)}
    assert len(ids) == 3


def test_a_given_key_makes_no_file(key_file):
    issuer = JwtIssuer(SecretKeys("k" * 32, key_file))
    assert JwtIssuer(SecretKeys("k" * 32, key_file)).verify(issuer.issue({"sub": "someone"}, 60))
    with pytest.raises(Unauthorized):
        JwtIssuer(SecretKeys("l" * 32, key_file)).verify(issuer.issue({"sub": "someone"}, 60))
    assert not key_file.exists()


def test_the_key_file_is_private_and_long_enough(key_file):
    JwtIssuer(SecretKeys(None, key_file))
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert len(key_file.read_bytes()) == 32
    assert list(key_file.parent.iterdir()) == [key_file]


def test_a_damaged_key_is_not_used(key_file):
    key_file.parent.mkdir()
    key_file.write_bytes(b"short")
    with pytest.raises(Unavailable, match="secret_key"):
        JwtIssuer(SecretKeys(None, key_file))


def test_processes_that_start_at_once_share_one_key(key_file):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", START, str(key_file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        tokens = [process.communicate(timeout=30)[0].strip() for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    issuer = JwtIssuer(SecretKeys(None, key_file))
    assert [issuer.verify(token)["sub"] for token in tokens] == ["someone"] * 4


def test_what_was_signed_before_a_rotation_is_good_and_another_process_follows(key_file):
    issuer, other = JwtIssuer(SecretKeys(None, key_file)), JwtIssuer(SecretKeys(None, key_file))
    before = issuer.issue({"sub": "someone"}, 60)
    assert issuer.rotate() != jwt.get_unverified_header(before)["kid"]
    after = issuer.issue({"sub": "someone"}, 60)
    for one in (issuer, other, JwtIssuer(SecretKeys(None, key_file))):
        assert one.verify(before)["sub"] == one.verify(after)["sub"] == "someone"
        assert jwt.get_unverified_header(one.issue({"sub": "x"}, 60)) == jwt.get_unverified_header(after)
    assert {stat.S_IMODE(path.stat().st_mode) for path in key_file.parent.iterdir()} == {0o600}


def test_a_key_that_was_retired_a_day_ago_verifies_no_more(key_file):
    issuer = JwtIssuer(SecretKeys(None, key_file))
    before = issuer.issue({"sub": "someone"}, 10**6)
    issuer.rotate()
    (retired,) = key_file.parent.glob("secret_key.*")
    day_old = time.time() - 86_401
    os.utime(retired, (day_old, day_old))
    with pytest.raises(Unauthorized):
        JwtIssuer(SecretKeys(None, key_file)).verify(before)
    issuer.rotate()
    assert not retired.exists()


def test_a_configured_key_is_rotated_by_the_configuration(key_file):
    before = JwtIssuer(SecretKeys("k" * 32, key_file)).issue({"sub": "someone"}, 60)
    now = JwtIssuer(SecretKeys("l" * 32, key_file, ["k" * 32]))
    assert now.verify(before)["sub"] == "someone"
    assert JwtIssuer(SecretKeys("l" * 32, key_file)).verify(now.issue({"sub": "x"}, 60))
    with pytest.raises(Conflict, match="OLD_SECRET_KEYS"):
        now.rotate()

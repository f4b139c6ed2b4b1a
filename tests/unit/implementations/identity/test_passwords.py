"""Password hashes."""

import pytest

from app.implementations.identity.passwords import Argon2Hasher


def test_only_the_password_matches_its_hash():
    hasher = Argon2Hasher()
    kept = hasher.hash("correct horse battery")
    assert kept.startswith("$argon2id$")
    assert hasher.matches("correct horse battery", kept)
    assert not hasher.matches("correct horse batterz", kept)
    assert hasher.hash("correct horse battery") != kept  # salted


@pytest.mark.parametrize("kept", ["", "no hash", "$argon2id$broken", "$2b$12$abcdefghijklmnopqrstuv"])
def test_a_damaged_hash_matches_nothing(kept):
    assert not Argon2Hasher().matches("", kept)

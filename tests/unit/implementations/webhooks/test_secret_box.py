"""Secrets at rest: not to be read without the key, and with it as they were."""

import stat

import pytest

from app.core.errors import Unavailable
from app.implementations.webhooks.secret_box import FernetBox


def test_what_is_sealed_is_opened_by_another_process_alone(tmp_path):
    key_file = tmp_path / "encryption_key"
    sealed = FernetBox(None, key_file).seal("whsec_abc")
    assert "abc" not in sealed
    assert FernetBox(None, key_file).open(sealed) == "whsec_abc"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    given = FernetBox("k" * 32, tmp_path / "none")
    assert given.open(given.seal("whsec_abc")) == "whsec_abc"
    assert not (tmp_path / "none").exists()
    for text in (sealed, "", "not sealed"):
        with pytest.raises(Unavailable) as refused:
            given.open(text)
        assert refused.value.code == "secret_unreadable"

import json
import stat

from app.implementations.serving.addresses import read_engine_addresses, write_engine_addresses


def test_where_the_engines_listen_is_told_in_a_private_file(tmp_path):
    assert read_engine_addresses(tmp_path) == ({}, None)
    write_engine_addresses(tmp_path, {"tiny": "http://127.0.0.1:1"}, "secret")
    write_engine_addresses(tmp_path, {"tiny": "http://127.0.0.1:2"}, "secret")
    assert read_engine_addresses(tmp_path) == ({"tiny": "http://127.0.0.1:2"}, "secret")
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text()) == {"engines": {"tiny": "http://127.0.0.1:2"}, "secret": "secret"}

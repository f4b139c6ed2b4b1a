"""Starting the web application."""

import subprocess
import sys
from pathlib import Path

import pytest

from app import create_app
from app.bootstrap import SettingsError

ROOT = Path(__file__).parents[2]
HEAVY = ["torch", "transformers", "peft", "accelerate", "safetensors", "numpy", "pyarrow", "datasets"]
ONE_REQUEST = f"""
import sys
import app
assert "flask" not in sys.modules, "to import app loads Flask"
from app.bootstrap import load_settings, prepare_instance
from app.cli import init_cli
made = app.create_app(load_settings())
prepare_instance(made)
client = made.test_client()
assert client.get("/api/v1/monitor/ready").status_code == 200
password = {{"username": "admin", "password": "correct horse battery"}}
token = client.post("/api/v1/auth/token", json=password).json["access_token"]
headers = {{"Authorization": "Bearer " + token}}
body = {{"dataset_path": "data/raw/sound.json", "base_model": "tiny-random"}}
answer = client.post("/api/v1/train", json=body, headers=headers)
assert answer.status_code == 202, answer.json
answer = client.post("/api/v1/predict", json={{"text": "hello"}}, headers=headers)
assert answer.status_code == 503, answer.json
init_cli(made)
talked = made.test_cli_runner().invoke(args=["chat"], input="hello\\n/compare tiny-random nobody\\nhello\\n")
assert talked.exit_code == 0, talked.output
assert talked.stderr.count("Error: no engine answers") == 1, talked.stderr
print([name for name in {HEAVY} if name in sys.modules])
"""


def environment(tmp_path):
    (tmp_path / "data" / "raw").mkdir(parents=True)
    (tmp_path / "data" / "raw" / "sound.json").write_text(
        '[{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}]'
    )
    return {
        "DOTENV_PATH": "/dev/null",
        "PYTHONPATH": str(ROOT),
        "ADMIN_PASSWORD": "correct horse battery",
        **{f"{name.upper()}_DIR": str(tmp_path / name) for name in ("instance", "data", "models", "results")},
    }


def test_the_web_process_loads_no_torch(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", ONE_REQUEST],
        capture_output=True,
        text=True,
        env=environment(tmp_path),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("name", "value", "key"),
    [
        ("PORT", "many", "port"),
        ("RATE_LIMIT", "now and then", "rate_limit"),
        ("SECRET_KEY", "short", "secret_key"),
    ],
)
def test_a_faulty_setting_ends_the_start_with_one_line(tmp_path, name, value, key):
    done = subprocess.run(
        [sys.executable, "-c", "import app; app.create_app()"],
        capture_output=True,
        text=True,
        env=environment(tmp_path) | {name: value},
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("Error: configuration: ")
    assert key in done.stderr
    assert value not in done.stderr


@pytest.mark.parametrize(
    ("name", "value", "key"),
    [
        ("DATABASE_URL", "nonsense", "database_url"),
        ("DATABASE_URL", "mysql://app:pl4nted@db/app", "database_url"),
        ("DATABASE_URL", "postgresql://db:port/app", "database_url"),
        ("REDIS_URL", "nonsense", "redis_url"),
        ("REDIS_URL", "http://:pl4nted@redis", "redis_url"),
        ("OLD_SECRET_KEYS", '["pl4nted"]', "old_secret_keys"),
        ("ENGINES", '{"m": "gpu-box:8000"}', "engines"),
        ("ENGINES", '{"m": "http://e:pl4nted@gpu:port"}', "engines"),
        ("LOGGING_FILE", "absent.yaml", "logging_file"),
        ("LOGGING_FILE", __file__, "logging_file"),
        ("BASE_MODELS_FILE", "absent.yaml", "base_models_file"),
        ("TRAIN_CONFIG_FILE", "absent.yaml", "train_config_file"),
        ("INSTANCE_DIR", f"{__file__}/below", "instance_dir"),
    ],
)
def test_a_setting_that_nothing_can_use_is_named(tmp_path, monkeypatch, name, value, key):
    for variable, given in (environment(tmp_path) | {name: value}).items():
        monkeypatch.setenv(variable, given)
    with pytest.raises(SystemExit) as stopped:
        create_app()
    assert f"configuration: {key}: " in stopped.value.code
    assert "pl4nted" not in stopped.value.code


def test_a_faulty_training_config_is_told_the_same_way(settings, tmp_path, monkeypatch):
    faulty = tmp_path / "train.yaml"
    faulty.write_text("learning_rate: -1\ncolour: red\n")
    monkeypatch.setenv("TRAIN_CONFIG_FILE", str(faulty))
    monkeypatch.setenv("INSTANCE_DIR", str(tmp_path / "instance"))
    with pytest.raises(SystemExit) as stopped:
        create_app()
    assert "train.yaml.learning_rate" in stopped.value.code
    assert "train.yaml.colour" in stopped.value.code


def test_who_brings_settings_gets_the_error_itself(settings, tmp_path):
    faulty = tmp_path / "base_models.yaml"
    faulty.write_text("- not a mapping")
    with pytest.raises(Exception, match="base_models") as raised:
        create_app(settings.model_copy(update={"base_models_file": faulty}))
    assert not isinstance(raised.value, SystemExit | SettingsError)

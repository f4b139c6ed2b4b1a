"""The commands that the README shows, typed one block after the other into one shell, beside a real service."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STARTER = "smollm2-135m-instruct"
START_SECONDS = 120
SHELL_SECONDS = 900


def blocks() -> list[str]:
    """Those in ```bash fences, less the ones marked no-test."""
    return re.findall(r"^```bash\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder like the repository, with less data and nothing trained."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("app", "config", "run.py"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "data/raw").mkdir(parents=True)
    rows = json.loads((ROOT / "data/raw/sample_data.json").read_text("utf-8"))
    parts = {part: [row for row in rows if row["split"] == part] for part in ("train", "validation", "test")}
    few = [*parts["train"][:16], *parts["validation"][:6], *parts["test"][:6]]
    (folder / "data/raw/sample_data.json").write_text(json.dumps(few), "utf-8")
    shutil.copy(ROOT / "data/raw/sample_preferences.json", folder / "data/raw")
    return folder


@pytest.fixture(scope="module")
def environment(folder: Path) -> dict[str, str]:
    """What a reader's shell has after `source .venv/bin/activate`, with everything kept in ``folder``."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "FLASK_SKIP_DOTENV": "1",
        "FLASK_APP": "run",  # as .flaskenv says
        "HF_HUB_OFFLINE": "1",
        "ADMIN_PASSWORD": "change-me-please",
        "PORT": "0",
        "CPU_THREADS": "1",  # threads that wait for each other crawl when other processes want the cores
        **{f"{name.upper()}_DIR": str(folder / name) for name in ("instance", "data", "models", "results")},
    }
    # Converted once into the repository, as a reader's is, and lent to the service.
    pull = ["flask", "models", "pull", STARTER]
    here = environment | {"MODELS_DIR": str(ROOT / "models")}
    subprocess.run(pull, cwd=ROOT, env=here, check=True, timeout=180)
    (folder / "models").mkdir()
    (folder / "models/base").symlink_to(ROOT / "models/base")
    return environment


@pytest.fixture(scope="module")
def url(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """Where `python run.py` answers, once it says that it is ready."""
    service = subprocess.Popen(
        [sys.executable, "run.py"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    said: list[str] = []
    told = threading.Event()

    def listen() -> None:
        assert service.stdout is not None
        for line in service.stdout:
            said.append(line)
            if "is ready: " in line:
                told.set()
        told.set()

    with service:
        listener = threading.Thread(target=listen)
        listener.start()
        try:
            told.wait(START_SECONDS)
            ready = re.search(r"is ready: (http\S+)", "".join(said))
            assert ready, f"run.py does not become ready:\n{''.join(said)}"
            yield ready[1]
        finally:
            service.send_signal(signal.SIGINT)
            try:
                service.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(service.pid, signal.SIGKILL)
            listener.join()


def test_the_commands_work_as_shown(folder: Path, environment: dict[str, str], url: str) -> None:
    script = "\n".join(f"printf '\\n### %s\\n' {number}\n{block}" for number, block in enumerate(blocks()))
    script = script.replace("http://127.0.0.1:5000", url)
    status, said = in_shell(script, folder, environment)
    assert status == 0, said
    _, *printed = re.split(r"\n### \d+\n", said)
    assert len(printed) == len(blocks())
    by_command = dict(zip(blocks(), printed, strict=True))

    def output(fragment: str) -> str:
        return next(text for block, text in by_command.items() if fragment in block)

    assert "succeeded" in output("until curl")
    asked = output("$URL/predict").splitlines()
    assert '"first-steps:1"' in asked[-1]
    assert json.loads(asked[-1])["text"].strip()
    assert "created alice" in output("flask users create")
    assert "first-steps:1" in output("flask models show")
    assert ": sound;" in output("process_data.py")
    assert "second-steps:1" in output("evaluate_model.py")
    (run,) = folder.glob("results/in-the-foreground_*")
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["train_loss"] > 0
    assert (run / "artifacts/adapter_model.safetensors").is_file()
    assert (run / "config.yaml").is_file()
    assert (run / "logs.txt").is_file()


def in_shell(script: str, folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Exit status and output; whatever the script started ends with it."""
    with subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as shell:
        too_late = threading.Timer(SHELL_SECONDS, os.killpg, [shell.pid, signal.SIGKILL])
        too_late.start()
        said, _ = shell.communicate()
        too_late.cancel()
    return shell.returncode, said


def test_only_the_gpu_block_and_those_that_set_up_or_run_for_long_are_left_out() -> None:
    left_out = re.findall(r"^```bash no-test\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.M | re.S)
    assert [block.split("\n")[0] for block in left_out] == [
        "make demo",
        "make install",
        "flask train submit --dataset-path data/raw/sample_tickets.json --set objective=classification \\",
        "flask models pull deepseek-r1-1.5b",
    ]


def test_every_folder_has_its_caption() -> None:
    captions = re.findall(r"^\| (`.*?) \|", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    named = set(re.findall(r"`([\w./]+?)/?`", " ".join(captions)))
    rooms = {str(folder.relative_to(ROOT)) for folder in [*ROOT.glob("[a-z]*/"), *ROOT.glob("app/[a-z]*/")]}
    rooms -= {name for name in rooms if name in ("build", "dist", "htmlcov") or name.endswith(".egg-info")}
    missing = {room for room in rooms if not any(name == room or name.startswith(f"{room}/") for name in named)}
    assert not missing

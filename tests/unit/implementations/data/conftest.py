import json
from collections.abc import Callable
from pathlib import Path

import pytest

from app.implementations.data.store import FileDatasetStore
from app.implementations.data.tokenization import FolderChatTokenizer
from app.implementations.models.random_model import write_random_tokenizer
from app.registries import DATA_FORMATS

# As published with DeepSeek-R1-Distill-Qwen-1.5B, but for the branches that render tool calls.
R1_TEMPLATE = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
    "{% set ns = namespace(is_first=false, is_tool=false, is_output_first=true, system_prompt='') %}"
    "{%- for message in messages %}{%- if message['role'] == 'system' %}"
    "{% set ns.system_prompt = message['content'] %}{%- endif %}{%- endfor %}{{bos_token}}{{ns.system_prompt}}"
    "{%- for message in messages %}{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}"
    "{{'<｜User｜>' + message['content']}}{%- endif %}"
    "{%- if message['role'] == 'assistant' and message['content'] is not none %}"
    "{% set content = message['content'] %}{% if '</think>' in content %}"
    "{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{'<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>'}}{%- endif %}{%- endfor -%}"
    "{% if add_generation_prompt and not ns.is_tool %}{{'<｜Assistant｜><think>\\n'}}{% endif %}"
)


@pytest.fixture(scope="session")
def chatml_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chatml")
    write_random_tokenizer("llama", folder)
    return folder


@pytest.fixture(scope="session")
def chatml(chatml_folder: Path) -> FolderChatTokenizer:
    return FolderChatTokenizer(chatml_folder)


@pytest.fixture(scope="session")
def r1_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("r1")
    write_random_tokenizer("qwen2", folder)
    (folder / "chat_template.jinja").write_text(R1_TEMPLATE, "utf-8")
    return folder


@pytest.fixture(scope="session")
def r1(r1_folder: Path) -> FolderChatTokenizer:
    return FolderChatTokenizer(r1_folder)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    (tmp_path / "data" / "raw").mkdir(parents=True)
    return tmp_path / "data"


@pytest.fixture
def store(data_dir: Path) -> FileDatasetStore:
    return FileDatasetStore(data_dir, [DATA_FORMATS.create(name) for name in DATA_FORMATS.names()], 100_000)


@pytest.fixture
def put(data_dir: Path) -> Callable[..., str]:
    """Writes a raw file (bytes, or rows as JSON) and answers the path that a client would name."""

    def write(content: object, name: str = "data.json") -> str:
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        (data_dir / "raw" / name).write_bytes(raw)
        return f"data/raw/{name}"

    return write

"""``flask data``: from a file to versions, and what they print."""

import json

import pytest

ROWS = [
    {"messages": [{"role": "user", "content": f"What is {n}?"}, {"role": "assistant", "content": f"It is {n}. "}]}
    for n in range(6)
]


@pytest.fixture
def flask(app):
    """``flask(…)`` → (exit status, standard output, standard error)."""
    runner = app.test_cli_runner()

    def run(*words):
        done = runner.invoke(args=["data", *map(str, words)])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.stdout, done.stderr

    return run


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "support.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [*ROWS, ROWS[0]]))
    return file


def test_from_a_file_to_its_third_version(flask, file, tmp_path):
    code, first, _ = flask("upload", file)
    first = first.strip()
    assert (code, first.startswith("ds-"), first[-2:]) == (0, True, ":1")
    dataset = first[:-2]
    assert flask("list")[1].split() == [first, "7", "rows", "support"]

    code, out, _ = flask("process", first)
    assert code == 0
    assert "clean    7 → 6 rows: 6 changed, 1 dropped, 0 made" in out
    assert "row 1, messages[1].content" in out
    assert out.splitlines()[-1] == f"{dataset}:2"
    code, out, _ = flask("diff", first, f"{dataset}:2", "--limit", 1)
    assert "0 added, 1 removed, 6 changed" in out
    assert "  - row 1: " in out
    assert flask("tag", first, "raw")[0] == 0
    assert flask("list")[1].split() == [f"{dataset}:2", "6", "rows", "support", "raw=1"]
    code, out, _ = flask("restore", f"{dataset}@raw")
    assert (code, out) == (0, f"{dataset}:3\n")
    versions = flask("versions", dataset)[1].splitlines()
    assert [line.split()[0] for line in versions] == [f"{dataset}:3", f"{dataset}:2", first]
    assert "restored from version 1" in versions[0]
    assert flask("upload", file, "--to", dataset)[1] == f"{dataset}:4\n"
    assert flask("untag", dataset, "raw")[0] == 0
    assert flask("delete", dataset)[0] == 0
    assert flask("list")[1] == ""


def test_analyze_and_validate_take_a_file_or_a_dataset(flask, file, tmp_path):
    reference = flask("upload", file)[1].strip()
    picture = tmp_path / "lengths.png"
    for source in (file, reference):
        code, out, _ = flask("analyze", source, "--histogram", picture)
        assert code == 0
        assert "rows          7" in out
        assert picture.read_bytes().startswith(b"\x89PNG")
        picture.unlink()
        code, out, _ = flask("validate", source, "--limit", 1)
        assert code == 0
        assert "[duplicate]" in out
        assert "rows/s" in out


def test_validate_lists_every_fault(flask, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text("nonsense\n" * 30)
    code, out, err = flask("validate", bad)
    assert (code, len(out.splitlines())) == (1, 30)
    assert out.splitlines()[29].startswith("  line 30, column 1: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["analyze", "nowhere.json"], "there is no such file"),
        (["versions", "ds-1"], "no dataset 'ds-1'"),
        (["analyze", "ds-1"], "'ds-1' is no dataset"),
        (["restore", f"ds-{'0' * 24}:1"], "no dataset"),
        (["preview", "nowhere.json", "--base-model", "tiny-random"], "there is no such file"),
    ],
)
def test_what_is_not_there_is_one_line(flask, words, says):
    code, _, err = flask(*words)
    assert code == 1
    assert says in err
    assert err.startswith("Error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("words", [["--name", "a", "--to", "ds-1"], ["--column", "x"], ["--column", "=x"]])
def test_wrong_use_of_upload(flask, file, words):
    assert flask("upload", file, *words)[0] == 2

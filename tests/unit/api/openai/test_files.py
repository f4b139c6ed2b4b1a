"""/v1/files with the official client: a file is a dataset."""

import json

import openai as wire
import pytest

from app.core.entities.identity import Role

CHAT = [
    {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"{n}!"}]}
    for n in range(3)
]
PREFERENCES = [
    {
        "input": {"messages": [{"role": "user", "content": f"{n}?"}]},
        "preferred_output": [{"role": "assistant", "content": "good"}],
        "non_preferred_output": [{"role": "assistant", "content": "bad"}],
    }
    for n in range(3)
]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def send(openai, rows=CHAT, name="train.jsonl", **options):
    return openai.files.create(file=(name, lines(rows)), purpose="fine-tune", **options)


@pytest.mark.parametrize("rows", [CHAT, PREFERENCES])
def test_a_file_is_a_dataset_of_the_project_and_read_again(openai, caller, rows):
    file = send(openai, rows)
    assert (file.object, file.filename, file.purpose, file.status) == (
        "file",
        "train.jsonl",
        "fine-tune",
        "processed",
    )
    assert openai.files.retrieve(file.id) == file
    found = caller("GET", f"/api/v1/datasets/{file.id}").json
    assert (found["newest"]["rows"], found["newest"]["size"]) == (3, file.bytes)
    read = [json.loads(line) for line in openai.files.content(file.id).content.splitlines()]
    assert read == rows


def test_the_same_name_twice_is_two_files_and_one_without_an_ending_is_json_lines(openai):
    first, second = send(openai), send(openai)
    assert first.id != second.id
    assert openai.files.create(file=lines(CHAT), purpose="fine-tune").filename == "upload.jsonl"


def test_pages_go_on_in_both_orders(openai):
    made = [send(openai, name=f"{n}.jsonl").id for n in range(5)]
    assert [file.id for file in openai.files.list(limit=2)] == made[::-1]
    assert [file.id for file in openai.files.list(limit=2, order="asc")] == made
    assert [file.id for file in openai.files.list(purpose="fine-tune-results")] == []


def test_a_deleted_file_is_gone(openai):
    file = send(openai)
    assert openai.files.delete(file.id).to_dict() == {"id": file.id, "object": "file", "deleted": True}
    with pytest.raises(wire.NotFoundError):
        openai.files.retrieve(file.id)


def test_a_file_with_faults_is_refused_with_all_of_them_and_not_kept(openai):
    with pytest.raises(wire.BadRequestError) as caught:
        openai.files.create(file=("bad.jsonl", lines(CHAT) + b'{"messages": []}\nnonsense\n'), purpose="fine-tune")
    assert caught.value.code == "invalid_data"
    assert "row 4" in caught.value.message
    assert list(openai.files.list()) == []


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"purpose": "batch"}, "purpose"),
        ({"expires_after": {"anchor": "created_at", "seconds": 3600}}, "expires_after[anchor]"),
        ({"extra_body": {"colour": "red"}}, "colour"),
    ],
)
def test_what_is_not_had_is_refused_by_name(openai, options, param):
    with pytest.raises(wire.BadRequestError) as caught:
        openai.files.create(**{"file": ("a.jsonl", lines(CHAT)), "purpose": "fine-tune", **options})
    assert f"{param}: " in caught.value.message
    assert list(openai.files.list()) == []


@pytest.mark.parametrize("query", [{"after": "ds-" + "0" * 24}, {"limit": 0}, {"order": "up"}])
def test_a_page_that_cannot_be_is_refused(openai, query):
    with pytest.raises(wire.BadRequestError):
        openai.files.list(**query)


def test_a_viewer_reads_and_writes_nothing(connect, openai):
    file = send(openai)
    viewer = connect(Role.VIEWER)
    assert viewer.files.retrieve(file.id).id == file.id
    with pytest.raises(wire.PermissionDeniedError):
        viewer.files.delete(file.id)
    with pytest.raises(wire.PermissionDeniedError):
        send(viewer)

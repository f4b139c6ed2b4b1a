"""OpenAI's fine-tuning guide, step by step, against this service: ``python -m app.scripts.openai_guide --help``.

The official client alone speaks here. What runs against OpenAI has another ``base_url`` and the name of another
model.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

POLL_SECONDS = 0.5
FINAL = ("succeeded", "failed", "cancelled")
SYSTEM = {"role": "system", "content": "You are the shop's assistant, and answer in one sentence."}
HOURS = {"Monday": "nine", "Tuesday": "ten", "Wednesday": "eight", "Thursday": "noon", "Friday": "seven"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 all done, 1 something failed, 2 a usage error."""
    options = parser().parse_args(arguments)
    try:
        from openai import OpenAI, OpenAIError
    except ImportError:
        print("the client is not installed: pip install openai", file=sys.stderr)
        return 2
    try:
        with OpenAI(base_url=options.base_url, api_key=options.api_key) as client:
            return walk(client, options.model, options.n_epochs)
    except OpenAIError as error:
        print(error, file=sys.stderr)
        return 1


def walk(client: Any, model: str, n_epochs: int) -> int:
    print("1. upload a training file and a validation file")
    days = list(HOURS)
    training = client.files.create(file=("hours.jsonl", lines(days[:4] * 3)), purpose="fine-tune")
    validation = client.files.create(file=("more-hours.jsonl", lines(days[4:])), purpose="fine-tune")
    print(f"   {training.id} ({training.status}), {validation.id}")

    print("2. create a fine-tuning job")
    job = client.fine_tuning.jobs.create(
        model=model,
        training_file=training.id,
        validation_file=validation.id,
        suffix="shop-hours",
        seed=7,
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": n_epochs}}},
    )
    print(f"   {job.id}: {job.status}")

    print("3. follow its events")
    for event in followed(client, job.id):
        print(f"   {event.message}")
    job = client.fine_tuning.jobs.retrieve(job.id)
    print(f"   {job.status}, {job.trained_tokens} trained tokens")
    if job.status != "succeeded":
        print(f"{job.id}: {job.error and job.error.message}", file=sys.stderr)
        return 1

    print("4. list its checkpoints, and read its result file")
    for checkpoint in client.fine_tuning.jobs.checkpoints.list(job.id):
        print(f"   {checkpoint.fine_tuned_model_checkpoint}: {checkpoint.metrics.to_dict()}")
    table = client.files.content(job.result_files[0]).text.splitlines()
    print(f"   {table[0]} and {len(table) - 1} rows")

    print(f"5. chat with {job.fine_tuned_model}")
    asked: dict[str, Any] = {"model": job.fine_tuned_model, "messages": question("Monday"), "max_tokens": 24}
    answer = client.chat.completions.create(**asked, temperature=0)
    print(f"   {answer.choices[0].message.content!r}")

    print("6. the same, as it is made")
    stream = client.chat.completions.create(**asked, temperature=0, stream=True)
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    print(f"   {len(pieces)} pieces")
    if "".join(pieces) != answer.choices[0].message.content:
        print("the stream says something else", file=sys.stderr)
        return 1

    print("7. delete the model, and the file that validated")
    print(f"   {client.models.delete(job.fine_tuned_model).to_dict()}")
    print(f"   {client.files.delete(validation.id).to_dict()}")
    return 0


def followed(client: Any, job_id: str) -> Iterator[Any]:
    """Events in the order in which they come, until the job has ended."""
    seen: set[str] = set()
    while True:
        status = client.fine_tuning.jobs.retrieve(job_id).status  # first: what is said after it is not the end
        fresh: list[Any] = []
        for event in client.fine_tuning.jobs.list_events(job_id, limit=50):
            if event.id in seen:
                break
            fresh.append(event)
        seen.update(event.id for event in fresh)
        yield from reversed(fresh)
        if status in FINAL:
            return
        time.sleep(POLL_SECONDS)


def question(day: str) -> list[dict[str, str]]:
    return [SYSTEM, {"role": "user", "content": f"When do you open on {day}?"}]


def lines(days: Sequence[str]) -> bytes:
    rows = [
        {"messages": [*question(day), {"role": "assistant", "content": f"On {day} we open at {HOURS[day]}."}]}
        for day in days
    ]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser("openai_guide", description="OpenAI's fine-tuning guide on this service.")
    arguments.add_argument("--base_url", default="http://127.0.0.1:5000/v1", help="the service's, with /v1")
    arguments.add_argument(
        "--api_key",
        default=os.environ.get("OPENAI_API_KEY"),
        required="OPENAI_API_KEY" not in os.environ,
        help="an admin's key (else OPENAI_API_KEY's): the last step deletes a model",
    )
    arguments.add_argument("--model", default="smollm2-135m-instruct", help="the base model to train on")
    arguments.add_argument("--n_epochs", type=int, default=3)
    return arguments


if __name__ == "__main__":
    sys.exit(main())

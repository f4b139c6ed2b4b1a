"""What a job is checked for before it is queued: all that needs the tokenizer."""

from collections.abc import Callable, Iterator, Sequence

from app.core.entities.datasets import SPLITS, Conversation, PreparedDataset
from app.core.entities.models import not_generative
from app.core.entities.training_config import TrainingConfig
from app.core.errors import AppError, Fault, Invalid
from app.core.interfaces.components import BaseModelStore, ChatTokenizer, DatasetStore
from app.core.services.cuts import cut_of
from app.core.services.encoding import encode, labels_of
from app.core.services.tracking import chosen_trackers

MAX_LABELS = 1000  # beyond, the column is no label, and the confusion matrix of each step would be in the way


def check_job(
    config: TrainingConfig,
    digest: str,
    datasets: DatasetStore,
    bases: BaseModelStore,
    *,
    trusted: bool,
    go_on: Callable[[], bool],
) -> int:
    """The tokens of the longest training row.

    ``Unavailable`` (base_model_missing), ``Conflict`` if the file has changed, or ``Invalid``.

    The last is not_generative or tracker_not_installed, or invalid_data and lists every fault of every row. Asked
    before each row, ``go_on`` ends the check early.
    """
    chosen_trackers(config)
    bases.folder(config.base_model)
    prepared = cut_of(config, digest, datasets, trusted=trusted)
    tokenizer = bases.tokenizer(config.base_model)
    labels: Sequence[str] = ()
    faults = list(_empty(prepared))
    if config.objective == "classification":
        labels = labels_of(datasets.rows(prepared, "train"))
        faults.extend(_labels(labels))
    elif not tokenizer.generates:
        raise not_generative(config.base_model)
    longest = 0
    for split in SPLITS:
        for conversation in datasets.rows(prepared, split):
            if not go_on():
                return longest
            tokens, found = _row(conversation, tokenizer, config, labels)
            longest = max(longest, tokens if split == "train" else 0)
            faults.extend(found)
    if faults:
        count = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
        raise Invalid(f"the data cannot be trained on: {count}", code="invalid_data", faults=faults)
    return longest


def _empty(prepared: PreparedDataset) -> Iterator[Fault]:
    if not prepared.counts.get("train"):
        yield Fault("dataset", "no_training_rows", "no row is left to train on: add rows")


def _labels(labels: Sequence[str]) -> Iterator[Fault]:
    if len(labels) < 2:
        found = f"only {labels[0]!r}" if labels else "none"
        yield Fault("dataset", "too_few_labels", f"the training rows have {found}: two labels are the least")
    elif len(labels) > MAX_LABELS:
        yield Fault(
            "dataset", "too_many_labels", f"the training rows have {len(labels)} labels: {MAX_LABELS} are the most"
        )


def _row(
    conversation: Conversation, tokenizer: ChatTokenizer, config: TrainingConfig, labels: Sequence[str]
) -> tuple[int, Sequence[Fault]]:
    """The tokens of the longest of its pieces, and what is wrong with it."""
    where = f"row {conversation.row}"
    try:
        rows = encode(conversation, tokenizer, config, labels)
    except AppError as error:
        return 0, [
            Fault(f"{where}: {fault.where}" if fault.where else where, fault.code, fault.message)
            for fault in error.faults or (Fault("", error.code, error.message),)
        ]
    if not any(row.supervised for row in rows):
        reach = f"max_length ({config.max_length} tokens)"
        message = f"no token of the answer is within {reach}: shorten the row or raise it"
        return 0, [Fault(where, "no_trained_token", message)]
    return max(row.tokens for row in rows), ()

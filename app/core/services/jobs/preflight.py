"""What a job is checked for before it is queued: all that needs the tokenizer."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app.core.entities.datasets import SPLITS, Conversation, PreparedDataset, Split, TokenizedRow
from app.core.entities.ledger import TokenLedger
from app.core.entities.models import not_generative
from app.core.entities.training_config import TrainingConfig
from app.core.errors import AppError, Fault, Invalid
from app.core.interfaces.components import ChatTokenizer, DatasetStore, TokenCache
from app.core.interfaces.stores import Stores
from app.core.services.data.encoding import encode, labels_of
from app.core.services.data.ledger import by_row, make_ledger
from app.core.services.jobs.tracking import chosen_trackers

MAX_LABELS = 1000  # beyond, the column is no label, and the confusion matrix of each step would be in the way


@dataclass(frozen=True, slots=True)
class JobCheck:
    """What was found of a job with nothing against it."""

    ledger: TokenLedger

    @property
    def longest_row(self) -> int:
        """Tokens of the longest training row."""
        return self.ledger.splits["train"].longest


class _ToldToStop(Exception):
    """``go_on`` said no."""


def check_job(
    config: TrainingConfig, prepared: PreparedDataset, stores: Stores, go_on: Callable[[], bool]
) -> JobCheck | None:
    """Check the rows of a cut; leave them as token ids for the trainer. Asked before each row, ``go_on`` ends the
    check: None.

    ``Unavailable`` (base_model_missing), or ``Invalid``: not_generative or tracker_not_installed, or invalid_data,
    which lists every fault of every row.
    """
    chosen_trackers(config)
    stores.bases.folder(config.base_model)
    tokenizer = stores.bases.tokenizer(config.base_model)
    if not config.has_label_head and not tokenizer.generates:
        raise not_generative(config.base_model)
    with suppress(_ToldToStop):
        return _checked(config, prepared, stores.datasets, tokenizer, stores.tokens, go_on)
    return None


def _checked(
    config: TrainingConfig,
    prepared: PreparedDataset,
    datasets: DatasetStore,
    tokenizer: ChatTokenizer,
    tokens: TokenCache,
    go_on: Callable[[], bool],
) -> JobCheck:
    cut, faults = Path(prepared.folder), list(_empty(prepared))
    stops = frozenset(() if config.has_label_head else tokenizer.stop_token_ids)
    kept = tokens.find(cut, tokenizer, config)
    if kept is not None:  # what had a fault was not kept
        rows = ((split, pieces) for split in SPLITS for pieces in by_row(kept[split]))
        return _judged(make_ledger(rows, stops, config.train_samples), config, stops, faults)
    labels: Sequence[str] = ()
    if config.has_label_head:
        labels = labels_of(datasets.rows(prepared, "train"))
        faults.extend(_labels(labels))

    with tokens.keeping(cut, tokenizer, config) as keep:

        def tokenized() -> Iterator[tuple[Split, Sequence[TokenizedRow]]]:
            for split in SPLITS:
                for conversation in datasets.rows(prepared, split):
                    if not go_on():
                        raise _ToldToStop
                    pieces, found = _row(conversation, tokenizer, config, labels)
                    faults.extend(found)
                    if not found:
                        keep(split, pieces)
                        yield split, pieces

        return _judged(make_ledger(tokenized(), stops, config.train_samples), config, stops, faults)


def _judged(ledger: TokenLedger, config: TrainingConfig, stops: frozenset[int], faults: list[Fault]) -> JobCheck:
    """``Invalid`` (invalid_data) with the faults, and that of rows of which none teaches where to stop."""
    if not faults and stops and not ledger.splits["train"].ended_rows:
        message = (
            f"in no training row is the end token within max_length ({config.max_length} tokens), so the model "
            "would never learn to stop: shorten the rows or raise it"
        )
        faults.append(Fault("dataset", "end_never_trained", message))
    if faults:
        count = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
        raise Invalid(f"the data cannot be trained on: {count}", code="invalid_data", faults=faults)
    return JobCheck(ledger)


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
) -> tuple[Sequence[TokenizedRow], Sequence[Fault]]:
    """It as token ids, or what is wrong with it."""
    where = f"row {conversation.row}"
    try:
        rows = encode(conversation, tokenizer, config, labels)
    except AppError as error:
        return (), [
            Fault(f"{where}: {fault.where}" if fault.where else where, fault.code, fault.message)
            for fault in error.faults or (Fault("", error.code, error.message),)
        ]
    if not any(row.supervised for row in rows):
        reach = f"max_length ({config.max_length} tokens)"
        message = f"no token of the answer is within {reach}: shorten the row or raise it"
        return (), [Fault(where, "no_trained_token", message)]
    return rows, ()

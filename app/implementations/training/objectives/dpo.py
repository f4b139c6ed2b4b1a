"""Direct preference optimization (Rafailov et al. 2023, arXiv:2305.18290): the chosen answer over the rejected."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from app.core.entities.datasets import IGNORED, Conversation, Message, TokenizedRow
from app.core.errors import DiskFull, Invalid
from app.core.interfaces.components import ChatTokenizer, Reporter, TrainingStopped
from app.core.services.jobs.room import needs_room
from app.implementations.training.method import Objective, Strategy
from app.utils.folders import building, manifest_of, seal, sha256_of

if TYPE_CHECKING:
    import torch
    from torch import nn

    from app.implementations.training.batches import PackedBatch

KEPT = "reference"  # the folder beside the checkpoints, and its one file
MESSAGE_SECONDS = 10.0


class DpoObjective(Objective):
    """Batch of pairs → their summed −log σ(chosen reward − rejected reward), the paper's equation 7.

    An answer's reward is dpo_beta · (log π − log π₀), both summed over its tokens. π₀ is the model as the run
    found it, adapter and all. It does not change, so ``prepare`` computes its part once for all rows: there is no
    second model, and one way for every adaptation and for a run that goes on from a version.
    """

    rows = frozenset({"a preference pair"})
    wanted = "preference pairs: prompt, chosen and rejected, or input, preferred_output and non_preferred_output"
    generates = True
    scores_first = True
    reference: Mapping[int, tuple[float, float]] | None = None  # row → log π₀ of (chosen, rejected)

    @staticmethod
    def encode(
        conversation: Conversation, tokenizer: ChatTokenizer, max_length: int | None
    ) -> Sequence[TokenizedRow]:
        """The chosen answer's row with the rejected one's, supervised after the prompt that they share."""
        assert conversation.rejected is not None
        prompt = conversation.messages[:-1]
        length = len(tokenizer.encode_prompt(prompt))

        def after_prompt(answer: Message) -> TokenizedRow:
            row = tokenizer.encode_training([*prompt, answer], max_length)
            labels = [IGNORED] * min(length, len(row.labels)) + list(row.labels[length:])
            return replace(row, row=conversation.row, labels=labels)

        chosen, rejected = after_prompt(conversation.messages[-1]), after_prompt(conversation.rejected)
        if chosen.supervised and chosen.input_ids == rejected.input_ids:
            raise Invalid(
                f"both answers are the same within max_length ({max_length} tokens): shorten the row or raise it",
                code="same_answer",
            )
        truncated, dropped = chosen.truncated + rejected.truncated, chosen.dropped + rejected.dropped
        return [replace(chosen, rejected=rejected, truncated=truncated, dropped=dropped)]

    @staticmethod
    def weight(row: TokenizedRow) -> int:
        return 1

    def __call__(self, batch: PackedBatch) -> dict[str, torch.Tensor]:
        """``loss``, ``accuracy`` (pairs whose chosen reward is the higher) and ``margin`` (by how much, summed).

        Before there is a reference: ``log_probabilities``, (rows, 2), of the chosen and the rejected answers.
        """
        from torch.nn.functional import logsigmoid

        found = self._log_probabilities(batch)
        if self.reference is None:
            return {"log_probabilities": found}
        reference = found.new_tensor([self.reference[row] for row in batch.rows])
        rewards = self.config.dpo_beta * (found - reference)
        margins = rewards[:, 0] - rewards[:, 1]
        return {
            "loss": -logsigmoid(margins).sum(),
            "accuracy": (margins > 0).sum().to(margins.dtype),
            "margin": margins.detach().sum(),
        }

    def figures(self, sums: Mapping[str, torch.Tensor], weight: int) -> dict[str, float]:
        return {name: float(sums[name]) / weight for name in ("loss", "accuracy", "margin")}

    def _log_probabilities(self, batch: PackedBatch) -> torch.Tensor:
        """(rows, 2), in float32 at least."""
        import torch

        from app.implementations.training.objectives.token_losses import token_losses

        tokens = -token_losses(self.model, batch, self.config.kernel_names)
        counts = [int((batch.labels[0, start:end] != IGNORED).sum()) for start, end in batch.segments]
        return torch.stack([part.sum() for part in torch.split(tokens, counts)]).view(-1, 2)

    def prepare(
        self,
        wrapped: nn.Module,
        strategy: Strategy,
        rows: Sequence[TokenizedRow],
        device: torch.device,
        folder: Path,
        report: Reporter,
    ) -> None:
        """The reference of all ``rows``: computed, or as an earlier attempt at the job has kept it."""
        import torch

        digest = _digest(rows)
        kept = _read(folder / KEPT, digest) if strategy.rank == 0 else None
        if strategy.agree(kept is not None):
            own = torch.zeros(len(rows), 2) if kept is None else kept
        else:
            own = self._score(wrapped, strategy, rows, device, report)
        found = strategy.total({KEPT: own.to(device)})[KEPT].cpu()
        if strategy.rank == 0 and kept is None:
            _keep(folder / KEPT, found, digest, report)
        self.reference = {
            row.row: (chosen, rejected) for row, (chosen, rejected) in zip(rows, found.tolist(), strict=True)
        }

    def _score(
        self,
        wrapped: nn.Module,
        strategy: Strategy,
        rows: Sequence[TokenizedRow],
        device: torch.device,
        report: Reporter,
    ) -> torch.Tensor:
        """(rows, 2): the log-probabilities of this process's share, zeros elsewhere."""
        import torch

        from app.implementations.training.batches import pack, share_of

        report.message(f"scoring {len(rows)} pairs with the model as it is before training")
        wrapped.eval()
        found = torch.zeros(len(rows), 2)
        size = self.config.batch_size
        batches = [list(range(start, min(start + size, len(rows)))) for start in range(0, len(rows), size)]
        said = time.monotonic()
        with torch.no_grad():
            for places, counts in share_of(strategy.rank, strategy.processes, batches):
                if strategy.agree(report.should_stop()):
                    raise TrainingStopped
                scores = wrapped(pack([rows[place] for place in places]).to(device))["log_probabilities"]
                if counts:
                    found[places] = scores.float().cpu()
                if time.monotonic() - said > MESSAGE_SECONDS:
                    said = time.monotonic()
                    report.message(f"scored {places[-1] + 1} of {len(rows)} pairs")
        return found


def _digest(rows: Sequence[TokenizedRow]) -> str:
    """Of all that the reference is computed from, but for the model: a job has one."""
    digest = hashlib.sha256()
    for row in rows:
        for sequence in filter(None, (row, row.rejected)):
            digest.update(json.dumps([row.row, list(sequence.input_ids), list(sequence.labels)]).encode())
    return digest.hexdigest()


def _read(place: Path, digest: str) -> torch.Tensor | None:
    """(rows, 2) if it is there, whole, and of these rows."""
    from safetensors.torch import load_file

    file, manifest = place / f"{KEPT}.safetensors", manifest_of(place)
    if manifest is None or manifest["rows"] != digest or manifest["files"][file.name]["sha256"] != sha256_of(file):
        return None
    return load_file(file)[KEPT]


def _keep(place: Path, found: torch.Tensor, digest: str, report: Reporter) -> None:
    """Beside the checkpoints, whole or not at all. Without room the run goes on: resumed, it computes it again."""
    from safetensors.torch import save_file

    try:
        with (
            needs_room("the scores are not kept, and a resumed run computes them anew"),
            building(place) as folder,
        ):
            save_file({KEPT: found}, folder / f"{KEPT}.safetensors")
            seal(folder, {"rows": digest})
    except DiskFull as error:
        report.message(error.message, "warn")

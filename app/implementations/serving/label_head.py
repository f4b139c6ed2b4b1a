"""A model with a label head, whole or as an adapter over its base, by transformers' own code."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from app.implementations.data.encoder_tokenizer import ENCODERS
from app.implementations.models.devices import pick_device, pick_precision
from app.implementations.models.lean_peft import PeftModel
from app.implementations.models.loading import loader_for
from app.implementations.serving.messages import Precision


class LabelHead:
    """One text at a time: its shares then never hang on what else is asked."""

    def __init__(self, network: Any, labels: Sequence[str], device: torch.device) -> None:
        self.labels = labels
        classifier = network.get_base_model() if isinstance(network, PeftModel) else network
        self.vocabulary = int(classifier.get_input_embeddings().weight.shape[0])
        self.context = int(getattr(classifier.config, "max_position_embeddings", 8192))
        if classifier.config.model_type not in ENCODERS:
            # transformers would look for the last token that is no padding. There is none here, and training reads
            # the last one of all, be it the one that pads elsewhere.
            classifier.config.pad_token_id = None
        self._network = network
        self._device = device

    @torch.inference_mode()
    def shares(self, ids: Sequence[int]) -> list[float]:
        """Of each label; together 1."""
        batch = torch.tensor([list(ids)], device=self._device)
        logits = self._network(input_ids=batch, attention_mask=torch.ones_like(batch)).logits[0]
        shares: list[float] = logits.double().softmax(-1).tolist()
        return shares


def load_label_head(
    folder: Path, base_folder: Path | None, labels: Sequence[str], precision: Precision
) -> LabelHead:
    """``folder`` has the whole model, or the adapter that goes over the model in ``base_folder``.

    What int8 and nf4 pack are layers of models that write; beside a label head they mean ``auto``.
    """
    device = pick_device("auto")
    dtype = pick_precision("auto" if precision in ("int8", "nf4") else precision, device)
    adapter = None if base_folder is None else folder
    network = loader_for(False, labels).load(base_folder or folder, dtype, adapter)
    return LabelHead(network.eval().to(device), labels, device)

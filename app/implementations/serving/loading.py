"""A base model from a local folder, by the path that its architecture allows."""

from pathlib import Path

from app.implementations.models.devices import pick_device, pick_precision
from app.implementations.models.loading import load_causal_lm
from app.implementations.serving import decoder
from app.implementations.serving.fast_model import FastModel
from app.implementations.serving.messages import Precision
from app.implementations.serving.model import ServedModel
from app.implementations.serving.transformers_model import TransformersModel


def load_model(folder: Path, precision: Precision, kv_bytes: int) -> ServedModel:
    """``kv_bytes`` bounds the keys and values of the fast path."""
    device = pick_device("auto")
    network = load_causal_lm(folder, pick_precision(precision, device)).to(device).eval()
    if device.type == "cpu" and decoder.fits(network.config):
        return FastModel(network, kv_bytes)
    return TransformersModel(network, device)

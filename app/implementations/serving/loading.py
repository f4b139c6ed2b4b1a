"""A base model from a local folder, by the path that its architecture allows."""

import logging
from pathlib import Path

import torch

from app.implementations.models.devices import pick_device, pick_precision
from app.implementations.models.loading import loader_for
from app.implementations.serving import decoder
from app.implementations.serving.fast_model import FastModel
from app.implementations.serving.kernels import Kernels
from app.implementations.serving.messages import Precision
from app.implementations.serving.model import ServedModel
from app.implementations.serving.native.build import NotBuilt, load
from app.implementations.serving.native.kernels import NativeKernels
from app.implementations.serving.torch_kernels import TorchKernels
from app.implementations.serving.transformers_model import TransformersModel

logger = logging.getLogger(__name__)


def load_model(folder: Path, precision: Precision, kv_bytes: int, kernels: Path | None) -> ServedModel:
    """``kv_bytes`` bounds the keys and values of the fast path. ``kernels``: where its compiled kernels are kept;
    None: it has those of torch."""
    device = pick_device("auto")
    dtype = pick_precision("auto" if precision in ("int8", "nf4") else precision, device)
    network = loader_for(precision == "nf4", device=device).load(folder, dtype).eval()
    if precision == "nf4":
        return TransformersModel(network, device)
    network, int8 = network.to(device), precision == "int8"
    if device.type == "cpu" and decoder.fits(network.config):
        return FastModel(network, kv_bytes, pick_kernels(network.dtype, kernels), int8)
    if int8:
        raise ValueError("ENGINE_PRECISION is int8: that is for Llama and Qwen2 models on a CPU; nf4 is for all")
    return TransformersModel(network, device)


def pick_kernels(dtype: torch.dtype, folder: Path | None) -> Kernels:
    """``folder``: as ``load_model`` has it."""
    if folder is None:
        return TorchKernels()
    try:
        return NativeKernels(load(folder), dtype)
    except NotBuilt as reason:
        logger.warning("no native kernels, so answers take up to twice as long: %s", reason)
        return TorchKernels()
